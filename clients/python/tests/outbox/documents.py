"""The examples of docs/registries.md, by the heading that they stand under."""

from __future__ import annotations

import re
from pathlib import Path

TEXT = (Path(__file__).parents[4] / "docs/registries.md").read_text()


def examples(heading: str, language: str = "python") -> list[str]:
    """The code blocks between this heading and the next one, whatever its level."""
    section = re.split(rf"^#+ {re.escape(heading)}$", TEXT, flags=re.MULTILINE)[1]
    section = re.split(r"^#+ (?=[A-Z])", section, maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
