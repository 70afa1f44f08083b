"""A Queue in memory: the reference for what RedisQueue does, and the double for tests of the rules."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from sidecar.errors import QueueError, Refused, Unavailable
from sidecar.publishing.interfaces import Appended, DeadLetter, Event, Queue


class MemoryQueue(Queue):
    """See Queue. `script` holds what the next calls of `append` do: an error to raise, or None for success."""

    def __init__(self, timeout: float = 5) -> None:
        """`timeout`: how long `append` waits for `gate`, in seconds."""
        self.timeout = timeout
        self.entries: list[str] = []
        self.letters: list[DeadLetter] = []
        self.script: deque[QueueError | None] = deque()
        self.always: QueueError | None = None
        self.lost_reply: bool = False
        self.replicas = 1
        self.refuse: Callable[[Event], bool] = lambda _: False
        self.calls: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.found: dict[str, str] = {}
        self.searched: list[tuple[int, int]] = []
        self.pings = 0

    async def append(self, events: Sequence[Event], *, replicas: int = 0) -> tuple[list[Appended], int]:
        self.calls.append([event.id for event in events])
        try:
            async with asyncio.timeout(self.timeout):
                await self.gate.wait()
        except TimeoutError:
            raise Unavailable("no answer", ambiguous=True) from None
        await asyncio.sleep(0)
        error = self.script.popleft() if self.script else self.always
        if error is not None and not self.lost_reply:
            raise error
        if any(self.refuse(event) for event in events):
            raise Refused("too large")
        where = [self._append(event) for event in events]
        if error is not None:
            raise error
        return where, min(replicas, self.replicas)

    def _append(self, event: Event) -> Appended:
        if event.id in self.entries:
            return Appended(f"{self.entries.index(event.id) + 1}-0", True)
        self.entries.append(event.id)
        return Appended(f"{len(self.entries)}-0", False)

    async def find(self, event_ids: Sequence[str], since_ms: int, until_ms: int) -> dict[str, str]:
        self.searched.append((since_ms, until_ms))
        return {event_id: self.found[event_id] for event_id in event_ids if event_id in self.found}

    async def dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        if self.always is not None:
            raise self.always
        known = {letter.event_id for letter in self.letters}
        self.letters += [letter for letter in letters if letter.event_id not in known]

    async def ping(self) -> None:
        self.pings += 1
        if self.always is not None:
            raise self.always

    async def try_write(self) -> None:
        if self.always is not None:
            raise self.always
