"""The plug-in for pytest: what the tests of a registry get without an import, and what others pay for it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[3] / "docs"
IDLE = """
import sys


def test_nothing_is_imported():
    assert "pytest_modelready" in sys.modules
    assert not {"modelready", "grpc", "redis", "google.protobuf", "protovalidate"} & sys.modules.keys()
"""


def run(directory: Path) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_where_no_test_asks_for_it_nothing_is_imported(tmp_path: Path) -> None:
    (tmp_path / "test_idle.py").write_text(IDLE)
    assert "1 passed" in run(tmp_path)


def test_the_examples_of_the_documents_pass(tmp_path: Path) -> None:
    tests = 0
    for document in ("registries", "deployers"):
        text = (DOCS / f"testing-{document}.md").read_text()
        for number, example in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL)):
            (tmp_path / f"test_{document}_{number}.py").write_text(example)
            tests += len(re.findall(r"^(?:async )?def test_", example, re.MULTILINE))
    assert tests > 10
    assert f"{tests} passed" in run(tmp_path)
