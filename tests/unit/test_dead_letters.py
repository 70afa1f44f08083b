"""Reading dead letters takes a bounded share of the sidecar's time and of Redis', whatever is read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from sidecar.operations.dead_letters import DeadLetters, Filter
from sidecar.operations.interfaces import StoredDeadLetter

LETTERS = 3000
PAGE_BYTES = 256 << 10
READ_SECONDS = 0.01
LISTERS = 4


class Clock:
    """Moves by what is slept and by what is read, and by nothing else."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self._sleep = asyncio.sleep
        monkeypatch.setattr("sidecar.operations.dead_letters.time.monotonic", lambda: self.now)
        monkeypatch.setattr("sidecar.operations.dead_letters.asyncio.sleep", self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0)
        await self._sleep(0)


class Store:
    """Dead letters of one size; each read of them takes a while."""

    def __init__(self, clock: Clock, size: int) -> None:
        self._clock = clock
        self._data = bytes(size)
        self._reading = False
        self.pages: list[int] = []
        self.began: list[float] = []

    async def read(self, first: str, _last: str, count: int) -> Sequence[StoredDeadLetter]:
        assert not self._reading, "two reads at a time"
        self._reading = True
        self.began.append(self._clock.now)
        await self._clock.sleep(READ_SECONDS)
        self._reading = False
        start = int(first.strip("(").partition("-")[0] or 0)
        page = [self._letter(number) for number in range(start + 1, min(start + count, LETTERS) + 1)]
        self.pages.append(len(page))
        return page

    def _letter(self, number: int) -> StoredDeadLetter:
        texts = dict.fromkeys(("event_id", "detail", "origin", "entry_id", "subject", "correlation_id"), "x")
        return StoredDeadLetter(
            id=f"{number}-0", reason="TOO_OLD", group=b"", attempts=1, first_ms=1, last_ms=1,
            content_type="application/protobuf", data=self._data, **texts,
        )  # fmt: skip


@pytest.mark.parametrize("size", [300, 20_000, 500_000])
async def test_lists_that_match_nothing_read_a_little_at_a_time(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four callers at once: one page at a time, of a bounded size, and nine tenths of the time nothing is read."""
    clock = Clock(monkeypatch)
    store = Store(clock, size)
    stored: Any = store
    letters = DeadLetters(stored, asyncio.Event())
    pages = await asyncio.gather(*(letters.list(Filter(reason="NONE"), 0, "") for _ in range(LISTERS)))
    assert not any(page.letters for page in pages)
    assert max(store.pages) <= 100
    assert max(store.pages[LISTERS:], default=0) * size <= PAGE_BYTES or set(store.pages[LISTERS:]) == {1}
    rests = [after - before - READ_SECONDS for before, after in zip(store.began, store.began[1:], strict=False)]
    assert min(rests) >= 9 * READ_SECONDS * 0.999
    assert clock.now - 100 <= LISTERS * (1 + 10 * READ_SECONDS)  # a call ends after a second of its own
