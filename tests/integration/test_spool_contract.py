"""What every Spool promises, the one on disk and the one in memory alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from modelready.v1.event_pb2 import ModelReadyToDeploy
from sidecar.errors import SpoolFull
from sidecar.publishing.interfaces import Attempts, Event, Spool
from sidecar.spool.schema import size_of
from sidecar.spool.spool import SqliteSpool
from tests.fakes.events import event, events
from tests.fakes.memory_spool import MemorySpool

MAX_BYTES = 100_000


@pytest.fixture(params=["memory", "sqlite"])
async def spool(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Spool]:
    if request.param == "memory":
        yield MemorySpool(max_bytes=MAX_BYTES)
        return
    real = await SqliteSpool.open(tmp_path / "spool", max_bytes=MAX_BYTES)
    yield real
    await real.close()


async def ids(spool: Spool) -> list[str]:
    return [row.event_id for row in await spool.advance([], 1000)]


async def test_a_new_one_is_empty(spool: Spool) -> None:
    assert (spool.depth, spool.bytes, spool.oldest_ms, spool.damaged) == (0, 0, None, 0)
    assert spool.max_bytes == MAX_BYTES
    assert await spool.advance([], 10, 1) == []


async def test_events_come_back_as_they_were_put_and_in_order(spool: Spool) -> None:
    before = time.time_ns() // 1_000_000
    await spool.put(events(5, 8), Attempts(1, 11, 12))
    await spool.put(events(0, 2), Attempts())
    rows = await spool.advance([], 10)
    assert [(row.event_id, row.data) for row in rows] == [(e.id, e.data) for e in (*events(5, 8), *events(0, 2))]
    assert [row.attempts for row in rows] == [Attempts(1, 11, 12)] * 3 + [Attempts()] * 2
    assert [row.seq for row in rows] == sorted({row.seq for row in rows})
    assert all(row.dead is None for row in rows)
    assert all(before <= row.spooled_ms <= time.time_ns() // 1_000_000 for row in rows)


@pytest.mark.parametrize("event_id", ["é" * 128, "a\0b", "x"])
@pytest.mark.parametrize("data", [b"", b"\0\xff" * 50_000], ids=["empty", "large"])
async def test_any_id_and_any_bytes_are_kept(spool: Spool, event_id: str, data: bytes) -> None:
    one = Event(event_id, ModelReadyToDeploy(), data[: MAX_BYTES - 1000])
    await spool.put([one], Attempts())
    [row] = await spool.advance([], 10)
    assert (row.event_id, row.data, row.dead) == (one.id, one.data, None)


async def test_depth_and_bytes_count_what_is_in_it(spool: Spool) -> None:
    kept = [event(1, 10), event(2, 1000), event(3, 0)]
    await spool.put(kept, Attempts())
    assert spool.depth == 3
    assert spool.bytes == sum(map(size_of, kept)) > sum(len(e.data) + len(e.id) for e in kept)
    rows = await spool.advance([], 10)
    await spool.advance([rows[1].seq], 0)
    assert (spool.depth, spool.bytes) == (2, size_of(kept[0]) + size_of(kept[2]))


async def test_an_event_that_is_there_is_not_added_again(spool: Spool) -> None:
    await spool.put([event(1), event(2), event(1)], Attempts(1, 5, 5))
    await spool.put([event(3), event(2, 7), event(4)], Attempts())
    rows = await spool.advance([], 10)
    assert [row.event_id for row in rows] == [e.id for e in events(1, 5)]
    assert (rows[1].data, rows[1].attempts) == (event(2).data, Attempts(1, 5, 5))
    assert (spool.depth, spool.bytes) == (4, sum(map(size_of, events(1, 5))))


async def test_one_that_was_forgotten_is_added_again(spool: Spool) -> None:
    await spool.put([event(1)], Attempts())
    [first] = await spool.advance([], 10)
    await spool.advance([first.seq], 0)
    await spool.put([event(1)], Attempts())
    assert await ids(spool) == [event(1).id]


async def test_no_events_are_no_change(spool: Spool) -> None:
    await spool.put([], Attempts())
    assert spool.depth == 0


async def test_a_full_one_takes_all_or_nothing(spool: Spool) -> None:
    size = MAX_BYTES // 4 - size_of(event(0, 0))
    await spool.put(events(0, 3, size), Attempts())
    with pytest.raises(SpoolFull):
        await spool.put([event(3, 10), event(4, size)], Attempts())
    assert (spool.depth, await ids(spool)) == (3, [e.id for e in events(0, 3)])
    await spool.put([event(4, size)], Attempts())  # to the last byte
    assert spool.bytes == MAX_BYTES


async def test_a_full_one_takes_an_event_that_it_has(spool: Spool) -> None:
    size = MAX_BYTES - size_of(event(0, 0))
    await spool.put([event(1, size)], Attempts())
    await spool.put([event(1, size)], Attempts())
    with pytest.raises(SpoolFull):
        await spool.put([event(1, size), event(2, 0)], Attempts())
    assert spool.depth == 1


async def test_a_full_one_has_room_again_when_events_are_forgotten(spool: Spool) -> None:
    size = MAX_BYTES // 2 - size_of(event(0, 0))
    await spool.put(events(0, 2, size), Attempts())
    rows = await spool.advance([], 1)
    await spool.advance([rows[0].seq], 0)
    await spool.put([event(2, size)], Attempts())
    assert await ids(spool) == [event(1).id, event(2).id]


async def test_advance_forgets_and_returns_the_oldest_of_the_rest(spool: Spool) -> None:
    await spool.put(events(0, 10), Attempts())
    first = await spool.advance([], 3)
    second = await spool.advance([row.seq for row in first], 3)
    assert [row.event_id for row in second] == [e.id for e in events(3, 6)]
    assert spool.depth == 7
    assert await spool.advance([second[1].seq], 0) == []
    assert await ids(spool) == [e.id for e in (event(3), *events(5, 10))]


async def test_advance_reads_on_behind_a_batch_that_is_not_forgotten_yet(spool: Spool) -> None:
    await spool.put(events(0, 10), Attempts())
    first = await spool.advance([], 3, 100)
    second = await spool.advance([], 3, 200, after=first[-1].seq)
    assert [row.event_id for row in second] == [e.id for e in events(3, 6)]
    third = await spool.advance([row.seq for row in first], 10, 300, after=second[-1].seq)
    assert [row.event_id for row in third] == [e.id for e in events(6, 10)]
    assert await spool.advance([], 10, 400, after=third[-1].seq) == []
    rows = await spool.advance([], 10)
    assert [row.attempts.last_ms for row in rows] == [200] * 3 + [300] * 4
    assert spool.depth == 7


async def test_forgetting_what_is_not_there_does_nothing(spool: Spool) -> None:
    await spool.put(events(0, 3), Attempts())
    rows = await spool.advance([], 3)
    await spool.advance([rows[0].seq, rows[0].seq], 0)
    await spool.advance([rows[0].seq, -1, 10**9], 0)
    assert (spool.depth, spool.bytes) == (2, sum(map(size_of, events(1, 3))))


async def test_a_sequence_number_is_never_used_twice(spool: Spool) -> None:
    """Else what is forgotten late would be an event that nobody has delivered."""
    await spool.put(events(0, 3), Attempts())
    old = await spool.advance([], 3)
    await spool.advance([row.seq for row in old], 0)
    await spool.put(events(3, 6), Attempts())
    await spool.advance([row.seq for row in old], 0)
    assert spool.depth == 3


async def test_attempts_are_counted_and_the_first_and_the_last_remembered(spool: Spool) -> None:
    await spool.put([event(1)], Attempts())
    await spool.put([event(2)], Attempts(1, 50, 60))
    await spool.put([event(3)], Attempts())
    assert [row.attempts for row in await spool.advance([], 2, 100)] == [Attempts(1, 100, 100), Attempts(2, 50, 100)]
    await spool.advance([], 2, 200)
    rows = await spool.advance([], 3)
    assert [row.attempts for row in rows] == [Attempts(2, 100, 200), Attempts(3, 50, 200), Attempts()]


async def test_a_dead_letter_stays_in_its_place_until_it_is_forgotten(spool: Spool) -> None:
    await spool.put(events(0, 3), Attempts())
    rows = await spool.advance([], 3, 100)
    await spool.mark_dead([rows[1].seq, 10**9], "REDIS_REFUSED", "too big; ' \"")
    rows = await spool.advance([], 3, 200)
    assert [row.dead for row in rows] == [None, ("REDIS_REFUSED", "too big; ' \""), None]
    assert [row.attempts[0] for row in rows] == [2, 1, 2]  # what is dead is not attempted
    assert spool.depth == 3
    await spool.advance([rows[1].seq], 0)
    assert await ids(spool) == [event(0).id, event(2).id]


async def test_the_oldest_is_the_first_in_line(spool: Spool) -> None:
    await spool.put([event(0)], Attempts())
    await asyncio.sleep(0.005)
    await spool.put([event(1)], Attempts())
    first, second = await spool.advance([], 2)
    assert spool.oldest_ms == first.spooled_ms < second.spooled_ms
    await spool.advance([first.seq], 0)
    assert spool.oldest_ms == second.spooled_ms
    await spool.advance([second.seq], 0)
    assert spool.oldest_ms is None


async def test_many_tasks_at_once_leave_it_whole(spool: Spool) -> None:
    """Every event is put once and taken once, whatever comes between."""
    taken: list[str] = []
    putting = 4

    async def put(start: int) -> None:
        nonlocal putting
        for number in range(start, start + 100, 4):
            await spool.put(events(number, number + 4, 20), Attempts())
            await spool.put([event(number, 20)], Attempts())  # there already, unless it was taken meanwhile
        putting -= 1

    async def take() -> None:
        done: list[int] = []
        while putting or spool.depth or done:
            rows = await spool.advance(done, 7, 1)
            done = [row.seq for row in rows]
            taken.extend(row.event_id for row in rows)

    await asyncio.gather(take(), *(put(start) for start in range(0, 400, 100)))
    assert set(taken) == {e.id for e in events(0, 400)}
    assert (spool.depth, spool.bytes) == (0, 0)
