"""`mypy --strict` on every Python example of the documents, in one run. Errors name the document and its line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = ROOT / ".cache/examples"
# What examples import from the reader's own application.
APPLICATION = "from sqlalchemy import Engine\n\nengine: Engine\n"


def main() -> None:
    shutil.rmtree(MODULES, ignore_errors=True)
    MODULES.mkdir(parents=True)
    documents = dict(_modules())
    (MODULES / "app.pyi").write_text(APPLICATION)
    command = [sys.executable, "-m", "mypy", "--strict", *documents]
    environ = {**os.environ, "MYPYPATH": str(MODULES)}
    checked = subprocess.run(command, cwd=ROOT, env=environ, text=True, stdout=subprocess.PIPE, check=False)
    for line in checked.stdout.splitlines():
        module, _, rest = line.partition(":")
        print(f"{documents[module]}:{rest}" if module in documents else line)
    sys.exit(checked.returncode)


def _modules() -> Iterator[tuple[str, str]]:
    """Writes each example as a module, at the line where it stands in its document. Yields the names of both."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "*.md"]
    for document in subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, check=True).stdout.split():
        text = (ROOT / document).read_text(encoding="utf-8")
        for example in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            line = text.count("\n", 0, example.start()) + 1
            module = MODULES / f"{re.sub('[^a-z]', '_', document.lower())}_{line}.py"
            module.write_text("\n" * line + example[1], encoding="utf-8")
            yield str(module.relative_to(ROOT)), document


if __name__ == "__main__":
    main()
