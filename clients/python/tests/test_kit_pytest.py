"""The plug-in for pytest: what the tests of a registry get without an import, and what others pay for it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[3] / "docs"
IDLE = """
import sys
from importlib.metadata import entry_points

(plugin,) = entry_points(group="pytest11", name="modelready")
fixtures = vars(plugin.load())
assert {"fake_sidecar", "publisher", "aio_publisher", "published"} <= fixtures.keys()
print({"modelready", "grpc", "redis", "google.protobuf", "protovalidate"} & sys.modules.keys())
"""


def test_what_pytest_loads_everywhere_imports_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", IDLE], capture_output=True, text=True, check=False)
    assert done.stdout == "set()\n", done.stderr


def test_the_examples_of_the_documents_pass(tmp_path: Path) -> None:
    tests = 0
    for document in ("registries", "deployers"):
        text = (DOCS / f"testing-{document}.md").read_text()
        for number, example in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL)):
            (tmp_path / f"test_{document}_{number}.py").write_text(example)
            tests += len(re.findall(r"^(?:async )?def test_", example, re.MULTILINE))
    assert tests > 10
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert f"{tests} passed" in done.stdout, done.stdout + done.stderr
