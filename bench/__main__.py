"""`python -m bench`, from the root of the repository: all figures, into bench/RESULTS.md; a part is only printed.

`--against` compares two checkouts instead, see bench/compare.py.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

from bench import load
from bench.compare import compare
from bench.figures import FIGURES
from bench.report import Result, render
from bench.rounds import FULL, QUICK, Figure, Scale

RESULTS = Path(__file__).parent / "RESULTS.md"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything; only printed")
    parser.add_argument("--only", action="append", choices=[figure.name for figure in FIGURES], help="only printed")
    parser.add_argument("--rounds", type=int, help="rounds of each figure")
    parser.add_argument(
        "--against", type=Path, metavar="CHECKOUT", help="instead: CPU of this checkout and of that one"
    )
    options = parser.parse_args()
    if not Path("/proc/self/stat").exists():
        print("bench reads CPU and memory from /proc: it needs Linux", file=sys.stderr)
        return 1
    if load.h2load_missing():
        print("h2load is missing, and with it some figures (Debian: apt-get install nghttp2-client)", flush=True)
    scale = QUICK if options.quick else FULL
    if options.rounds:
        scale = scale._replace(rounds=options.rounds)
    if options.against:
        compare(options.against, scale)
        return 0
    results = [measure(figure, scale) for figure in FIGURES if not options.only or figure.name in options.only]
    text = render(results, scale, " ".join(["python -m bench", *sys.argv[1:]]))
    print("\n" + text)
    if not options.quick and not options.only:
        RESULTS.write_text(text)
    return 0


def measure(figure: Figure, scale: Scale) -> Result:
    if missing := figure.missing():
        return Result(figure, [], missing)
    print(f"{figure.name:17}", end="", flush=True)
    began = time.monotonic()
    rounds = []
    for each in figure.rounds(scale):
        rounds.append(each)
        print(f" {each.ours / each.baseline:.2f}", end="", flush=True)
    result = Result(figure, rounds)
    print(f"  median {statistics.median(result.ratios):.2f}, {time.monotonic() - began:.0f} s", flush=True)
    return result


if __name__ == "__main__":
    sys.exit(main())
