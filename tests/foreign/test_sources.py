"""The sources of the clients are as their tools want them, and what the READMEs show compiles."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.harness.toolchains import ROOT, built_by_node, check_go

GO, TYPESCRIPT = ROOT / "clients/go", ROOT / "clients/typescript"


def shown(directory: Path, language: str) -> str:
    """The program in its README."""
    (program,) = re.findall(
        rf"^```{language}\n(.*?)^```", (directory / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    return str(program)


def compiles(*command: str, directory: Path) -> None:
    run = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_sources_of_go() -> None:
    check_go()
    done = subprocess.run(["gofmt", "-l", "."], cwd=GO, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == ""
    compiles("go", "vet", "./...", directory=GO)


def test_the_readme_of_go(tmp_path: Path) -> None:
    check_go()
    (tmp_path / "main.go").write_text(shown(GO, "go"))
    compiles("go", "vet", str(tmp_path / "main.go"), directory=GO)


def test_the_readme_of_typescript() -> None:
    built = built_by_node(TYPESCRIPT)
    (built / "readme.ts").write_text(shown(TYPESCRIPT, "ts"))
    options = (
        "--noEmit",
        "--strict",
        "--skipLibCheck",
        "--target",
        "es2023",
        "--module",
        "nodenext",
        "--types",
        "node",
    )
    compiles("node_modules/.bin/tsc", "--ignoreConfig", *options, "readme.ts", directory=built)
