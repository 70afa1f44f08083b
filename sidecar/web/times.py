"""Times as people read them."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from sidecar.web.markup import Markup, html

_LAST_MS = 253_402_300_799_999  # the end of the year 9999


def ago(unix_ms: int | None) -> Markup:
    """`5 min ago`, with the exact time for machines and for who points at it."""
    if unix_ms is None or unix_ms > _LAST_MS:
        return Markup("-")
    iso = exact(unix_ms)
    return html('<time datetime="{iso}" title="{iso}">{age} ago</time>', iso=iso, age=duration(age_of(unix_ms)))


def exact(unix_ms: int) -> str:
    """In UTC, to the second; as a number past the year 9999."""
    if unix_ms > _LAST_MS:
        return f"{unix_ms} ms"
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def age_of(unix_ms: int) -> float:
    """Seconds since then, by this machine's clock."""
    return max(time.time() - unix_ms / 1000, 0)


def milliseconds(moment: Timestamp) -> int:
    """Unix milliseconds."""
    return moment.ToMilliseconds()


def duration(seconds: float) -> str:
    """`34 s`, `5 min`, `7 h`, `3 days`."""
    for size, name in ((2 * 86400, "days"), (2 * 3600, "h"), (120, "min")):
        if seconds >= size:
            return f"{seconds / {'days': 86400, 'h': 3600, 'min': 60}[name]:.0f} {name}"
    return f"{seconds:.0f} s"
