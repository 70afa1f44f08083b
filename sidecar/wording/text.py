"""What the commands print: for people, and as JSON."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sidecar.legible import legible_json
from sidecar.wording import ages

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp


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
    # An escape of JSON where standard output cannot have the character itself, such as in the locale POSIX.
    ascii_only = "utf" not in (getattr(sys.stdout, "encoding", None) or "utf-8").lower()
    text = json_format.MessageToJson(
        message, indent=indent, preserving_proto_field_name=True, ensure_ascii=ascii_only, **options
    )
    return legible_json(text)
