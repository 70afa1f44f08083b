"""Text for a terminal or a log, without what would steer the one or forge a line of the other.

Names in Redis, and what callers send, may hold anything.
"""

from __future__ import annotations

import json


def legible(text: str) -> str:
    """The text in one line; what is not printable is escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def legible_json(text: str) -> str:
    """The same of JSON, by escapes that mean the same; its line ends stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
