"""The number of dead letters by reason. New ones are added; all are counted again only after some were removed."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from sidecar.operations.interfaces import DeadLetterCounts
from sidecar.redisstream.connection import RedisConnection
from sidecar.redisstream.counter import EntryCounter
from sidecar.redisstream.stream_info import edges

_MAX_COUNTED = 10_000
_MAX_REASONS = 20
OTHER = "OTHER"
"""Stands for all but the 20 most frequent reasons: other programs write what they like, and each is a time series."""


class _Counted(NamedTuple):
    """What was counted, and of what: the length, the first and the last id of the stream."""

    stream: tuple[int, str, str]
    total: int
    reasons: Counter[str]


_NOTHING = _Counted((0, "", "0-0"), 0, Counter())


class DeadLetterReasons:
    """Of one stream of dead letters, the oldest 10,000."""

    def __init__(self, connection: RedisConnection, stream: str, counter: EntryCounter) -> None:
        self._connection = connection
        self._stream = stream
        self._counter = counter
        self._counted = _NOTHING

    async def counts(self) -> DeadLetterCounts:
        """The counts now; those of some seconds ago while dead letters are being removed. Raises QueueErrors."""
        length, first, last = await self._connection.pipeline([("XLEN", self._stream), *edges(self._stream)])
        oldest = None
        if length:
            first_id, last_id = first[0][0].decode(), last[0][0].decode()
            oldest = int(first_id.partition("-")[0])
            await self._count((length, first_id, last_id))
        else:
            self._counted = _NOTHING
        common = self._counted.reasons.most_common()
        frequent, rest = common[:_MAX_REASONS], sum(count for _, count in common[_MAX_REASONS:])
        return DeadLetterCounts([*frequent, (OTHER, rest)] if rest else frequent, oldest)

    async def _count(self, stream: tuple[int, str, str]) -> None:
        was = self._counted
        if stream == was.stream:
            return  # nothing else can have changed
        come = stream[0] - was.stream[0]
        if come > 0 and stream[1] == was.stream[1]:
            most = min(come + 1, _MAX_COUNTED - was.total)
            if not most:
                self._counted = was._replace(stream=stream)
                return
            new = await self._counter.by_value(self._stream, "dl_reason", (was.stream[2], stream[2]), most)
            if new is None:
                return
            if sum(new.values()) in (come, _MAX_COUNTED - was.total):
                self._counted = _Counted(stream, was.total + sum(new.values()), was.reasons + new)
                return
        most = min(stream[0], _MAX_COUNTED)
        reasons = await self._counter.by_value(self._stream, "dl_reason", ("0-0", stream[2]), most)
        if reasons is not None:
            self._counted = _Counted(stream, sum(reasons.values()), reasons)
