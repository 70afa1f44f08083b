"""What the commands print: for people, and as JSON."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sidecar.wording import ages

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp


def legible(text: str) -> str:
    """The text in one line, without what would steer a terminal: names in Redis may hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def count(number: int, noun: str) -> str:
    """`1 event`, `2,000 events`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size(number: float) -> str:
    """Bytes in the unit that fits."""
    for unit in ("bytes", "KiB", "MiB"):
        if number < 1024:
            return f"{number:,.0f} {unit}" if unit == "bytes" else f"{number:,.1f} {unit}"
        number /= 1024
    return f"{number:,.1f} GiB"


def seconds(moment: Timestamp) -> float:
    """Unix time."""
    return moment.seconds + moment.nanos / 1e9


def since(moment: Timestamp) -> str:
    """How long ago, in words."""
    return ages.say(time.time() - seconds(moment))


def moment(unix: float) -> str:
    """The time in UTC with milliseconds."""
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def as_json(message: Message, *, indent: int | None = None, whole: bool = False) -> str:
    """With the names of the .proto, as in entries. `whole`: also the fields that are empty."""
    from google.protobuf import json_format

    options: dict[str, Any] = {"always_print_fields_with_no_presence": whole}
    return json_format.MessageToJson(
        message, indent=indent, preserving_proto_field_name=True, ensure_ascii=False, **options
    )
