"""A Spool in memory: the reference for what SqliteSpool does, and the double for tests of the rules."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from sidecar.errors import SpoolError, SpoolFull
from sidecar.publishing.interfaces import Attempts, Event, Spool, Spooled
from sidecar.spool.schema import OVERHEAD, size_of


class MemorySpool(Spool):
    """See Spool. While `fail_with` is set, every method raises it and nothing is changed."""

    def __init__(self, *, max_bytes: int = 1 << 30) -> None:
        self.fail_with: SpoolError | None = None
        self.rows: list[Spooled] = []
        self._max_bytes = max_bytes
        self._damaged = 0
        self._last_seq = 0

    @property
    def depth(self) -> int:
        return len(self.rows)

    @property
    def bytes(self) -> int:
        return sum(len(row.data) + len(row.event_id) + OVERHEAD for row in self.rows)

    @property
    def max_bytes(self) -> int:
        return self._max_bytes

    @property
    def last_seq(self) -> int:
        return self._last_seq

    @property
    def oldest_ms(self) -> int | None:
        return self.rows[0].spooled_ms if self.rows else None

    @property
    def damaged(self) -> int:
        return self._damaged

    @property
    def free_bytes(self) -> int:
        return 1 << 30

    async def check(self) -> None:
        await self._disk()
        if self._max_bytes - self.bytes < min(1 << 19, self._max_bytes // 4):
            raise SpoolFull(f"the spool is full: it holds {self.bytes} of {self._max_bytes} bytes")

    async def put(self, events: Sequence[Event], attempts: Attempts) -> None:
        await self._disk()
        now = time.time_ns() // 1_000_000
        known = {row.event_id for row in self.rows}
        new: dict[str, Event] = {}
        for event in events:
            if event.id not in known:
                new.setdefault(event.id, event)
        if new and self.bytes + sum(map(size_of, new.values())) > self._max_bytes:
            raise SpoolFull(f"the spool holds {self.bytes} of {self._max_bytes} bytes")
        for event in new.values():
            self._last_seq += 1
            self.rows.append(Spooled(self._last_seq, event.id, event.data, now, attempts, None))

    async def advance(
        self, done: Sequence[int], limit: int, attempt_ms: int | None = None, *, after: int = 0
    ) -> list[Spooled]:
        await self._disk()
        forgotten = set(done)
        self.rows = [row for row in self.rows if row.seq not in forgotten]
        start = sum(row.seq <= after for row in self.rows)
        if attempt_ms is not None:
            self.rows[start : start + limit] = [_attempted(row, attempt_ms) for row in self.rows[start : start + limit]]
        return self.rows[start : start + limit]

    async def mark_dead(self, seqs: Sequence[int], reason: str, detail: str) -> None:
        await self._disk()
        self.rows = [row._replace(dead=(reason, detail)) if row.seq in seqs else row for row in self.rows]

    async def _disk(self) -> None:
        await asyncio.sleep(0)
        if self.fail_with is not None:
            raise self.fail_with


def _attempted(row: Spooled, at_ms: int) -> Spooled:
    if row.dead:
        return row
    made, first_ms, _ = row.attempts
    return row._replace(attempts=Attempts(made + 1, first_ms if made else at_ms, at_ms))
