"""QUEUE_MAX_DEPTH: what is appended beyond it is refused here, and then spooled or held by those who append.

The depth is looked at every second, and what this sidecar appended since is added to it. So the limit is overshot by at
most one group of events, and with several sidecars by what the others append within a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from sidecar.errors import QueueError, QueueFull
from sidecar.publishing.interfaces import Appended, DeadLetter, Event, Queue, QueueInspector

_PERIOD_SECONDS = 1.0


class Room:
    """Whether the queue is full. `run` looks at it; until the first look it is not."""

    def __init__(self, inspector: QueueInspector, max_depth: int) -> None:
        self._inspector = inspector
        self._max_depth = max_depth
        self._depth = 0
        self._appended = 0

    @property
    def full(self) -> bool:
        """Whether the slowest group has QUEUE_MAX_DEPTH entries open; without groups, whether the stream has them."""
        return self._depth + self._appended >= self._max_depth

    def check(self) -> None:
        """Raise QueueFull where it is."""
        if self.full:
            raise self.error

    @property
    def error(self) -> QueueFull:
        """What is said where it is full."""
        return QueueFull(f"the queue is full, QUEUE_MAX_DEPTH is {self._max_depth}")

    def added(self, count: int) -> None:
        """So many entries more were appended."""
        self._appended += count

    async def run(self) -> None:
        """Look every second, until cancelled. While Redis is away what was known stays."""
        while True:
            with suppress(QueueError):
                await self.look()
            await asyncio.sleep(_PERIOD_SECONDS)

    async def look(self) -> None:
        """Look now. Raises QueueErrors."""
        counted = self._appended
        self._depth = await self._inspector.depth()
        self._appended -= counted  # what was appended meanwhile may be in the depth as well: rather too careful


class BoundedQueue:
    """A Queue that takes no events while there is no room. See publishing.interfaces.Queue."""

    def __init__(self, queue: Queue, room: Room) -> None:
        self._queue = queue
        self._room = room

    async def append(self, events: Sequence[Event], *, replicas: int = 0, timeout: float) -> tuple[list[Appended], int]:
        """See publishing.interfaces.Queue.append. Raises QueueFull, too, and nothing was sent then."""
        self._room.check()
        appended, confirmed = await self._queue.append(events, replicas=replicas, timeout=timeout)
        self._room.added(sum(not where.duplicate for where in appended))
        return appended, confirmed

    async def find(self, event_ids: Sequence[str], since_ms: int, until_ms: int) -> dict[str, str]:
        """See publishing.interfaces.Queue.find."""
        return await self._queue.find(event_ids, since_ms, until_ms)

    async def bury(self, letters: Sequence[DeadLetter], *, timeout: float) -> None:
        """See publishing.interfaces.Queue.bury."""
        await self._queue.bury(letters, timeout=timeout)

    async def try_write(self) -> None:
        """See publishing.interfaces.Queue.try_write."""
        await self._queue.try_write()

    async def ping(self) -> None:
        """See publishing.interfaces.Queue.ping. Raises QueueFull, so that what is spooled waits without an attempt."""
        await self._queue.ping()
        self._room.check()
