"""Ages as people write them: `90s`, `15m`, `2h`, `3d`."""

from __future__ import annotations

import argparse
import re

_SECONDS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_AGE = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhd])", re.ASCII)


def age(text: str) -> float:
    """Seconds; a type of argparse's. Raises ArgumentTypeError."""
    match = _AGE.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no age: write 90s, 15m, 2h or 3d")
    return float(match[1]) * _SECONDS[match[2]]


def say(seconds: float) -> str:
    """An age in its two biggest units, such as `2h 5m`; below 0 is 0."""
    left = max(int(seconds), 0)
    words: list[str] = []
    for unit, size in _SECONDS.items():
        count, left = divmod(left, size)
        if count or (unit == "s" and not words):
            words.append(f"{count}{unit}")
        elif words:
            break
    return " ".join(words[:2])
