"""Ids of entries as numbers: 64 bits of milliseconds, then 64 bits of sequence, in the order that the stream has."""

from __future__ import annotations

import re

_ID = re.compile(r"(\d{1,20})-(\d{1,20})", re.ASCII)
_BITS = 64
_SEQUENCE = (1 << _BITS) - 1
LAST = (1 << 2 * _BITS) - 1
"""The highest id that can be."""


def parse(entry_id: str) -> int | None:
    """`<ms>-<sequence>` as a number; None where it is no id, or above what Redis takes."""
    match = _ID.fullmatch(entry_id)
    if match is None or max(int(match[1]), int(match[2])) > _SEQUENCE:
        return None
    return int(match[1]) << _BITS | int(match[2])


def number(entry_id: str) -> int:
    """An id of Redis's own as a number; `<ms>` alone is the end of that millisecond."""
    time_part, _, sequence = entry_id.partition("-")
    return int(time_part) << _BITS | (int(sequence) if sequence else _SEQUENCE)


def text(entry: int) -> str:
    """The id as Redis writes it."""
    return f"{entry >> _BITS}-{entry & _SEQUENCE}"


def milliseconds(entry: int) -> int:
    """When it was made, Unix milliseconds."""
    return entry >> _BITS
