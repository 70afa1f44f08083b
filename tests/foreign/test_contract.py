"""The contract compiles by itself, with the tools that other languages have, and the clients' code is made from it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.harness.toolchains import ROOT, built_by_node, check_go, check_node

PYTHON = ROOT / ".venv-proto/bin/python"
CLIENTS = ROOT / "clients"
LOAD = """
const loaded = require("@grpc/proto-loader").loadSync(
  ["modelready/v1/publisher_service.proto", "modelready/v1/queue_service.proto"], { includeDirs: [process.argv[1]] });
console.log(Object.keys(loaded["modelready.v1.PublisherService"]).join());
"""


def run(*command: str | Path, directory: Path = ROOT) -> str:
    """What it prints; AssertionError with its errors where it fails."""
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The contract with what it imports, as `make proto-export` writes it."""
    if not PYTHON.exists():
        pytest.skip("the generator is not installed: make foreign does that")
    place = tmp_path_factory.mktemp("exported") / "contract"
    run(PYTHON, ROOT / "proto/contract.py", "export", place)
    return place


def test_buf_builds_it(exported: Path) -> None:
    run(PYTHON.parent / "buf", "build", directory=exported)


def test_protoc_compiles_it(exported: Path, tmp_path: Path) -> None:
    names = [path.relative_to(exported) for path in exported.glob("modelready/**/*.proto")]
    assert len(names) == 3
    run(PYTHON, "-m", "grpc_tools.protoc", "-I.", f"--python_out={tmp_path}", *names, directory=exported)
    assert len(list(tmp_path.glob("modelready/v1/*_pb2.py"))) == 3


def test_the_loader_of_node_reads_it(exported: Path) -> None:
    methods = run("node", "-e", LOAD, exported, directory=built_by_node(CLIENTS / "typescript"))
    assert methods == "Publish,PublishBatch,PublishStream\n"


def test_the_code_of_the_clients_is_fresh(exported: Path, tmp_path: Path) -> None:
    """Else run `make proto-clients`."""
    check_go()
    check_node()
    run(PYTHON, ROOT / "proto/clients.py", "--into", tmp_path)
    fresh = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.*") if path.is_file()}
    assert {path.suffix for path in fresh} == {".go", ".ts"}
    committed = [*CLIENTS.glob("go/v1/*"), *CLIENTS.glob("typescript/src/gen/**/*.ts")]
    assert {path.relative_to(CLIENTS): path.read_text() for path in committed} == fresh
