"""Text for people: what the commands and the page print, safe for a terminal and a log.

Names in Redis and values from callers may have any characters; `legible` escapes those that would control a terminal or
forge a line of a log.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

_SECONDS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_BETWEEN = re.compile(r"[-_.:/]")  # between two parts of a name
_MAX_WORD = 40
_AGE = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhd])", re.ASCII)


def legible(text: str) -> str:
    """The text in one line, with characters that are not printable escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shorten_name(name: str, length: int) -> str:
    """The name with at most `length` characters: `…` replaces its middle, if possible between two parts."""
    if len(name) <= length:
        return name
    tail = (length - 1) // 3
    head = length - 1 - tail
    ends = [mark.start() for mark in _BETWEEN.finditer(name, head // 2, head + 1)]
    begins = [mark.end() for mark in _BETWEEN.finditer(name, len(name) - tail - 1, len(name) - tail // 2)]
    return f"{name[: max(ends, default=head)]}…{name[min(begins, default=len(name) - tail) :]}"


def shorten(text: str, length: int) -> str:
    """The text with at most `length` characters: long words lose their middle, then the last words are left out."""
    if len(text) <= length:
        return text
    text = " ".join(shorten_name(word, min(_MAX_WORD, length - 2)) for word in text.split(" "))
    return text if len(text) <= length else f"{text[: text.rindex(' ', 0, length - 1)]} …"


def legible_json(text: str) -> str:
    """JSON with characters that are not printable escaped, and the same meaning; its line breaks stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def age(text: str) -> float:
    """An age in seconds; a type for argparse. Raises ArgumentTypeError."""
    match = _AGE.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not an age: write 90s, 15m, 2h or 3d")
    return float(match[1]) * _SECONDS[match[2]]


def duration(seconds: float) -> str:
    """An age in its two largest units, such as `2h 5m`; one below 0 counts as 0."""
    left = max(int(seconds), 0)
    words: list[str] = []
    for unit, size in _SECONDS.items():
        count, left = divmod(left, size)
        if count or (unit == "s" and not words):
            words.append(f"{count}{unit}")
        elif words:
            break
    return " ".join(words[:2])


def count(number: int, noun: str) -> str:
    """`1 event`, `2,000 events`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size(number: float) -> str:
    """A number of bytes, in the unit that fits."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:,.0f} {unit}" if unit == "bytes" else f"{number:,.1f} {unit}"
        number /= 1024
    return f"{number:,.1f} TiB"


def seconds(moment: Timestamp) -> float:
    """Unix time."""
    return moment.seconds + moment.nanos / 1e9


def since(moment: Timestamp) -> str:
    """How long ago the moment was."""
    return duration(time.time() - seconds(moment))


def moment(unix: float) -> str:
    """The time in UTC with milliseconds."""
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def as_json(message: Message, *, indent: int | None = None, whole: bool = False) -> str:
    """The message as JSON, with the field names of the .proto, as in entries. `whole`: with empty fields, too."""
    from google.protobuf import json_format

    options: dict[str, Any] = {"always_print_fields_with_no_presence": whole}
    # JSON escapes where standard output cannot encode the characters, such as in the POSIX locale.
    ascii_only = "utf" not in (getattr(sys.stdout, "encoding", None) or "utf-8").lower()
    text = json_format.MessageToJson(
        message, indent=indent, preserving_proto_field_name=True, ensure_ascii=ascii_only, **options
    )
    return legible_json(text)
