"""Lua scripts, called by digest: no SCRIPT LOAD right is needed, and a server that lost them gets their text."""

from __future__ import annotations

import hashlib
import importlib.resources


class Script:
    """Files of a package, one behind the other.

    Scripts are not replicated (Redis 7.0+), so a promoted replica does not know them.
    """

    def __init__(self, package: str, *names: str) -> None:
        text = b"\n".join((importlib.resources.files(package) / name).read_bytes() for name in names)
        self.by_digest = "EVALSHA", hashlib.sha1(text, usedforsecurity=False).hexdigest()
        """How the command begins; the number of keys, the keys and the arguments follow."""
        self.by_text = "EVAL", text
        """The same for a server that does not know the script."""
