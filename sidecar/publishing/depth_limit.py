"""QUEUE_MAX_DEPTH: refuses events beyond it; committer and forwarder then spool or hold them.

The depth is read every second, and what this sidecar appended since then is added. So the queue exceeds the limit by at
most one group of events and, with several sidecars, by what the others append in two seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from sidecar.errors import QueueError, QueueFull
from sidecar.publishing.entry_ids import number
from sidecar.publishing.interfaces import Appended, DeadLetter, Depth, DepthObserver, Event, Queue

_PERIOD_SECONDS = 1.0
_NOT_IN_DEPTH_SECONDS = 5.0


class DepthLimit:
    """Whether the queue is full. `run` refreshes it; until the first look it is not full."""

    def __init__(self, observer: DepthObserver, max_depth: int) -> None:
        self._observer = observer
        self._max_depth = max_depth
        self._seen = Depth(0, 0)
        self._appended: deque[tuple[int, int, float]] = deque()
        """Of each group of events that may not be in the depth yet: its last id, how many they were, and until when."""
        self._since = 0

    @property
    def full(self) -> bool:
        """Whether the queue's depth is QUEUE_MAX_DEPTH; see QueueState.depth."""
        return self._seen.depth + self._since >= self._max_depth

    def check(self) -> None:
        """Raise QueueFull where it is."""
        if self.full:
            raise self.error

    @property
    def error(self) -> QueueFull:
        """What is raised where it is full."""
        return QueueFull(f"the queue is full, QUEUE_MAX_DEPTH is {self._max_depth}")

    def added(self, appended: Sequence[Appended]) -> None:
        """These were appended."""
        new = [where.entry_id for where in appended if not where.duplicate]
        if new:
            self._appended.append((number(new[-1]), len(new), time.monotonic() + _NOT_IN_DEPTH_SECONDS))
            self._since += len(new)

    async def run(self) -> None:
        """Refresh every second, until cancelled. While Redis is away what was known stays."""
        while True:
            with suppress(QueueError):
                await self.refresh()
            await asyncio.sleep(_PERIOD_SECONDS)

    async def refresh(self) -> None:
        """Read the depth now. Raises QueueErrors."""
        self._seen = await self._observer.depth()
        # A stream that was deleted, or lost entries in a failover, never gets to the ids that it gave.
        while self._appended and (
            self._appended[0][0] <= self._seen.last_id or self._appended[0][2] < time.monotonic()
        ):
            self._since -= self._appended.popleft()[1]


class BoundedQueue:
    """A Queue that takes no events while the queue is full. See publishing.interfaces.Queue."""

    def __init__(self, queue: Queue, limit: DepthLimit) -> None:
        self._queue = queue
        self._limit = limit

    async def append(self, events: Sequence[Event], *, replicas: int = 0) -> tuple[list[Appended], int]:
        """See publishing.interfaces.Queue.append. Raises QueueFull, too, and nothing was sent then."""
        self._limit.check()
        appended, confirmed = await self._queue.append(events, replicas=replicas)
        self._limit.added(appended)
        return appended, confirmed

    async def find(self, event_ids: Sequence[str], since_ms: int, until_ms: int) -> dict[str, str]:
        """See publishing.interfaces.Queue.find."""
        return await self._queue.find(event_ids, since_ms, until_ms)

    async def dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        """See publishing.interfaces.Queue.dead_letter."""
        await self._queue.dead_letter(letters)

    async def try_write(self) -> None:
        """See publishing.interfaces.Queue.try_write."""
        await self._queue.try_write()

    async def ping(self) -> None:
        """See publishing.interfaces.Queue.ping. Raises QueueFull: what is spooled waits, and Redis is not asked."""
        self._limit.check()
        await self._queue.ping()
