"""The rules of forwarding, with a queue and a spool in memory."""

from __future__ import annotations

import time

from sidecar.publishing.interfaces import Attempts
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
    old, young = events(0, 2)
    await bench.spool.put([old, young], Attempts())
    bench.spool.rows[0] = bench.spool.rows[0]._replace(spooled_ms=int(time.time() * 1000) - 8 * DAY_MS)
    bench.forward()
    await bench.until(lambda: not bench.spool.depth)
    assert bench.queue.entries == [young.id]
    assert [(letter.event_id, letter.reason) for letter in bench.queue.letters] == [(old.id, "TOO_OLD")]


async def test_what_an_attempt_stored_before_the_window_ended_is_not_stored_again(bench: Bench) -> None:
    there, missing = events(0, 2)
    long_ago = int(time.time() * 1000) - 2 * DAY_MS
    await bench.spool.put([there, missing], Attempts(1, long_ago, long_ago + 100))
    bench.queue.found = {there.id: "1-0"}
    bench.forward()
    await bench.until(lambda: not bench.spool.depth)
    assert bench.queue.entries == [missing.id]
    assert bench.queue.letters == []


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
