"""Programs in Go and TypeScript, built into .cache, the first time in a minute or so.

Where a toolchain, or the registry that it needs for the first build, is missing, the test is skipped; with REQUIRE_GO=1
or REQUIRE_NODE=1 that is a failure.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[2]
BUILT = ROOT / ".cache/examples"
_OFFLINE = (
    "ENOTFOUND",
    "ECONNREFUSED",
    "ECONNRESET",
    "EAI_AGAIN",
    "ETIMEDOUT",
    "ENOTCACHED",
    "dial tcp",
    "toolchain not",
)


def built_by_go(source: Path, package: str = ".") -> Path:
    """The program of one package of the module in the directory `source`."""
    check_go()
    program = BUILT / f"go-{source.parent.name}-{source.name}-{Path(package).name or 'main'}"
    with _alone():
        _run("go", "build", "-o", str(program), package, directory=source, required="REQUIRE_GO")
    return program


def installed_by_go(package: str) -> Path:
    """The program of "path@version"."""
    place = BUILT / package.replace("/", "-")
    with _alone():
        if not place.exists():
            check_go()
            _run("go", "install", package, directory=ROOT, required="REQUIRE_GO", env={"GOBIN": str(place)})
    (program,) = place.iterdir()
    return program


def built_by_node(source: Path) -> Path:
    """A built copy of the package in the directory `source`: npm leaves what it installs beside the source."""
    check_node()
    left_out = ("node_modules", "dist")
    files = [path for path in source.rglob("*") if path.is_file() and not set(path.parts) & set(left_out)]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()
    place = BUILT / f"node-{source.parent.name}-{source.name}"
    stamp = place / "built"
    with _alone():
        if not stamp.exists() or stamp.read_text() != digest:
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(source, place, ignore=shutil.ignore_patterns(*left_out))
            quietly = ("--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1")
            _run("npm", "ci", *quietly, directory=place, required="REQUIRE_NODE")
            _run("npm", "run", "build", directory=place, required="REQUIRE_NODE")
            stamp.write_text(digest)
    return place


def check_go() -> None:
    """Skips the test where Go is missing."""
    if not shutil.which("go"):
        _missing("go is not installed", "REQUIRE_GO")


def check_node() -> None:
    """Skips the test where Node.js is missing."""
    if not (shutil.which("node") and shutil.which("npm")):
        _missing("node or npm is not installed", "REQUIRE_NODE")


@contextmanager
def _alone() -> Iterator[None]:
    """One worker builds at a time."""
    BUILT.mkdir(parents=True, exist_ok=True)
    with (BUILT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(*command: str, directory: Path, required: str, env: Mapping[str, str] | None = None) -> None:
    """A build that fails because the registry does not answer counts as a missing toolchain."""
    environ = {**os.environ, **(env or {})}
    run = subprocess.run(command, cwd=directory, env=environ, capture_output=True, text=True, timeout=600, check=False)
    said = run.stdout + run.stderr
    if run.returncode and any(word in said for word in _OFFLINE):
        _missing(f"the packages of {directory} cannot be fetched: {said[-200:]}", required)
    assert run.returncode == 0, said


def _missing(what: str, required: str) -> NoReturn:
    if os.environ.get(required):
        pytest.fail(f"{what}; {required} is set")
    pytest.skip(what)
