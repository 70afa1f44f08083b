"""Lua scripts, called by digest: no SCRIPT LOAD right is needed, and a server that lost them gets their text."""

from __future__ import annotations

import hashlib
import importlib.resources
from collections.abc import Sequence
from typing import Any


class Script:
    """Files of a package, one behind the other.

    Scripts are not replicated (Redis 7.0+), so a promoted replica does not know them.
    """

    def __init__(self, package: str, *names: str) -> None:
        self._text = b"\n".join((importlib.resources.files(package) / name).read_bytes() for name in names)
        self._digest = hashlib.sha1(self._text, usedforsecurity=False).hexdigest()

    def command(self, keys: Sequence[str], *arguments: Any, by_text: bool = False) -> tuple[Any, ...]:
        """The script as a command."""
        start = ("EVAL", self._text) if by_text else ("EVALSHA", self._digest)
        return (*start, str(len(keys)), *keys, *arguments)
