"""Removes what every group has acknowledged and what is older than the retention: one of many sidecars at a time."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence

from sidecar.metrics import Metrics
from sidecar.operations.background import repeat
from sidecar.operations.interfaces import GroupState, StreamTrimmer

log = logging.getLogger(__name__)

_PERIOD_SECONDS = 10.0
_JITTER = 0.2
_FIRST_SECONDS = 1.0


class Trimmer:
    """One background task, of no consequence to publishing."""

    def __init__(self, stream: StreamTrimmer, retention: float, metrics: Metrics) -> None:
        """`retention`: QUEUE_RETENTION_SECONDS; 0: nothing is ever removed."""
        self._stream = stream
        self._retention = retention
        self._metrics = metrics

    async def run(self) -> None:
        """Trim every ten seconds, if no other sidecar does, until cancelled."""
        if not self._retention:
            return
        await asyncio.sleep(random.uniform(0, _FIRST_SECONDS))  # noqa: S311 - no secret
        await repeat(self._trim_in_turn, _PERIOD_SECONDS, log, "the stream is not trimmed: %s", jitter=_JITTER)

    async def _trim_in_turn(self) -> None:
        # The turn is never given back: it expires, and so all sidecars together trim once a period.
        if await self._stream.take_turn(_PERIOD_SECONDS * (1 - _JITTER)):
            await self.trim()

    async def trim(self) -> int:
        """Trim now, step by step; how many entries went. Raises QueueErrors."""
        total = 0
        while removed := await self._stream.trim(_now_ms() - int(self._retention * 1000)):
            total += removed
            self._metrics.trimmed.inc(removed)
        return total


def held_back(groups: Sequence[GroupState], retention: float) -> GroupState | None:
    """The group that keeps entries in the stream which are older than the retention; the one with the oldest."""
    if not retention:
        return None
    cut = _now_ms() - int(retention * 1000)
    late = [group for group in groups if group.oldest_ms is not None and group.oldest_ms < cut]
    return min(late, key=lambda group: group.oldest_ms or 0, default=None)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
