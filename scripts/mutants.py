"""Which changes of the core does no test notice? `make mutants ARGS="-j 2 --sample 40 sidecar/spool"`.

One mutant at a time is made in a copy of the repository and the tests of its file run there; those that all pass are
reported. Some of them change nothing that anybody could see: judge each by hand. Exit 1 where any survived.
"""

from __future__ import annotations

import argparse
import ast
import fnmatch
import os
import queue
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
CLIENT, CLIENT_TESTS = "clients/python/src/modelready", "clients/python/tests"
SPOOL = "tests/integration/test_spool*.py tests/unit/test_spool_*.py"
CONSUMER = " ".join(f"{CLIENT_TESTS}/test_{name}.py" for name in ("lanes", "in_flight", "consumer", "consumer_group"))
PUBLISHING = "tests/unit/test_publisher.py tests/unit/test_forwarder.py tests/unit/test_event_log.py"
QUEUE = "tests/integration/test_queue_contract.py tests/integration/test_taxonomy.py"

TABLE: list[tuple[str, str]] = [  # files, and the quick tests that are to notice; the first that fits counts
    ("sidecar/publishing/spool_gate.py", "tests/unit/test_spool_gate.py"),
    (
        "sidecar/publishing/*.py",
        "tests/unit/test_publisher.py tests/unit/test_forwarder.py tests/unit/test_event_log.py",
    ),
    ("sidecar/spool/*.py", SPOOL),
    ("sidecar/redisstream/lua/append.lua", "tests/integration/test_queue_contract.py tests/integration/test_mirror.py"),
    ("sidecar/redisstream/lua/trim.lua", "tests/integration/test_trim.py"),
    ("sidecar/redisstream/lua/count.lua", "tests/integration/test_queue_status.py"),
    ("sidecar/redisstream/lua/*.lua", "tests/integration/test_dead_letters.py"),
    ("sidecar/redisstream/*.py", QUEUE),
    (f"{CLIENT}/seen.py", f"{CLIENT_TESTS}/test_seen*.py"),
    (f"{CLIENT}/lua/seen_*.lua", f"{CLIENT_TESTS}/test_seen*.py"),
    (f"{CLIENT}/_consumer/list_reader.py", f"{CLIENT_TESTS}/test_list_consumer.py"),
    (f"{CLIENT}/_consumer/lua/list_*.lua", f"{CLIENT_TESTS}/test_list_consumer.py"),
    (f"{CLIENT}/keys.py", "tests/unit/test_keys.py"),
    (f"{CLIENT}/entry.py", "tests/unit/test_entry*.py"),
    (f"{CLIENT}/_window.py", f"{CLIENT_TESTS}/test_window*.py"),
    (f"{CLIENT}/_retry.py", f"{CLIENT_TESTS}/test_retries.py"),
    (f"{CLIENT}/_consumer/*", CONSUMER),
    (f"{CLIENT}/redis/*", f"{CLIENT_TESTS}/test_consumer_connection.py tests/integration/test_taxonomy.py"),
]

_OTHER: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult, ast.Break: ast.Continue,
    ast.Continue: ast.Break,
}  # fmt: skip
_LUA = [(r"==", "~="), (r"~=", "=="), (r"<=", "<"), (r">=", ">"), (r"<(?!=)", "<="), (r">(?!=)", ">="),
        (r"\band\b", "or"), (r"\bor\b", "and"), (r"\bnot ", ""), (r"\btrue\b", "false"), (r"\bfalse\b", "true"),
        (r" \+ ", " - "), (r" - ", " + "), (r"(?<![\w'\"])\d+(?![\w'\"])", "+1")]  # fmt: skip
_LUA_STATEMENT = re.compile(r"^(\s*)(redis\.call\(.*\)|return\b.*|\w+(\[[^]]*\])? = .*)$")


class Mutant(NamedTuple):
    """One changed file."""

    path: str
    line: int
    change: str
    text: str


def of_lua(path: str, text: str) -> Iterator[Mutant]:
    """By regular expressions: one operator, number or statement of a line changed."""
    lines = text.splitlines(keepends=True)
    for index, line in enumerate(lines):
        code = line.split("--")[0].rstrip("\n")

        def made(new: str, index: int = index, code: str = code) -> Mutant:
            changed = [*lines[:index], new + "\n", *lines[index + 1 :]]
            return Mutant(path, index + 1, f"{code.strip()} -> {new.strip() or 'nothing'}", "".join(changed))

        for pattern, other in _LUA:
            for found in re.finditer(pattern, code):
                replacement = str(int(found[0]) + 1) if other == "+1" else other
                yield made(code[: found.start()] + replacement + code[found.end() :])
        if statement := _LUA_STATEMENT.match(code):
            yield made(statement[1])


def _others(node: ast.AST) -> Iterator[str]:
    """What may stand in the place of this node."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _OTHER:
        other = ast.Compare(node.left, [_OTHER[type(node.ops[0])]()], node.comparators)  # type: ignore[list-item]
        yield f"({ast.unparse(other)})"
    elif isinstance(node, ast.BoolOp):
        yield f"({ast.unparse(ast.BoolOp(_OTHER[type(node.op)](), node.values))})"  # type: ignore[arg-type]
    elif isinstance(node, ast.BinOp) and type(node.op) in _OTHER:
        yield f"({ast.unparse(ast.BinOp(node.left, _OTHER[type(node.op)](), node.right))})"  # type: ignore[arg-type]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield f"({ast.unparse(node.operand)})"
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield str(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield str(node.value + 1)
    elif isinstance(node, ast.Break | ast.Continue):
        yield ast.unparse(_OTHER[type(node)]())
    elif isinstance(node, ast.Return) and node.value is not None and ast.unparse(node) != "return None":
        yield "return None"
    elif isinstance(node, ast.Raise | ast.AugAssign) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await)
    ):
        yield "pass"


def of_python(path: str, text: str) -> Iterator[Mutant]:
    """By the syntax tree: the text of one node replaced."""
    raw = text.encode()
    starts = [0]
    for line in raw.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in ast.walk(ast.parse(text)):
        for new in _others(node):
            assert isinstance(node, ast.expr | ast.stmt)
            begin = starts[node.lineno - 1] + node.col_offset
            end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
            changed = (raw[:begin] + new.encode() + raw[end:]).decode()
            try:
                compile(changed, path, "exec")
            except SyntaxError:  # within an f-string
                continue
            yield Mutant(path, node.lineno, f"{raw[begin:end].decode()} -> {new}", changed)


def _tests(path: str) -> list[str]:
    named = next((tests for pattern, tests in TABLE if fnmatch.fnmatch(path, pattern)), "")
    return sorted({str(found.relative_to(ROOT)) for name in named.split() for found in ROOT.glob(name)})


def _run(place: Path, tests: list[str], seconds: float) -> bool:
    """Whether all pass in time, in this copy."""
    environ = {**os.environ, "PYTHONPATH": f"{place}:{place}/clients/python/src"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not soak and not docker", "-p", "no:cacheprovider"]
    process = subprocess.Popen(
        [*command, "--timeout", "60", *tests], cwd=place, env=environ, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        return process.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)  # with the servers that it left
        process.wait()


def _copied(files: list[str], place: Path) -> Path:
    for path in (path for path in files if (ROOT / path).is_file()):
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, place / path)
    return place


def _put(place: Path, path: str, text: str) -> None:
    (place / path).write_text(text)
    for compiled in (place / path).parent.glob(f"__pycache__/{Path(path).stem}.*"):
        compiled.unlink()  # its check by size and second is too coarse


def main() -> int:
    """Makes them, runs them, reports."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="*", help="paths or their beginnings; default: all of the table")
    parser.add_argument("-j", type=int, default=2, help="how many at a time (2)")
    parser.add_argument("--seconds", type=float, default=3600, help="begin no new one after this time (3600)")
    parser.add_argument("--sample", type=int, default=0, help="only this number of them, drawn at random")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    deadline = time.monotonic() + options.seconds
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, text=True, capture_output=True, check=True).stdout.split()
    tests_of = {path: _tests(path) for path in tracked if path.startswith(tuple(options.files) or "")}
    chosen = [path for path, tests in tests_of.items() if tests and (ROOT / path).exists()]
    mutants = [m for p in chosen for m in (of_lua if p.endswith(".lua") else of_python)(p, (ROOT / p).read_text())]
    if options.sample:
        mutants = random.Random(options.seed).sample(mutants, min(options.sample, len(mutants)))
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        places: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(options.j):
            places.put(_copied(tracked, Path(scratch, str(number))))
        limits: dict[tuple[str, ...], float] = {}
        for tests in {tuple(tests_of[mutant.path]) for mutant in mutants}:
            began = time.monotonic()
            if not _run(Path(scratch, "0"), list(tests), 600):
                sys.exit(f"these fail without a mutant: {' '.join(tests)}")
            limits[tests] = 3 * (time.monotonic() - began) + 20

        def survives(mutant: Mutant) -> bool | None:
            if time.monotonic() > deadline:
                return None
            place = places.get()
            tests = tests_of[mutant.path]
            try:
                _put(place, mutant.path, mutant.text)
                return _run(place, tests, limits[tuple(tests)])
            finally:
                _put(place, mutant.path, (ROOT / mutant.path).read_text())
                places.put(place)

        with ThreadPoolExecutor(options.j) as workers:
            results = []
            for mutant, survived in zip(mutants, workers.map(survives, mutants), strict=True):
                results.append(survived)
                if survived:
                    print(f"{mutant.path}:{mutant.line}: {mutant.change}", flush=True)
    tried, left = sum(result is not None for result in results), sum(result is True for result in results)
    print(f"{tried} of {len(mutants)} mutants tried, {left} survived")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
