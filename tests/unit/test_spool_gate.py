"""What the gate before the spool lets through, and what a copy on the disk changes for others."""

from __future__ import annotations

import asyncio
import time

import pytest

from modelready.v1 import publisher_service_pb2 as pb
from sidecar.errors import RequestError, SetupFault, SpoolFull, SpoolUnavailable, Unavailable
from sidecar.publishing.interfaces import Attempts, Event, Spooled
from sidecar.publishing.spool_gate import SpoolGate
from sidecar.publishing.submission import Published, Submission
from tests.fakes.memory_spool import MemorySpool
from tests.unit.bench import AWAY, Bench, end, events

SPOOLED, PRIMARY, REPLICATED = pb.DURABILITY_SPOOLED, pb.DURABILITY_PRIMARY, pb.DURABILITY_REPLICATED
DAY_MS = 86_400_000


def outcome(results: list[Published | RequestError]) -> int:
    (result,) = results
    assert isinstance(result, Published)
    return result.outcome


def submission(first: int, end: int) -> Submission:
    return Submission(events(first, end), SPOOLED, 1)


@pytest.fixture
async def gate() -> SpoolGate:
    """Of a spool that holds 2,000 events which must be forwarded."""
    spool = MemorySpool()
    await spool.put(events(0, 2000), Attempts())
    return SpoolGate(spool)


def batch(first: int, end: int, size: int = 100) -> list[Spooled]:
    """The rows of these sequence numbers, as the forwarder reads them."""
    return [Spooled(seq, f"event-{seq}", bytes(size), 0, Attempts(), None) for seq in range(first, end)]


async def test_while_nothing_is_forwarded_all_may_be_added(gate: SpoolGate) -> None:
    assert gate.queued
    assert gate.allows(10_000, 10 << 20)


async def test_less_is_added_than_was_taken_in_events_and_in_bytes(gate: SpoolGate) -> None:
    gate.took(batch(1, 501))
    assert gate.allows(125, 12_500)
    assert not gate.allows(126, 1)
    assert not gate.allows(1, 12_501)
    gate.took(batch(501, 1001))
    assert gate.allows(250, 25_000)


async def test_one_put_a_turn(gate: SpoolGate) -> None:
    gate.took(batch(1, 501))
    assert await gate.put([submission(5000, 5001)], Attempts()) == [None]
    assert not gate.allows(1, 0)
    assert not gate.allows(0, 1)
    gate.took(batch(501, 1001))
    assert gate.allows(124, 1)


async def test_behind_the_last_batch_only_copies_are_added_and_they_are_in_nobody_s_way(gate: SpoolGate) -> None:
    for first in (1, 501, 1001):
        gate.took(batch(first, first + 500))
    assert not gate.allows(1, 0)
    assert not gate.allows(0, 1)
    assert await gate.put([submission(5000, 6000)], Attempts(), copies=True) == [None]
    assert gate.queued
    gate.took(batch(1501, 2001))
    assert not gate.queued


async def test_a_forwarder_that_makes_no_headway_bounds_nothing(gate: SpoolGate) -> None:
    gate.took(batch(1, 1501))
    assert not gate.allows(1, 1)
    gate.report(AWAY)
    assert gate.allows(1, 1)


async def test_a_full_spool_takes_what_it_holds_already_and_what_fits() -> None:
    small = Bench(max_bytes=1500)
    small.queue.always = AWAY
    for _ in range(2):  # the second time is the caller's retry
        assert outcome(await small.publish(events(0, 1))) == pb.OUTCOME_SPOOLED
    held, too_large, fits = await asyncio.gather(
        small.publish(events(0, 1)), small.publish(large_event()), small.publish(events(1, 2)), return_exceptions=True
    )
    assert isinstance(held, list)
    assert isinstance(fits, list)
    assert (outcome(held), outcome(fits)) == (pb.OUTCOME_SPOOLED, pb.OUTCOME_SPOOLED)
    assert isinstance(too_large, SpoolFull)
    assert [row.event_id for row in small.spool.rows] == [event.id for event in events(0, 2)]
    await end(small)


def large_event() -> list[Event]:
    return [events(7, 8)[0]._replace(data=bytes(2000))]


async def test_a_copy_lets_others_pass_and_is_known_to_be_attempted(bench: Bench) -> None:
    """Redis is slower than one caller's deadline: its event is on the disk, and nobody queues behind it."""
    bench.queue.gate.clear()
    under_way = asyncio.ensure_future(bench.publish(events(0, 1), timeout=0.1))
    await bench.until(lambda: bool(bench.queue.calls))
    behind = asyncio.ensure_future(bench.publish(events(1, 2), timeout=0.1))
    others = [asyncio.ensure_future(bench.publish(events(n, n + 1), d)) for n, d in ((2, SPOOLED), (3, PRIMARY))]
    assert outcome(await under_way) == outcome(await behind) == pb.OUTCOME_SPOOLED
    assert {row.attempts.count for row in bench.spool.rows} == {1}  # beyond the dedup window they are looked up
    bench.queue.gate.set()
    assert [outcome(await other) for other in others] == [pb.OUTCOME_STORED] * 2
    assert bench.queue.entries == [event.id for event in events(0, 4)]
    bench.forward()
    await bench.until(lambda: not bench.spool.depth)
    assert bench.queue.entries == [event.id for event in events(0, 4)]
    assert bench.publisher.pending == 0


async def test_a_stop_waits_for_nobody_who_was_answered_from_the_disk(bench: Bench) -> None:
    bench.queue.always = AWAY
    await bench.publish(events(0, 2))
    bench.queue.always = None
    bench.queue.gate.clear()
    bench.forward()
    await bench.until(lambda: len(bench.queue.calls) == 2)
    bench.gate.took([bench.spool.rows[0]])  # it makes headway, and the next batch is the last
    waits = asyncio.ensure_future(bench.publish(events(2, 3), timeout=2))
    await bench.until(lambda: bench.publisher.pending == 1)
    await bench.publisher.close(0.1)
    await asyncio.wait_for(bench.tasks[0], 0.5)
    assert outcome(await waits) == pb.OUTCOME_SPOOLED
    assert bench.spool.depth == 3


async def test_without_a_disk_what_is_on_its_way_to_redis_is_not_called_a_failure(bench: Bench) -> None:
    bench.spool.fail_with = SpoolUnavailable("disk full")
    bench.queue.gate.clear()
    under_way = asyncio.ensure_future(bench.publish(events(0, 1), timeout=0.1))
    await bench.until(lambda: bool(bench.queue.calls))
    behind = asyncio.ensure_future(bench.publish(events(1, 2), timeout=0.1))
    with pytest.raises(Unavailable) as unknown:
        await under_way
    assert unknown.value.reason == "OUTCOME_UNKNOWN"
    with pytest.raises(SpoolUnavailable):
        await behind
    bench.queue.gate.set()
    await bench.until(lambda: not bench.publisher.pending)
    assert bench.queue.entries == [events(0, 1)[0].id]  # what was refused is not sent later


@pytest.mark.parametrize("error", [AWAY, SetupFault("no right")])
async def test_behind_a_copy_whose_group_failed_others_queue(error: Unavailable | SetupFault, bench: Bench) -> None:
    bench.queue.gate.clear()
    bench.queue.always = error
    copied = asyncio.ensure_future(bench.publish(events(0, 1), timeout=0.1))
    assert outcome(await copied) == pb.OUTCOME_SPOOLED
    bench.queue.gate.set()
    await bench.until(lambda: not bench.publisher.pending)
    bench.queue.always = None
    assert outcome(await bench.publish(events(1, 2))) == pb.OUTCOME_SPOOLED
    bench.forward()
    await bench.until(lambda: not bench.spool.depth)
    assert outcome(await bench.publish(events(2, 3), PRIMARY)) == pb.OUTCOME_STORED
    assert bench.queue.entries == [event.id for event in events(0, 3)]


async def test_who_needs_replicas_waits_for_what_was_acknowledged_before_and_for_nothing_else(bench: Bench) -> None:
    bench.queue.gate.clear()
    copied = asyncio.ensure_future(bench.publish(events(0, 1), timeout=0.1))
    await bench.until(lambda: bool(bench.queue.calls))
    before = asyncio.ensure_future(bench.publish(events(1, 2), REPLICATED))
    await bench.until(lambda: len(bench.queue.calls) == 2)  # it came before the copy was acknowledged
    assert outcome(await copied) == pb.OUTCOME_SPOOLED
    after = asyncio.ensure_future(bench.publish(events(2, 3), REPLICATED))
    bench.queue.gate.set()
    assert outcome(await before) == outcome(await after) == pb.OUTCOME_STORED
    assert bench.queue.entries.index(events(0, 1)[0].id) < bench.queue.entries.index(events(2, 3)[0].id)
    assert bench.spool.depth == 1  # nobody forwarded it: Redis has it


async def test_callers_whose_time_is_up_do_not_keep_the_spool_from_being_left(bench: Bench) -> None:
    """The last batch is slow, and meanwhile one after the other is acknowledged by the disk."""
    bench.queue.always = AWAY
    await bench.publish(events(0, 2))
    bench.queue.always = None
    bench.queue.gate.clear()
    bench.forward()
    await bench.until(lambda: len(bench.queue.calls) == 2)
    for number in range(2, 7):
        assert outcome(await bench.publish(events(number, number + 1), timeout=0.08)) == pb.OUTCOME_SPOOLED
    insists = asyncio.ensure_future(bench.publish(events(7, 8), PRIMARY))
    await asyncio.sleep(0.01)
    bench.queue.gate.set()
    assert outcome(await insists) == pb.OUTCOME_STORED
    await bench.until(lambda: not bench.spool.depth and not bench.publisher.pending)
    assert bench.queue.entries == [event.id for event in events(0, 8)]


async def test_one_event_that_the_spool_holds_at_the_start_is_queued_behind() -> None:
    spool = MemorySpool()
    assert not SpoolGate(spool).queued
    await spool.put(events(0, 1), Attempts())
    assert SpoolGate(spool).queued


async def test_what_the_disk_refused_keeps_nobody_from_redis(gate: SpoolGate) -> None:
    spool = MemorySpool()
    gate = SpoolGate(spool)
    await gate.put([submission(2, 3)], Attempts(), copies=True)
    spool.fail_with = SpoolUnavailable("disk full")
    assert await gate.put([submission(0, 1), submission(1, 2)], Attempts()) == [spool.fail_with] * 2
    spool.fail_with = None
    assert not gate.queued
    small = MemorySpool(max_bytes=400)
    gate = SpoolGate(small)
    (fits, not_any_more) = await gate.put([submission(0, 1), submission(1, 2)], Attempts())
    assert (fits, type(not_any_more)) == (None, SpoolFull)
    assert gate.queued


async def test_a_copy_queues_nobody_and_one_that_redis_may_not_have_everybody() -> None:
    spool = MemorySpool()
    gate = SpoolGate(spool)
    woken: list[None] = []
    gate.listen(lambda: woken.append(None))
    first, second, never_copied = submission(0, 1), submission(1, 2), submission(2, 3)
    moment = time.monotonic()
    assert gate.settled(moment)
    await gate.put([first, second], Attempts(), copies=True)
    for copy in (first, second):
        gate.acknowledged_copy(copy)
    assert (gate.queued, gate.settled(moment), gate.settled(time.monotonic())) == (False, True, False)
    gate.end_copy(never_copied, in_redis=False)
    assert (gate.queued, len(woken)) == (False, 0)
    gate.end_copy(first, in_redis=True)
    assert (gate.queued, gate.settled(time.monotonic()), len(woken)) == (False, False, 1)
    gate.end_copy(second, in_redis=False)
    assert (gate.queued, gate.settled(time.monotonic()), len(woken)) == (True, True, 2)


async def test_what_was_added_at_deadlines_is_made_up_for(gate: SpoolGate) -> None:
    gate.took(batch(1, 501))
    await gate.put([submission(5000, 5200)], Attempts(), copies=True)  # 200 where 125 were allowed
    gate.took(batch(501, 1001))
    assert gate.allows(50, 12_500)
    assert not gate.allows(51, 1)
    await gate.put([Submission([events(6000, 6001)[0]._replace(data=bytes(20_000))], SPOOLED, 1)], Attempts())
    gate.took(batch(1001, 1401))
    assert gate.allows(100, 2500)
    assert not gate.allows(1, 2501)


async def test_listeners_hear_of_all_that_changes_an_answer(gate: SpoolGate) -> None:
    woken: list[None] = []
    gate.listen(lambda: woken.append(None))
    gate.took(batch(1, 501))
    assert len(woken) == 1  # more may be added
    gate.took(batch(501, 1501))
    assert len(woken) == 1  # the next batch is the last
    gate.report(None)
    assert len(woken) == 1
    gate.report(AWAY)
    assert (len(woken), gate.last_error) == (2, AWAY)
    gate.took(batch(1501, 2001))
    assert (len(woken), gate.queued) == (3, False)


async def test_after_an_outage_what_may_be_added_begins_at_nothing(gate: SpoolGate) -> None:
    gate.took(batch(1, 401))
    assert gate.allows(100, 1)
    gate.report(AWAY)
    assert not gate.draining
    gate.took(batch(401, 409))
    assert gate.draining
    assert gate.allows(2, 200)
    assert not gate.allows(3, 1)


async def test_the_forwarder_waits_while_the_spool_is_empty_and_bounds_nothing_then() -> None:
    spool = MemorySpool()
    gate = SpoolGate(spool)
    woken: list[None] = []
    gate.listen(lambda: woken.append(None))
    await gate.put([submission(0, 20)], Attempts())
    gate.took(batch(1, 10))
    assert gate.queued
    spool.rows.clear()  # as where the disk lost them
    assert not gate.queued
    waits = asyncio.ensure_future(gate.wait_not_empty())
    await asyncio.sleep(0.01)
    assert (waits.done(), len(woken)) == (False, 2)
    await gate.put([submission(30, 31)], Attempts())
    await asyncio.wait_for(waits, 5)
    assert gate.queued
    assert not gate.draining
    assert gate.allows(10_000, 1 << 30)
