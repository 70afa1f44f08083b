"""The rules of publishing, with a queue and a spool in memory."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable
from dataclasses import replace

import pytest

from modelready.v1 import publisher_service_pb2 as pb
from sidecar.errors import (
    Overloaded,
    Refused,
    RequestError,
    SetupFault,
    ShuttingDown,
    SpoolFull,
    SpoolUnavailable,
    Unavailable,
)
from sidecar.publishing.submission import Published
from tests.harness.waiting import patience
from tests.unit.bench import AWAY, SETTINGS, UNKNOWN, Bench, end, events

SPOOLED, PRIMARY, REPLICATED = pb.DURABILITY_SPOOLED, pb.DURABILITY_PRIMARY, pb.DURABILITY_REPLICATED


def outcomes(results: list[Published | RequestError]) -> list[int]:
    return [result.outcome for result in results if isinstance(result, Published)]


async def test_an_event_is_acknowledged_with_its_entry(bench: Bench) -> None:
    assert await bench.publish(events(0, 1)) == [Published(pb.OUTCOME_STORED, "1-0")]
    assert await bench.publish(events(0, 1)) == [Published(pb.OUTCOME_DUPLICATE, "1-0")]


async def test_calls_that_come_together_share_a_group(bench: Bench) -> None:
    await asyncio.gather(*(bench.publish([event]) for event in events(0, 50)))
    assert [len(call) for call in bench.queue.calls] == [50]


async def test_calls_gather_while_a_group_is_under_way(bench: Bench) -> None:
    bench.queue.gate.clear()
    first = asyncio.ensure_future(bench.publish(events(0, 1)))
    await bench.until(lambda: len(bench.queue.calls) == 1)
    rest = [asyncio.ensure_future(bench.publish([event])) for event in events(1, 400)]
    await asyncio.sleep(0.01)
    assert len(bench.queue.calls) == 1
    bench.queue.gate.set()
    await asyncio.gather(first, *rest)
    assert [len(call) for call in bench.queue.calls] == [1, 256, 143]
    assert bench.queue.entries == [event.id for event in events(0, 400)]


async def test_while_redis_is_away_events_are_spooled_and_follow_in_order(bench: Bench) -> None:
    bench.queue.always = AWAY
    assert outcomes(await bench.publish(events(0, 3))) == [pb.OUTCOME_SPOOLED] * 3
    bench.queue.always = None
    assert outcomes(await bench.publish(events(3, 5))) == [pb.OUTCOME_SPOOLED] * 2  # behind the others
    assert bench.queue.entries == []
    bench.forward()
    await bench.until(lambda: not bench.spool.depth)
    assert outcomes(await bench.publish(events(5, 6))) == [pb.OUTCOME_STORED]
    assert bench.queue.entries == [event.id for event in events(0, 6)]


async def test_a_lost_reply_makes_no_second_entry(bench: Bench) -> None:
    bench.queue.script.append(UNKNOWN)
    bench.queue.lost_reply = True
    assert outcomes(await bench.publish(events(0, 2))) == [pb.OUTCOME_SPOOLED] * 2
    assert bench.spool.rows[0].attempts.count == 1  # it is known that it may be there
    bench.forward()
    await bench.until(lambda: not bench.spool.depth)
    assert bench.queue.entries == [event.id for event in events(0, 2)]


async def test_primary_keeps_nothing_when_redis_is_away(bench: Bench) -> None:
    bench.queue.always = AWAY
    began = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        await bench.publish(events(0, 1), PRIMARY, timeout=1)
    assert time.monotonic() - began < patience(1)
    assert not caught.value.ambiguous
    assert caught.value.reason == "REDIS_UNAVAILABLE"
    assert bench.spool.depth == 0
    assert len(bench.queue.calls) > 2  # it was tried again


async def test_primary_is_stored_once_redis_is_back_within_its_time(bench: Bench) -> None:
    bench.queue.script.extend([AWAY, AWAY])
    assert outcomes(await bench.publish(events(0, 1), PRIMARY)) == [pb.OUTCOME_STORED]


async def test_an_attempt_that_may_have_succeeded_is_never_called_a_failure(bench: Bench) -> None:
    bench.queue.script.append(UNKNOWN)
    bench.queue.always = AWAY
    with pytest.raises(Unavailable) as caught:
        await bench.publish(events(0, 1), PRIMARY, timeout=0.3)
    assert caught.value.reason == "OUTCOME_UNKNOWN"


async def test_primary_that_waits_behind_the_spool_gets_no_error_that_redis_is_away(bench: Bench) -> None:
    bench.queue.script.append(AWAY)
    await bench.publish(events(0, 2))
    with pytest.raises(Unavailable) as caught:
        await bench.publish(events(2, 3), PRIMARY, timeout=0.2)
    assert str(caught.value) == "the call's time is up; those before it are not in Redis yet"


async def test_primary_waits_for_the_spool_to_be_empty(bench: Bench) -> None:
    bench.queue.script.append(AWAY)
    await bench.publish(events(0, 2))
    later = asyncio.ensure_future(bench.publish(events(2, 3), PRIMARY))
    await asyncio.sleep(0.02)
    assert not later.done()
    bench.forward()
    assert outcomes(await later) == [pb.OUTCOME_STORED]
    assert bench.queue.entries == [event.id for event in events(0, 3)]


async def test_replicated_needs_the_replicas(bench: Bench) -> None:
    assert await bench.publish(events(0, 1), REPLICATED) == [Published(pb.OUTCOME_STORED, "1-0", 1)]
    bench.queue.replicas = 0
    with pytest.raises(Unavailable) as caught:
        await bench.publish(events(1, 2), REPLICATED, timeout=0.3)
    assert caught.value.reason == "OUTCOME_UNKNOWN"
    assert bench.spool.depth == 0


async def test_those_that_wait_for_replicas_do_not_share_a_group_with_the_others(bench: Bench) -> None:
    await asyncio.gather(
        bench.publish(events(0, 1)), bench.publish(events(1, 2), REPLICATED), bench.publish(events(2, 3))
    )
    assert sorted(len(call) for call in bench.queue.calls) == [1, 2]


async def test_a_slow_replica_keeps_nobody_else_waiting(bench: Bench) -> None:
    bench.queue.gate.clear()
    slow = asyncio.ensure_future(bench.publish(events(0, 1), REPLICATED))
    await bench.until(lambda: len(bench.queue.calls) == 1)
    others = asyncio.ensure_future(bench.publish(events(1, 2), PRIMARY))
    await bench.until(lambda: len(bench.queue.calls) == 2)  # under way beside it
    bench.queue.gate.set()
    await asyncio.gather(slow, others)


async def test_a_redis_that_does_not_answer_holds_nobody_beyond_the_deadline(bench: Bench) -> None:
    bench.queue.gate.clear()
    patient = asyncio.ensure_future(bench.publish(events(0, 1), timeout=2))
    await bench.until(lambda: bool(bench.queue.calls))
    hasty = asyncio.ensure_future(bench.publish(events(1, 2), timeout=0.3))  # it waits behind the group under way
    assert outcomes(await hasty) == [pb.OUTCOME_SPOOLED]
    assert not patient.done()
    assert outcomes(await patient) == [pb.OUTCOME_SPOOLED]
    assert sorted(row.event_id for row in bench.spool.rows) == [event.id for event in events(0, 2)]
    bench.queue.gate.set()
    bench.forward()
    await bench.until(lambda: not bench.spool.depth and not bench.publisher.pending)
    assert sorted(bench.queue.entries) == [event.id for event in events(0, 2)]  # each once


async def test_a_fault_of_setup_refuses_and_keeps_nothing(bench: Bench) -> None:
    bench.queue.script.append(SetupFault("no right"))
    with pytest.raises(SetupFault):
        await bench.publish(events(0, 1))
    assert bench.publisher.fault is not None
    await bench.publish(events(1, 2))
    assert bench.publisher.fault is None
    assert bench.spool.depth == 0


async def test_what_redis_can_never_take_is_refused_alone(bench: Bench) -> None:
    bench.queue.refuse = lambda event: event.id == events(2, 3)[0].id
    good, mixed = await asyncio.gather(bench.publish(events(0, 1)), bench.publish(events(1, 4)))
    assert outcomes(good) == [pb.OUTCOME_STORED]
    assert [type(result) for result in mixed] == [Published, Refused, Published]


async def test_order_is_kept_when_redis_goes_away_while_it_is_found_out_what_it_refused(bench: Bench) -> None:
    bench.queue.refuse = lambda event: event.id == events(1, 2)[0].id
    bench.queue.script.extend([None, AWAY])  # the group is refused; the first of it, alone, is not answered
    results = await asyncio.gather(*(bench.publish([event]) for event in events(0, 4)))
    assert [outcomes(result) for result in results] == [[pb.OUTCOME_SPOOLED]] * 4
    bench.forward()
    await bench.until(lambda: not bench.spool.depth)
    assert bench.queue.entries == [event.id for event in events(0, 4) if event.id != events(1, 2)[0].id]
    assert [letter.event_id for letter in bench.queue.letters] == [events(1, 2)[0].id]


async def test_those_beside_a_refused_one_still_need_their_replicas(bench: Bench) -> None:
    bench.queue.refuse = lambda event: event.id == events(1, 2)[0].id
    first, mixed = await bench.publish(events(0, 2), REPLICATED)
    assert (first, type(mixed)) == (Published(pb.OUTCOME_STORED, "1-0", 1), Refused)
    bench.queue.replicas = 0
    with pytest.raises(Unavailable) as caught:
        await bench.publish([*events(1, 3)], REPLICATED, timeout=0.3)
    assert caught.value.reason == "OUTCOME_UNKNOWN"


async def test_a_full_spool_refuses(bench: Bench) -> None:
    small = Bench(max_bytes=700)
    small.queue.always = AWAY
    await small.publish(events(0, 2))
    with pytest.raises(SpoolFull):
        await small.publish(events(2, 3))
    assert small.spool.depth == 2
    await end(small)


async def test_a_disk_that_fails_refuses_only_what_needs_it(bench: Bench) -> None:
    bench.spool.fail_with = SpoolUnavailable("disk full")
    assert outcomes(await bench.publish(events(0, 1))) == [pb.OUTCOME_STORED]
    bench.queue.script.append(AWAY)
    with pytest.raises(SpoolUnavailable):
        await bench.publish(events(1, 2))
    bench.queue.script.append(UNKNOWN)
    with pytest.raises(Unavailable) as caught:
        await bench.publish(events(1, 2))
    assert caught.value.ambiguous


async def test_too_many_waiting_are_refused_at_once(bench: Bench) -> None:
    bench.queue.gate.clear()
    waiting = [asyncio.ensure_future(bench.publish(events(i * 100, i * 100 + 100))) for i in range(10)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        bench.publisher.submit(events(5000, 5001), SPOOLED, 1)
    bench.queue.gate.set()
    await asyncio.gather(*waiting)
    assert bench.publisher.pending == 0


async def test_what_was_published_makes_room_for_more_bytes(bench: Bench) -> None:
    for number in range(40):  # 40 MiB, where 16 may wait
        assert await bench.publish([events(number, number + 1)[0]._replace(data=bytes(1 << 20))])


async def test_a_deadline_beyond_publish_timeout_seconds_counts_as_that() -> None:
    bench = Bench(settings=replace(SETTINGS, timeout=0.3))
    bench.queue.always = AWAY
    began = time.monotonic()
    with pytest.raises(Unavailable):
        await bench.publish(events(0, 1), PRIMARY, timeout=60)
    assert time.monotonic() - began < patience(0.3)
    await end(bench)


async def test_a_caller_that_goes_away_withdraws_nothing(bench: Bench) -> None:
    bench.queue.gate.clear()
    future = bench.publisher.submit(events(0, 1), SPOOLED, 1)
    await bench.until(lambda: bool(bench.queue.calls))
    future.cancel()
    bench.queue.gate.set()
    await bench.publish(events(1, 2))
    assert bench.queue.entries == [event.id for event in events(0, 2)]
    assert bench.publisher.pending == 0


async def test_a_refusal_that_nobody_reads_is_not_logged_as_an_error(bench: Bench) -> None:
    """As of a stream's frames whose client has left."""
    unhandled: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    bench.queue.always = Unavailable("away")  # not AWAY: what raises it stays alive with it
    for number in range(3):
        bench.publisher.submit(events(number, number + 1), PRIMARY, 0.1)
    await bench.until(lambda: not bench.publisher.pending)
    bench.queue.always = None
    await bench.publish(events(3, 4))  # the last group is forgotten
    gc.collect()
    assert unhandled == []


async def test_a_close_commits_what_waits_and_takes_no_more(bench: Bench) -> None:
    waiting = [bench.publisher.submit([event], SPOOLED, 1) for event in events(0, 30)]
    await bench.publisher.close(1)
    with pytest.raises(ShuttingDown):
        bench.publisher.submit(events(30, 31), SPOOLED, 1)
    await asyncio.wait_for(bench.tasks[0], 2)
    assert [outcomes(future.result()) for future in waiting] == [[pb.OUTCOME_STORED]] * 30


async def test_a_close_answers_those_that_redis_keeps_waiting(bench: Bench) -> None:
    bench.queue.always = AWAY
    future = bench.publisher.submit(events(0, 1), PRIMARY, 2)
    await bench.until(lambda: bool(bench.queue.calls))
    await bench.publisher.close(0.1)
    await asyncio.wait_for(bench.tasks[0], 1)
    assert isinstance(future.exception(), Unavailable)


async def test_a_defect_answers_everyone_and_ends_the_publisher(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object, **_keywords: object) -> Awaitable[object]:
        raise ZeroDivisionError

    monkeypatch.setattr(bench.queue, "append", broken)
    with pytest.raises(Unavailable) as caught:
        await bench.publish(events(0, 1))
    assert caught.value.ambiguous
    with pytest.raises(ZeroDivisionError):
        await bench.tasks[0]
    bench.tasks.clear()
