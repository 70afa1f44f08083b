"""The rules of forwarding, with a queue and a spool in memory."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

import pytest

from modelready.v1.event_pb2 import ModelReadyToDeploy
from sidecar.errors import QueueError, Refused, SpoolError, SpoolUnavailable
from sidecar.publishing.interfaces import Attempts, DeadLetter, Spooled
from tests.unit.bench import AWAY, UNKNOWN, Bench, events

DAY_MS = 86_400_000


async def test_the_forwarder_makes_a_dead_letter_of_what_is_refused_and_goes_on(bench: Bench) -> None:
    bench.queue.refuse = lambda event: event.id == events(1, 2)[0].id
    batch = events(0, 3)
    await bench.spool.put(batch, Attempts())
    bench.forward()
    await bench.until(lambda: not bench.spool.depth)
    assert bench.queue.entries == [batch[0].id, batch[2].id]
    assert [(letter.event_id, letter.reason) for letter in bench.queue.letters] == [(batch[1].id, "REDIS_REFUSED")]


async def test_the_forwarder_never_makes_a_dead_letter_of_a_transient_fault(bench: Bench) -> None:
    bench.queue.always = AWAY
    await bench.publish(events(0, 1))
    bench.forward()
    await bench.until(lambda: bench.queue.pings > 5)
    assert bench.spool.depth == 1
    assert bench.queue.letters == []


async def test_what_is_too_old_becomes_a_dead_letter(bench: Bench) -> None:
    first, old, young = events(0, 3)
    await bench.spool.put([first, old, young], Attempts())
    bench.spool.rows[1] = bench.spool.rows[1]._replace(spooled_ms=int(time.time() * 1000) - 8 * DAY_MS)
    bench.forward()
    await bench.until(lambda: not bench.spool.depth)
    assert bench.queue.calls == [[first.id, young.id]]
    assert [(letter.event_id, letter.reason) for letter in bench.queue.letters] == [(old.id, "TOO_OLD")]


async def test_what_an_attempt_stored_before_the_window_ended_is_not_stored_again(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "sidecar.events")
    first, there, missing = events(0, 3)
    long_ago = int(time.time() * 1000) - 2 * DAY_MS
    await bench.spool.put([first], Attempts())
    await bench.spool.put([there, missing], Attempts(1, long_ago, long_ago + 100))
    bench.queue.found = {there.id: "1-0"}
    bench.forward()
    await bench.until(lambda: not bench.spool.depth)
    assert bench.queue.calls == [[first.id, missing.id]]
    assert bench.queue.letters == []
    outcomes = [record.getMessage().partition(":")[0] for record in caplog.records if record.name == "sidecar.events"]
    assert outcomes == ["duplicate", "stored", "stored"]


async def test_nor_where_the_clock_was_set_back_after_that_attempt(bench: Bench) -> None:
    """The attempt seems to lie ahead, so how long ago it was is not known; and the last one is before the first."""
    there, missing = events(0, 2)
    ahead = int(time.time() * 1000) + 2 * DAY_MS
    await bench.spool.put([there, missing], Attempts(1, ahead, ahead))
    bench.queue.found = {there.id: "1-0"}
    bench.forward()
    await bench.until(lambda: not bench.spool.depth)
    assert bench.queue.entries == [missing.id]
    ((since_ms, until_ms),) = bench.queue.searched
    assert since_ms < ahead == until_ms


async def test_a_first_attempt_is_not_looked_up(bench: Bench) -> None:
    await bench.spool.put(events(0, 1), Attempts())
    bench.spool.rows[0] = bench.spool.rows[0]._replace(spooled_ms=int(time.time() * 1000) - 8 * DAY_MS)
    bench.forward()
    await bench.until(lambda: not bench.spool.depth)
    assert not bench.queue.searched


async def test_what_cannot_be_read_becomes_a_dead_letter(bench: Bench) -> None:
    damaged = events(0, 1)[0]._replace(data=b"\xff\xff")
    await bench.spool.put([damaged, *events(1, 2)], Attempts())
    bench.forward()
    await bench.until(lambda: not bench.spool.depth)
    assert bench.queue.entries == [events(1, 2)[0].id]
    assert [letter.reason for letter in bench.queue.letters] == ["UNDECODABLE"]


async def test_dead_letters_wait_for_redis(bench: Bench) -> None:
    await bench.spool.put([events(0, 1)[0]._replace(data=b"\xff\xff")], Attempts())
    bench.queue.always = AWAY
    bench.forward()
    await bench.until(lambda: bench.queue.pings > 2)
    assert (bench.spool.depth, bench.queue.letters) == (1, [])
    dead = bench.spool.rows[0].dead
    assert dead is not None  # also after a restart
    assert dead[0] == "UNDECODABLE"
    bench.queue.always = None
    await bench.until(lambda: not bench.spool.depth)
    assert len(bench.queue.letters) == 1


async def test_a_lost_reply_while_forwarding_makes_no_second_entry(bench: Bench) -> None:
    await bench.spool.put(events(0, 3), Attempts())
    bench.queue.script.append(UNKNOWN)
    bench.queue.lost_reply = True
    bench.forward()
    await bench.until(lambda: not bench.spool.depth)
    assert bench.queue.entries == [event.id for event in events(0, 3)]


async def test_the_spool_empties_under_steady_load(bench: Bench) -> None:
    bench.queue.always = AWAY
    for start in range(0, 5000, 500):
        await bench.publish(events(start, start + 500))
    bench.queue.always = None
    bench.forward()
    published = 5000
    deadline = time.monotonic() + 10
    while bench.spool.depth and time.monotonic() < deadline:
        await bench.publish(events(published, published + 200))
        published += 200
    assert bench.spool.depth == 0
    assert bench.queue.entries == [event.id for event in events(0, len(bench.queue.entries))]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def test_what_is_spooled_later_wakes_the_forwarder(bench: Bench) -> None:
    bench.forward()
    await asyncio.sleep(0.01)
    bench.queue.script.append(AWAY)
    await bench.publish(events(0, 1))
    await bench.until(lambda: not bench.spool.depth)
    assert bench.queue.pings == 0  # the forwarder itself met no failure


async def test_nothing_is_marked_as_attempted_before_redis_answers_again(bench: Bench) -> None:
    bench.queue.always = AWAY
    await bench.publish(events(0, 1))
    bench.forward()
    await bench.until(lambda: bench.queue.pings > 3)
    assert bench.spool.rows[0].attempts.count == 1
    assert len(bench.queue.calls) == 2  # the caller's and the forwarder's first
    assert "modelready_retries_total" in (text := bench.metrics.render().decode())
    assert float(text.split('modelready_retries_total{by="forwarder"} ')[1].split()[0]) >= 4


async def test_that_the_spool_cannot_be_emptied_is_logged_once_and_that_it_can_again(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sidecar.publishing.forwarder")
    bench.queue.always = AWAY
    await bench.publish(events(0, 1))
    bench.forward()
    await bench.until(lambda: bench.queue.pings > 3)
    bench.queue.always = None
    await bench.until(lambda: not bench.spool.depth)
    assert caplog.messages == ["the spool cannot be emptied: away", "the spool is being emptied again"]
    await bench.until(lambda: bench.forwarder._backoff._failures == 0)
    assert bench.gate.last_error is None


async def test_large_events_are_read_and_sent_a_few_at_a_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = noted(bench, monkeypatch)
    mib = ModelReadyToDeploy(correlation_id="x" * ((1 << 20) - 4)).SerializeToString()
    assert len(mib) == 1 << 20
    await bench.spool.put([event._replace(data=mib) for event in events(0, 20)], Attempts())
    bench.forward()
    await bench.until(lambda: not bench.spool.depth)
    assert [len(call) for call in bench.queue.calls[:2]] == [4, 3]  # 4 MiB a call, and twice that are read
    assert limits[0] == 7
    assert all(len(call) <= 4 for call in bench.queue.calls)
    bench.queue.calls.clear()
    two = ModelReadyToDeploy(correlation_id="x" * ((2 << 20) - 4)).SerializeToString()
    batch = [e._replace(data=data) for e, data in zip(events(30, 35), [mib] * 3 + [two] * 2, strict=True)]
    await bench.spool.put(batch, Attempts())
    await bench.gate.put([], Attempts())  # so that it wakes
    await bench.until(lambda: not bench.spool.depth)
    assert [len(call) for call in bench.queue.calls] == [3, 2]  # the second one is full to the last byte, too


async def test_a_thousand_are_read_at_once_and_one_at_least(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.spool.put(events(0, 2500), Attempts())
    bench.forward()
    await bench.until(lambda: not bench.spool.depth)
    assert [len(call) for call in bench.queue.calls] == [1000, 1000, 500]
    limits = noted(bench, monkeypatch)
    huge = ModelReadyToDeploy(correlation_id="x" * (9 << 20)).SerializeToString()
    await bench.spool.put([event._replace(data=huge) for event in events(3000, 3002)], Attempts())
    await bench.gate.put([], Attempts())  # so that it wakes
    await bench.until(lambda: not bench.spool.depth)
    assert [len(call) for call in bench.queue.calls[3:]] == [1, 1]
    assert limits[0] == 1


@pytest.mark.parametrize(("age_seconds", "is_looked_up"), [(86_400 - 30, True), (86_400 - 120, False)])
async def test_an_old_attempt_is_looked_up_where_the_window_may_have_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, age_seconds: int, is_looked_up: bool
) -> None:
    asked: list[tuple[list[str], int, int]] = []

    async def find(event_ids: list[str], since_ms: int, until_ms: int) -> dict[str, str]:
        asked.append((event_ids, since_ms, until_ms))
        return {}

    monkeypatch.setattr(bench.queue, "find", find)
    early, late = now_ms() - age_seconds * 1000, now_ms() - age_seconds * 1000 + 10
    first, second, third = events(0, 3)
    await bench.spool.put([first], Attempts(1, early + 5, early + 6))
    await bench.spool.put([second], Attempts(2, early, late + 7))
    await bench.spool.put([third], Attempts())  # never attempted
    bench.forward()
    await bench.until(lambda: not bench.spool.depth)
    assert [call[:2] for call in asked] == ([([first.id, second.id], early)] if is_looked_up else [])
    assert all(until_ms > late + 7 for _, _, until_ms in asked)  # the attempt that follows is known as well
    assert bench.queue.entries == [first.id, second.id, third.id]


async def test_what_is_too_old_is_no_dead_letter_where_an_attempt_stored_it(bench: Bench) -> None:
    (event,) = events(0, 1)
    attempted = now_ms() - 8 * DAY_MS
    await bench.spool.put([event], Attempts(1, attempted, attempted))
    bench.spool.rows[0] = bench.spool.rows[0]._replace(spooled_ms=attempted)
    bench.queue.found = {event.id: "1-0"}
    bench.forward()
    await bench.until(lambda: not bench.spool.depth)
    assert (bench.queue.entries, bench.queue.letters) == ([], [])


async def test_a_dead_letter_says_what_was_tried_and_is_counted(bench: Bench) -> None:
    never, tried, marked = events(0, 3)
    spooled, first, last = now_ms() - 8 * DAY_MS, now_ms() - 9 * DAY_MS, now_ms() - 8 * DAY_MS
    await bench.spool.put([never], Attempts())
    await bench.spool.put([tried, marked], Attempts(3, first, last))
    bench.spool.rows[:] = [row._replace(spooled_ms=spooled) for row in bench.spool.rows]
    bench.spool.rows[2] = bench.spool.rows[2]._replace(dead=("SPOOL_CORRUPT", "broken"))
    before = now_ms()
    bench.forward()
    await bench.until(lambda: not bench.spool.depth)
    found = {letter.event_id: letter for letter in bench.queue.letters}
    assert list(found) == [marked.id, never.id, tried.id]
    assert found[marked.id][2:] == ("SPOOL_CORRUPT", "broken", 3, first, last)
    assert found[tried.id][:6] == (tried.id, tried.data, "TOO_OLD", "spooled for more than 604800 s", 4, first)
    assert found[never.id].attempts == 1
    assert before <= found[never.id].first_ms == found[never.id].last_ms
    text = bench.metrics.render().decode()
    assert 'modelready_dead_letters_total{reason="TOO_OLD"} 2.0' in text
    assert 'modelready_dead_letters_total{reason="SPOOL_CORRUPT"} 1.0' in text


async def test_a_dead_letter_that_redis_can_never_take_goes_without_its_data(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine, large = events(0, 1)[0], events(1, 2)[0]._replace(data=b"\xff" * 100)
    write = bench.queue.dead_letter

    async def bounded(letters: Sequence[DeadLetter]) -> None:
        if any(len(letter.data) == 100 for letter in letters):
            raise Refused("too large")
        await write(letters)

    monkeypatch.setattr(bench.queue, "dead_letter", bounded)
    await bench.spool.put([fine, large], Attempts())
    await bench.spool.mark_dead([1, 2], "SPOOL_CORRUPT", "broken")
    bench.forward()
    await bench.until(lambda: not bench.spool.depth)
    assert [(letter.event_id, letter.data, letter.detail) for letter in bench.queue.letters] == [
        (fine.id, fine.data, "broken"), (large.id, b"", "broken; 100 bytes of data left out"),
    ]  # fmt: skip
    assert 'modelready_dead_letters_total{reason="SPOOL_CORRUPT"} 2.0' in bench.metrics.render().decode()


async def test_a_disk_that_fails_while_a_batch_is_forwarded_loses_and_repeats_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.spool.put(events(0, 3), Attempts())
    advance, failures = bench.spool.advance, [None, SpoolUnavailable("disk full"), SpoolUnavailable("disk full")]

    async def failing(*arguments: Any, **options: Any) -> list[Spooled]:
        if failures and (error := failures.pop(0)):
            raise error
        return await advance(*arguments, **options)

    monkeypatch.setattr(bench.spool, "advance", failing)
    bench.forward()
    await bench.until(lambda: not bench.spool.depth)
    assert bench.queue.entries == [event.id for event in events(0, 3)]
    assert not failures


async def test_a_disk_that_fails_together_with_redis_is_waited_for_and_met_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was asked for must not go on beside the next attempt."""
    await bench.spool.put(events(0, 3), Attempts())
    advance, report, steps = bench.spool.advance, bench.gate.report, list[str]()

    async def failing(*arguments: Any, **options: Any) -> list[Spooled]:
        rows = await advance(*arguments, **options)
        if "after" in options and not steps:
            await asyncio.sleep(0.01)
            steps.append("the disk has failed")
            raise SpoolUnavailable("disk full")
        return rows

    def reported(error: QueueError | SpoolError | None) -> None:
        steps.append(str(error))
        report(error)

    monkeypatch.setattr(bench.spool, "advance", failing)
    monkeypatch.setattr(bench.gate, "report", reported)
    bench.queue.script.append(AWAY)
    bench.forward()
    await bench.until(lambda: not bench.spool.depth)
    assert steps[:2] == ["the disk has failed", "away"]
    assert bench.queue.entries == [event.id for event in events(0, 3)]


async def test_an_idle_forwarder_leaves_the_disk_alone_and_says_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sidecar.publishing.forwarder")
    limits = noted(bench, monkeypatch)
    bench.forward()
    for _ in range(50):
        await asyncio.sleep(0)
    assert limits == []
    bench.queue.script.append(AWAY)
    await bench.publish(events(0, 1))
    await bench.until(lambda: not bench.spool.depth)
    assert limits
    assert caplog.messages == []


async def test_after_an_outage_nothing_is_read_ahead_until_a_batch_is_through(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.spool.put(events(0, 2500), Attempts())
    limits = noted(bench, monkeypatch)
    bench.queue.script.append(AWAY)
    bench.forward()
    await bench.until(lambda: not bench.spool.depth)
    assert limits[:5] == [1000, 1000, 1000, 0, 1000]  # the first two: a batch and the one behind it, before it failed
    assert bench.queue.entries == [event.id for event in events(0, 2500)]


def noted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many events are asked of the spool, call by call."""
    limits: list[int] = []
    advance = bench.spool.advance

    async def advancing(
        done: Sequence[int], limit: int, attempt_ms: int | None = None, *, after: int = 0
    ) -> list[Spooled]:
        limits.append(limit)
        return await advance(done, limit, attempt_ms, after=after)

    monkeypatch.setattr(bench.spool, "advance", advancing)
    return limits
