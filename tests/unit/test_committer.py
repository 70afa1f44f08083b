"""What a committer promises beside order: answers in time, of the right kind, counted, and room given back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from modelready.v1 import publisher_service_pb2 as pb
from sidecar.errors import AuthFailed, QueueFull, Refused, RequestError, SetupFault, Unavailable
from sidecar.publishing import committer
from sidecar.publishing.backoff import Backoff
from sidecar.publishing.interfaces import Attempts, Event
from tests.unit.bench import AWAY, SETTINGS, UNKNOWN, Bench, end, events

SPOOLED, PRIMARY, REPLICATED = pb.DURABILITY_SPOOLED, pb.DURABILITY_PRIMARY, pb.DURABILITY_REPLICATED


async def refused(bench: Bench, *arguments: object, **options: object) -> RequestError:
    with pytest.raises(RequestError) as caught:
        await bench.publish(*arguments, **options)  # type: ignore[arg-type]
    return caught.value


def counted(bench: Bench, line: str) -> bool:
    return line in bench.metrics.render().decode().splitlines()


async def test_what_is_acknowledged_and_refused_is_counted(bench: Bench) -> None:
    await bench.publish(events(0, 3))
    assert counted(bench, 'modelready_published_events_total{outcome="stored"} 3.0')
    bench.queue.script.append(SetupFault("no right"))
    await refused(bench, events(3, 5))
    assert counted(bench, 'modelready_published_events_total{outcome="REDIS_SETUP"} 2.0')


async def test_groups_attempts_and_retries_are_counted(bench: Bench) -> None:
    bench.queue.script.append(AWAY)
    await bench.publish(events(0, 3), PRIMARY)
    text = bench.metrics.render().decode()
    assert 'modelready_retries_total{by="publisher"} 1.0' in text
    assert "modelready_group_events_count 2.0" in text
    assert "modelready_group_events_sum 6.0" in text
    assert "modelready_redis_append_seconds_count 1.0" in text


async def test_a_lone_caller_is_not_delayed_not_even_the_first(bench: Bench) -> None:
    """Gathering would take eight passes of the event loop."""
    for number in range(2):
        call = asyncio.ensure_future(bench.publish(events(number, number + 1)))
        for _ in range(6):
            await asyncio.sleep(0)
        assert len(bench.queue.calls) == number + 1
        await call


async def spooling(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Redis is away. How many events each group for the disk has from now on."""
    bench.queue.script.append(AWAY)
    await bench.publish(events(0, 1))
    put, groups = bench.spool.put, list[int]()

    async def noting(batch: Sequence[Event], attempts: Attempts) -> None:
        groups.append(len(batch))
        await put(batch, attempts)

    monkeypatch.setattr(bench.spool, "put", noting)
    return groups


async def test_a_lone_caller_is_not_delayed_on_its_way_to_the_disk(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = await spooling(bench, monkeypatch)
    for number in range(1, 3):
        call = asyncio.ensure_future(bench.publish(events(number, number + 1)))
        for _ in range(6):
            await asyncio.sleep(0)
        assert len(groups) == number
        await call


async def test_calls_that_come_one_after_another_share_a_group_for_the_disk(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "_GROUP_SECONDS", 60.0)
    groups = await spooling(bench, monkeypatch)

    async def call(number: int) -> None:
        for _ in range(number):
            await asyncio.sleep(0)
        await bench.publish(events(number, number + 1))

    await asyncio.gather(*[call(number) for number in range(1, 31)])
    assert groups == [1, 29]


async def test_a_caller_whose_time_was_up_is_not_sent(bench: Bench) -> None:
    bench.queue.gate.clear()
    first = asyncio.ensure_future(bench.publish(events(0, 1), timeout=5))
    await bench.until(lambda: len(bench.queue.calls) == 1)
    error = await refused(bench, events(1, 2), PRIMARY, timeout=0.1)
    assert (error.reason, str(error)) == (
        "REDIS_UNAVAILABLE",
        "the call's time is up; those before it are not in Redis yet",
    )
    assert bench.publisher.pending == 1
    bench.queue.gate.set()
    await first
    await bench.publish(events(2, 3))
    assert bench.queue.entries == [events(0, 1)[0].id, events(2, 3)[0].id]


async def test_of_one_that_is_on_its_way_the_outcome_is_not_known(bench: Bench) -> None:
    bench.queue.gate.clear()
    error = await refused(bench, events(0, 1), PRIMARY, timeout=0.1)
    assert (error.reason, str(error)) == ("OUTCOME_UNKNOWN", "Redis did not answer in time")
    assert bench.publisher.pending == 1  # Redis is still asked
    bench.queue.gate.set()
    await bench.until(lambda: not bench.publisher.pending)


@pytest.mark.parametrize(("error", "kind", "text"), [
    (AuthFailed("wrong"), AuthFailed, "the call's time is up; the last attempt failed: wrong"),
    (Unavailable("away"), Unavailable, "the call's time is up; the last attempt failed: away"),
    (SetupFault("no right"), SetupFault, "no right"),
    (QueueFull("full"), QueueFull, "full"),
    (None, Unavailable, "the call's time is up; those before it are not in Redis yet"),
])  # fmt: skip
async def test_one_that_waits_behind_the_spool_learns_what_keeps_it_full(
    bench: Bench, error: SetupFault | Unavailable | None, kind: type[RequestError], text: str
) -> None:
    bench.queue.script.append(AWAY)
    await bench.publish(events(0, 1))
    bench.gate.report(error)
    found = await refused(bench, events(1, 2), PRIMARY, timeout=0.05)
    assert (type(found), str(found)) == (kind, text)
    assert found.reason != "OUTCOME_UNKNOWN"


async def test_one_that_never_had_its_turn_learns_what_the_attempt_before_it_met(bench: Bench) -> None:
    bench.queue.always = QueueFull("full")
    first = asyncio.ensure_future(bench.publish(events(0, 1), REPLICATED))
    await bench.until(lambda: len(bench.queue.calls) > 1)
    many = [replace_data(number) for number in range(1, 6)]  # 4 MiB and more: not in one group with the first
    assert isinstance(await refused(bench, many, REPLICATED, timeout=0.1), QueueFull)
    bench.queue.always = None
    assert [type(result).__name__ for result in await first] == ["Published"]


def replace_data(number: int) -> object:
    return events(number, number + 1)[0]._replace(data=bytes(1 << 20))


async def test_a_fault_that_was_met_after_an_append_leaves_the_outcome_open(bench: Bench) -> None:
    bench.queue.script.append(SetupFault("no right to LPUSH", ambiguous=True))
    error = await refused(bench, events(0, 1))
    assert (type(error), error.reason, str(error)) == (Unavailable, "OUTCOME_UNKNOWN", "no right to LPUSH")
    assert bench.publisher.fault is not None


async def test_a_success_makes_the_next_pause_short_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    class Noted(Backoff):
        def next(self) -> float:
            made.append("next")
            return 0.001

        def reset(self) -> None:
            made.append("reset")

    monkeypatch.setattr(committer, "Backoff", Noted)
    bench = Bench()
    bench.queue.script.extend([AWAY, AWAY])
    await bench.publish(events(0, 1), PRIMARY)
    assert made == ["next", "next", "reset"]
    await end(bench)


async def test_between_attempts_there_is_a_pause_that_a_caller_of_the_disk_does_not_share() -> None:
    bench = Bench(settings=replace(SETTINGS, retry_base=1000.0, retry_max=1000.0))
    bench.queue.always = AWAY
    insists = asyncio.ensure_future(bench.publish(events(0, 1), PRIMARY, timeout=0.5))
    await bench.until(lambda: len(bench.queue.calls) == 1)
    await bench.publish(events(1, 2))  # it tries at once, with the one that is held
    assert bench.queue.calls[1] == [events(0, 1)[0].id, events(1, 2)[0].id]
    with pytest.raises(Unavailable):
        await insists
    assert len(bench.queue.calls) == 2
    await end(bench)


async def test_at_a_close_nobody_gets_more_time_and_all_are_answered_in_their_order() -> None:
    bench = Bench(redis_timeout=60, settings=replace(SETTINGS, timeout=60.0))
    bench.queue.gate.clear()
    ended: list[int] = []
    for number, seconds in enumerate([30, 0.2, 40, 30, 40]):
        future = bench.publisher.submit(events(number, number + 1), PRIMARY, seconds)
        future.add_done_callback(lambda _, number=number: ended.append(number))  # type: ignore[misc]
        await bench.until(lambda: bool(bench.queue.calls))
    await bench.publisher.close(0.4)
    await bench.until(lambda: len(ended) == 5)
    assert ended == [1, 0, 2, 3, 4]
    await end(bench)


async def test_a_close_gives_an_answer_that_is_due_sooner_no_more_time() -> None:
    bench = Bench(redis_timeout=60)
    bench.queue.gate.clear()
    due = bench.publisher.submit(events(0, 1), PRIMARY, 0.2)
    await bench.publisher.close(60)
    with pytest.raises(Unavailable):
        await asyncio.wait_for(due, 20)
    await end(bench)


async def test_a_frame_that_waits_for_room_goes_on_when_there_is_some() -> None:
    bench = Bench(settings=replace(SETTINGS, timeout=60.0, max_pending=4))
    bench.queue.gate.clear()
    first = asyncio.ensure_future(bench.publish(events(0, 3), timeout=60))
    await bench.until(lambda: bool(bench.queue.calls))
    room = asyncio.ensure_future(bench.publisher.wait_for_room(3, 1))
    await asyncio.sleep(0.01)
    assert not room.done()
    bench.queue.gate.set()
    await asyncio.wait_for(room, 20)
    await first
    await end(bench)


async def test_a_refusal_is_an_answer_for_its_event_alone_and_counted_so(bench: Bench) -> None:
    bench.queue.refuse = lambda event: event.id == events(1, 2)[0].id
    results = await bench.publish(events(0, 3))
    assert [type(result).__name__ for result in results] == ["Published", "Refused", "Published"]
    assert counted(bench, 'modelready_published_events_total{outcome="REDIS_REFUSED"} 1.0')
    assert bench.publisher.pending == 0


async def test_redis_that_goes_away_while_one_is_looked_for_does_not_lose_the_others(bench: Bench) -> None:
    """The refused one is alone by then, and of several events: the attempt of the second is lost."""
    bench.queue.refuse = lambda event: event.id == events(2, 3)[0].id
    bench.queue.script.extend([None, None, UNKNOWN])
    bench.queue.lost_reply = True
    results = await bench.publish(events(0, 3))
    assert [getattr(result, "outcome", None) for result in results] == [pb.OUTCOME_SPOOLED] * 3
    assert {row.attempts.count for row in bench.spool.rows} == {1}
    bench.forward()
    await bench.until(lambda: not bench.spool.depth)
    assert bench.queue.entries == [event.id for event in events(0, 2)]


async def test_what_failed_without_doubt_is_spooled_as_never_attempted(bench: Bench) -> None:
    bench.queue.script.append(AWAY)
    await bench.publish(events(0, 1))
    assert bench.spool.rows[0].attempts == Attempts()
    now = time.time_ns() // 1_000_000
    bench.queue.gate.clear()
    bench.forward()
    bench.queue.gate.set()
    await bench.until(lambda: not bench.spool.depth)
    bench.queue.script.append(UNKNOWN)
    await bench.publish(events(1, 2))
    (row,) = bench.spool.rows
    assert row.attempts.count == 1
    assert now <= row.attempts.first_ms <= row.attempts.last_ms <= time.time_ns() // 1_000_000


async def test_a_copy_s_attempt_began_when_its_group_was_sent(bench: Bench) -> None:
    bench.queue.gate.clear()
    before = time.time_ns() // 1_000_000
    first = asyncio.ensure_future(bench.publish(events(0, 1), timeout=5))
    await bench.until(lambda: bool(bench.queue.calls))
    sent = time.time_ns() // 1_000_000
    await bench.publish(events(1, 2), timeout=0.3)
    ((_, first_ms, last_ms),) = [row.attempts for row in bench.spool.rows]
    assert before <= first_ms <= sent < last_ms
    bench.queue.gate.set()
    await first


async def test_a_single_refused_event_is_refused(bench: Bench) -> None:
    bench.queue.refuse = lambda _: True
    (result,) = await bench.publish(events(0, 1))
    assert isinstance(result, Refused)
    assert len(bench.queue.calls) == 2


async def test_a_disk_that_stalls_leaves_the_outcome_open(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is asked once: a second put would wait behind the first."""
    stalled, puts = asyncio.Event(), []

    async def put(*arguments: object) -> None:
        puts.append(arguments)
        await stalled.wait()

    monkeypatch.setattr(bench.spool, "put", put)
    bench.queue.always = AWAY
    error = await refused(bench, events(0, 1), timeout=0.2)
    assert (error.reason, str(error)) == ("OUTCOME_UNKNOWN", "the disk did not answer in time")
    stalled.set()
    await bench.until(lambda: not bench.publisher.pending)
    assert len(puts) == 1


async def test_without_enough_replicas_the_outcome_is_open_and_says_how_many(bench: Bench) -> None:
    bench.queue.replicas = 0
    error = await refused(bench, events(0, 1), REPLICATED, timeout=0.1)
    assert (error.reason, str(error)) == ("OUTCOME_UNKNOWN", "0 of 1 replicas confirmed in time")


async def test_a_copy_that_is_on_no_way_to_redis_was_attempted_now(bench: Bench) -> None:
    """It waits behind the spool while the forwarder makes headway."""
    bench.queue.script.append(AWAY)
    await bench.publish(events(0, 3))
    bench.gate.took(bench.spool.rows[:1])
    before = time.time_ns() // 1_000_000
    await bench.publish(events(3, 4), timeout=0.1)
    (*_, row) = bench.spool.rows
    assert row.event_id == events(3, 4)[0].id
    assert row.attempts.count == 1
    assert before <= row.attempts.first_ms == row.attempts.last_ms
