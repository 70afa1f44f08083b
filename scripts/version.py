"""The version of a release: one for both distributions, the image, the chart and the TypeScript client.

python scripts/version.py               # prints it
python scripts/version.py 0.2.0         # writes it everywhere
python scripts/version.py --tag v0.2.0  # exit code 1 if the tag is for another version
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Each file with its pattern; the group is the version.
PLACES = {
    "sidecar/__init__.py": r'^__version__ = "(.+)"$',
    "clients/python/src/modelready/__init__.py": r'^__version__ = "(.+)"$',
    "pyproject.toml": r'^    "modelready==(.+)",$',
    "Dockerfile": r'image\.version="(.+)"',
    "deploy/helm/model-ready/Chart.yaml": r'^(?:version|appVersion): "(.+)"$',
    "clients/typescript/package.json": r'^  "version": "(.+)",$',
    "clients/typescript/package-lock.json": r'"name": "modelready",\n +"version": "(.+)",$',
}


def versions() -> dict[str, list[str]]:
    """The versions that each file has."""
    return {name: re.findall(pattern, (ROOT / name).read_text(), re.MULTILINE) for name, pattern in PLACES.items()}


def version() -> str:
    """The version. Raises SystemExit if the files differ."""
    found = versions()
    if {one for those in found.values() for one in those or ["none"]} != {found["sidecar/__init__.py"][0]}:
        raise SystemExit(f"the versions differ: {found}")
    return found["sidecar/__init__.py"][0]


def write(new: str) -> None:
    """Write the version everywhere."""
    for name, pattern in PLACES.items():
        path = ROOT / name
        changed = re.sub(pattern, lambda found: found[0].replace(found[1], new), path.read_text(), flags=re.MULTILINE)
        path.write_text(changed)


def main() -> None:
    """Print, write or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("new", nargs="?")
    parser.add_argument("--tag")
    options = parser.parse_args()
    if options.new:
        write(options.new)
    if options.tag and options.tag != f"v{version()}":
        raise SystemExit(f"the tag {options.tag} is not v{version()}: write the version with scripts/version.py first")
    print(version())


if __name__ == "__main__":
    main()
