"""What a consumer's scripts promise each other about lanes, and what they cost. With a real server."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from clients.python.tests.test_consumer import DEAD_LETTERS, QUICK, STREAM, dead_letters, environ, publish
from clients.python.tests.test_consumer_group import Running, consume, died, names, server, shared, summary  # noqa: F401
from clients.python.tests.twins import CONSUMERS
from modelready import model_ready
from modelready._consumer.base import describe
from modelready._consumer.lanes import Given, Lanes
from modelready._consumer.options import checked_options
from modelready.entry import encode
from modelready.keys import REPLAY_CONSUMER, WAITING_CONSUMER, Keys
from modelready.redis.cluster import server_from_env
from modelready.redis.pool import Pool
from tests.harness.redis_server import RedisServer
from tests.harness.waiting import until

KEYS = Keys("model-ready")
LANES, WAITING, FREE = KEYS.lanes("deployer"), KEYS.waiting("deployer"), KEYS.free("deployer")


@pytest.fixture(params=list(CONSUMERS))
def twin(request: pytest.FixtureRequest) -> Any:
    return CONSUMERS[request.param]


# -- order


def test_two_consumers_keep_the_order_of_a_model(consume: Any, server: RedisServer) -> None:  # noqa: F811
    publish(server, *range(300))
    publish(server, *range(300), name="other")
    both = [Running(consume(batch=5)) for _ in range(2)]
    until(lambda: sum(len(one.spans) for one in both) == 600, 20, "all of them")
    for one in both:
        one.stop()
    for model in ("m", "other"):
        spans = sorted((begin, end) for one in both for name, begin, end in one.spans if name == model)
        assert all(before[1] <= after[0] for before, after in pairwise(spans))


@pytest.mark.parametrize("name", ["a\0b", "a", "\0", "team/a b:7", "é\U0001f600"])
def test_a_model_s_name_may_hold_anything(consume: Any, server: RedisServer, name: str) -> None:  # noqa: F811
    """What waits in a lane is not mixed up with that of a name that begins with it."""
    publish(server, 1, name=name)
    first = Running(consume(), seconds=0.3)
    until(lambda: first.versions, 5, "it began")
    publish(server, 2, name=name)
    publish(server, 3, name=f"{name}\0")
    publish(server, 4, name=name)
    second = Running(consume())
    until(lambda: len(first.spans) + len(second.spans) == 4, 5, "all")
    assert (second.versions[0], first.versions) == ("3", ["1", "2", "4"])
    first.stop()
    second.stop()


def test_entries_from_before_have_their_model_in_the_subject(consume: Any, server: RedisServer) -> None:  # noqa: F811
    with server.client() as client:
        for version in (1, 2, 3):
            fields = encode(model_ready(name="team/m", version=version, uri="s3://m/"))
            del fields["partitionkey"]
            client.xadd(STREAM, fields)
    first, second = Running(consume(), seconds=0.2), Running(consume(), seconds=0.2)
    until(lambda: len(first.spans) + len(second.spans) == 3, 5, "all")
    assert [] in (first.versions, second.versions)  # one lane
    first.stop()
    second.stop()


# -- what may be lost


@pytest.mark.parametrize("lost", [[LANES], [WAITING], [FREE], [LANES, WAITING, FREE]])
def test_keys_of_lanes_that_are_lost_hold_nothing_back(consume: Any, server: RedisServer, lost: list[str]) -> None:  # noqa: F811
    publish(server, 1)
    first = Running(consume(claim_seconds=1.0), seconds=0.5)
    until(lambda: first.versions, 5, "it began")
    second = Running(consume(claim_seconds=1.0))
    publish(server, 2, 3)
    until(lambda: summary(server).get(WAITING_CONSUMER) == 2, 5, "the others wait")
    server.execute("UNLINK", *lost)
    until(lambda: sorted([*first.versions, *second.versions]) == ["1", "2", "3"], 6, "they are handled")
    until(lambda: not summary(server), 5, "and acknowledged")
    first.stop()
    second.stop()


def test_a_lane_whose_owner_has_nothing_pending_is_set_free(consume: Any, server: RedisServer) -> None:  # noqa: F811
    server.execute("HSET", LANES, "m", "nobody")
    publish(server, 1, 2)
    running = Running(consume(claim_seconds=1.0))
    until(lambda: running.versions == ["1", "2"], 5, "they are handled")
    running.stop()


def test_a_group_that_is_destroyed_and_made_again_holds_nothing_back(consume: Any, server: RedisServer) -> None:  # noqa: F811
    publish(server, 1)
    running = Running(consume(claim_seconds=1.0), seconds=0.5)
    until(lambda: running.versions == ["1"], 5, "it began")
    server.execute("XGROUP", "DESTROY", STREAM, "deployer")
    server.execute("XGROUP", "CREATE", STREAM, "deployer", "0")
    publish(server, 2)
    until(lambda: running.versions[-1] == "2", 6, "what came after")
    until(lambda: not summary(server), 5, "all are acknowledged")
    running.stop()


def test_entries_that_are_deleted_while_they_wait_are_dropped(consume: Any, server: RedisServer) -> None:  # noqa: F811
    publish(server, 1)
    first = Running(consume(), seconds=0.5)
    until(lambda: first.versions, 5, "it began")
    second = Running(consume())
    (two, _) = publish(server, 2, 3)
    until(lambda: summary(server).get(WAITING_CONSUMER) == 2, 5, "the others wait")
    server.execute("XDEL", STREAM, two)
    until(lambda: sorted([*first.versions, *second.versions]) == ["1", "3"], 5, "the rest")
    until(lambda: not summary(server), 5, "nothing is left")
    first.stop()
    second.stop()


# -- attempts


def test_only_what_was_begun_counts_as_an_attempt(consume: Any, server: RedisServer) -> None:  # noqa: F811
    """A consumer that dies takes those along that it was in the middle of, and not what it had read."""
    entries = [entry for name in "abcdefg" for entry in publish(server, 1, name=name)]
    assert died(server, "dead", 7, begun=1) == entries
    running = Running(consume(claim_seconds=0.6, max_attempts=1))
    until(lambda: len(running.versions) == 6, 5, "the six that nobody had begun")
    until(lambda: len(dead_letters(server)) == 1, 5, "the dead letter")
    running.stop()
    (letter,) = dead_letters(server)
    assert (letter[b"dl_reason"], letter[b"dl_entry_id"]) == (b"CONSUMER_DIED", entries[0].encode())


def test_what_kills_its_consumer_is_a_dead_letter_alone(server: RedisServer) -> None:  # noqa: F811
    for name in "abcdefg":
        publish(server, "kill" if name == "c" else 1, name=name)  # type: ignore[arg-type]
    service = """
import os, signal, sys
from modelready.consumer import Consumer
def deploy(event):
    if event.model.version == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    print(event.model.name, flush=True)
Consumer.from_env(group="deployer", max_attempts=1, batch=7, claim_seconds=0.6, block_seconds=0.1).run(deploy)
"""
    lives = []
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", service],
            env={**os.environ, **environ(server)},
            stdout=subprocess.PIPE,
            text=True,
        )
        lives.append(process)
        if len(lives) == 1:
            assert process.wait(20) == -signal.SIGKILL
    until(lambda: len(dead_letters(server)) == 1 and not summary(server), 10, "the dead letter")
    lives[1].terminate()
    handled = sorted("".join(process.communicate(timeout=10)[0] for process in lives).split())
    assert handled == ["a", "b", "d", "e", "f", "g"]
    assert dead_letters(server)[0][b"ce_subject"] == b"c/kill"


def test_a_replayed_entry_that_kills_its_consumer_counts(consume: Any, server: RedisServer) -> None:  # noqa: F811
    (entry,) = publish(server, 1)
    with server.client() as client:
        client.xgroup_create(STREAM, "deployer", id="$")
        client.xclaim(
            STREAM, "deployer", REPLAY_CONSUMER, 0, [entry], idle=86_400_000, retrycount=0, force=True, justid=True
        )
    release = threading.Event()
    consumer = consume()
    thread = threading.Thread(target=consumer.run, args=[lambda _: release.wait(20)])
    thread.start()

    def attempts() -> list[int]:
        with server.client() as client:
            return [each["times_delivered"] for each in client.xpending_range(STREAM, "deployer", "-", "+", 10)]

    until(lambda: attempts() == [1] and not summary(server).get(REPLAY_CONSUMER), 5, "its attempt is noted")
    release.set()
    consumer.stop()
    thread.join()


def test_a_full_memory_keeps_nothing_from_being_acknowledged(consume: Any, server: RedisServer) -> None:  # noqa: F811
    """So that a backlog that fills the memory can shrink."""
    publish(server, *range(6))
    handled: list[Any] = []

    def handle(event: Any) -> None:
        server.execute("CONFIG", "SET", "maxmemory", "1")
        handled.append(event)

    consumer = consume(batch=3, claim_seconds=2)
    thread = threading.Thread(target=consumer.run, args=[handle])
    thread.start()
    try:
        until(lambda: len(handled) >= 3 and not summary(server), 5, "what was handled is acknowledged")
    finally:
        server.execute("CONFIG", "SET", "maxmemory", "0")
        until(lambda: len(handled) == 6, 5, "it goes on")
        consumer.stop()
        thread.join(10)
        server.execute("CONFIG", "SET", "maxmemory", "0")


def test_a_dead_letter_is_written_before_the_acknowledgement(consume: Any, server: RedisServer) -> None:  # noqa: F811
    """Where it cannot be written the entry stays pending."""
    (entry,) = publish(server, 1)
    began = threading.Event()

    def fail(_: object) -> None:
        server.execute("CONFIG", "SET", "maxmemory", "1")
        began.set()
        raise LookupError

    consumer = consume(max_attempts=1)
    thread = threading.Thread(target=consumer.run, args=[fail])
    thread.start()
    try:
        assert began.wait(5)
        until_over = time.monotonic() + 0.5
        while time.monotonic() < until_over:
            assert sum(summary(server).values()) == 1
            assert not dead_letters(server)
    finally:
        server.execute("CONFIG", "SET", "maxmemory", "0")
    until(lambda: len(dead_letters(server)) == 1 and not summary(server), 5, "the dead letter")
    consumer.stop()
    thread.join()
    assert dead_letters(server)[0][b"dl_entry_id"] == entry.encode()


@pytest.fixture
def full(server: RedisServer) -> Iterator[Callable[[], None]]:  # noqa: F811
    """Makes the memory of Redis full, until the end of the test."""
    yield lambda: server.execute("CONFIG", "SET", "maxmemory", "1")
    server.execute("CONFIG", "SET", "maxmemory", "0")


def test_a_backlog_that_fills_the_memory_is_handled(
    consume: Any,  # noqa: F811
    server: RedisServer,  # noqa: F811
    full: Callable[[], None],
) -> None:
    """Also what a consumer left that died, and what waits in lanes."""
    for name in "ab":
        publish(server, 1, 2, 3, name=name)
    died(server, "one", 1)
    died(server, "other", 4)
    full()
    running = Running(consume(consumer_name="one", batch=2, claim_seconds=0.6))
    until(lambda: len(running.versions) == 6 and not summary(server), 10, "all are handled and acknowledged")
    running.stop()
    assert [name for name, _, _ in running.spans].count("a") == 3
    assert server.execute("ZCARD", WAITING) == server.execute("HLEN", LANES) == 0


def test_while_a_dead_letter_finds_the_memory_full_other_models_go_on(
    consume: Any,  # noqa: F811
    server: RedisServer,  # noqa: F811
    full: Callable[[], None],
) -> None:
    publish(server, 0, 1, name="fails")
    for name in "abc":
        publish(server, 1, name=name)
    handled: list[str] = []

    def handle(event: Any) -> None:
        if event.model.name == "fails" and event.model.version == "0":
            full()
            raise LookupError
        handled.append(event.model.name)

    consumer = consume(max_attempts=1)
    thread = threading.Thread(target=consumer.run, args=[handle])
    thread.start()
    until(lambda: handled == ["a", "b", "c"], 5, "the other models are handled")
    assert not dead_letters(server)
    server.execute("CONFIG", "SET", "maxmemory", "0")
    until(lambda: handled[3:] == ["fails"], 5, "and its own, after the dead letter")
    assert len(dead_letters(server)) == 1
    consumer.stop()
    thread.join()


def test_a_claim_is_renewed_now_and_then_and_not_with_each_turn(
    consume: Any,  # noqa: F811
    server: RedisServer,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[float] = []
    keep = Lanes.keep

    async def counted(lanes: Lanes, ids: Any) -> list[bool]:
        asked.append(time.monotonic())
        return await keep(lanes, ids)

    monkeypatch.setattr(Lanes, "keep", counted)
    running = Running(consume(claim_seconds=3.0))
    publish(server, *range(200))
    until(lambda: len(running.spans) == 200, 10, "all")
    until(lambda: len(asked) >= 3, 5, "it was renewed")
    running.stop()
    assert all(after - before > 0.4 for before, after in pairwise(asked[:-1]))


def test_beside_a_consumer_that_knows_no_lanes_nothing_is_lost_or_stuck(
    consume: Any,  # noqa: F811
    server: RedisServer,  # noqa: F811
) -> None:
    """As one in another language, or of the version before."""
    for version in range(100):
        for name in "abcd":
            publish(server, version, name=name)
    both = [Running(consume(claim_seconds=1.0, batch=3), seconds=0.001) for _ in range(2)]
    until(lambda: any(one.versions for one in both), 5, "they are at work")
    plain = 0
    with server.client() as client:

        def over() -> bool:
            nonlocal plain
            for entries in client.xreadgroup("deployer", "plain", {STREAM: ">"}, count=2).values():
                for entry_id, _ in entries[0]:
                    plain += 1
                    if plain % 10:  # it forgets some
                        client.xack(STREAM, "deployer", entry_id)
            for entry_id, _ in client.xautoclaim(STREAM, "deployer", "plain", 700, count=2)[1]:
                plain += 1
                client.xack(STREAM, "deployer", entry_id)
            return plain + sum(len(one.versions) for one in both) >= 400 and not summary(server)

        until(over, 30, "all are handled and acknowledged")
    for one in both:
        one.stop()
    assert not dead_letters(server)
    assert server.execute("ZCARD", WAITING) == 0


# -- whatever an event or a handler does, no consumer ends


def test_errors_that_cannot_be_written_make_dead_letters(
    twin: Any,
    server: RedisServer,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL, "modelready")  # pytest's workers cannot pass on half a character either
    errors = [
        OSError("\udcff in a file's name"),
        asyncio.CancelledError("a library's own"),
        ValueError("x" * 10_000),
        UnicodeEncodeError("utf-8", "\udcff", 0, 1, "no"),
        RuntimeError(b"\xff\0"),
    ]
    publish(server, *range(len(errors)))
    consumer = twin.from_env(group="deployer", environ=environ(server), max_attempts=1, **QUICK)

    def handle(event: Any) -> None:
        raise errors[int(event.model.version)]

    thread = threading.Thread(target=consumer.run, args=[handle])
    thread.start()
    until(lambda: len(dead_letters(server)) == len(errors), 10, "a dead letter of each")
    consumer.stop()
    thread.join(10)
    assert dead_letters(server)[0][b"dl_detail"] == rb"OSError: \udcff in a file's name"


def test_an_error_s_text_is_what_utf_8_can_hold() -> None:
    assert describe(ValueError("a\udc80b")) == "ValueError: a\\udc80b"


def test_strange_entries_make_dead_letters_and_what_is_behind_them_is_handled_now(
    consume: Any,  # noqa: F811
    server: RedisServer,  # noqa: F811
) -> None:
    with server.client() as client:
        client.xadd(STREAM, {f"field {number}": "x" for number in range(4500)})
        client.xadd(STREAM, {"data": b"\xff", "content-type": "application/json", "partitionkey": b"\xff\0"})
        client.xadd(STREAM, {"data": "[" * 100_000, "content-type": "application/json", "ce_subject": ""})
        client.xadd(STREAM, {"": "", "replay_group": b"\xff"})
    publish(server, 1)
    running = Running(consume(batch=10))
    until(lambda: running.versions == ["1"], 3, "what is behind them")
    until(lambda: len(dead_letters(server)) == 3, 5, "the others")
    until(lambda: not summary(server), 5, "all are acknowledged")
    running.stop()
    assert {letter[b"dl_reason"] for letter in dead_letters(server)} == {b"UNDECODABLE"}


# -- what others leave behind


def handled_in(server: RedisServer, consume: Any, count: int) -> float:  # noqa: F811
    """Seconds for that many events of ten models."""
    running = Running(consume(batch=10))
    began = time.monotonic()
    for name in range(10):
        publish(server, *range(count // 10), name=f"m{name}")
    until(lambda: len(running.versions) == count, 60, "all")
    took = time.monotonic() - began
    running.stop()
    return took


HOLD = """
for _ = 1, 50000 do
  redis.call('XADD', KEYS[1], '*', unpack(ARGV))
end
redis.call('XREADGROUP', 'GROUP', 'deployer', 'greedy', 'COUNT', 50000, 'STREAMS', KEYS[1], '>')
"""


@pytest.mark.timeout(180)
def test_what_another_consumer_has_pending_costs_nothing(consume: Any, server: RedisServer) -> None:  # noqa: F811
    """With 50,000 entries pending with another consumer it is as fast as with none."""
    calm = min(handled_in(server, consume, 300) for _ in range(2))
    server.execute("XGROUP", "SETID", STREAM, "deployer", "$")
    fields = encode(model_ready(name="held", version=1, uri="s3://m/"))
    server.execute("EVAL", HOLD, 1, STREAM, *(part for pair in fields.items() for part in pair))
    assert summary(server) == {"greedy": 50_000}
    assert min(handled_in(server, consume, 300) for _ in range(2)) < 3 * calm + 0.5
    assert summary(server) == {"greedy": 50_000}


@pytest.fixture
def _quiet(server: RedisServer) -> Iterator[None]:  # noqa: F811
    yield
    assert not server.execute("EXISTS", DEAD_LETTERS)


@pytest.mark.usefixtures("_quiet")
def test_six_consumers_on_one_model_are_not_much_slower_than_one(consume: Any, server: RedisServer) -> None:  # noqa: F811
    """They share this process, so the bound is generous; it was a factor of hundreds."""

    def rate(size: int, first: int) -> float:
        running = [Running(consume()) for _ in range(size)]
        publish(server, *range(first, first + 500))
        began = time.monotonic()
        until(lambda: sum(len(one.versions) for one in running) == 500, 60, "all")
        took = time.monotonic() - began
        for one in running:
            one.stop()
        return 500 / took

    alone = rate(1, 0)
    assert rate(6, 500) > alone / 5


def test_an_idle_consumer_asks_redis_the_same_few_things_whatever_waits(consume: Any, server: RedisServer) -> None:  # noqa: F811
    publish(server, *range(200))
    began, release = threading.Event(), threading.Event()
    busy = consume()

    def handle(_: object) -> None:
        began.set()
        release.wait(30)

    thread = threading.Thread(target=busy.run, args=[handle])
    thread.start()
    assert began.wait(5)
    idle = Running(consume(block_seconds=2.0))
    until(lambda: summary(server).get(WAITING_CONSUMER) == 199, 10, "the others wait in the lane")
    before = server.info("stats")["total_commands_processed"]
    time.sleep(2)  # measured over a time
    asked = server.info("stats")["total_commands_processed"] - before
    busy.stop()
    idle.stop()
    release.set()
    thread.join()
    assert asked < 600  # the scripts' own commands count, too


# -- one step


async def lanes_of(server: RedisServer, name: str, **options: Any) -> tuple[Pool, Lanes]:  # noqa: F811
    pool = Pool(server_from_env(environ(server), STREAM))
    lanes = Lanes(pool, checked_options(group="deployer", consumer_name=name, **options))
    await lanes.create_group("0")
    return pool, lanes


def test_one_that_is_put_back_twice_takes_no_other_along(server: RedisServer) -> None:  # noqa: F811
    """As after a lost reply."""
    entries = [entry for name in "abc" for entry in publish(server, 1, name=name)]

    async def put_back() -> None:
        pool, lanes = await lanes_of(server, "one")
        await lanes.turn(room=3, demand=3)
        for _ in range(2):
            await lanes.release_one(entries[0], 1)
        await pool.close()

    asyncio.run(put_back())
    assert summary(server) == {"one": 2, WAITING_CONSUMER: 1}


def test_a_turn_gives_no_more_than_there_is_room_for(server: RedisServer) -> None:  # noqa: F811
    """New entries and free lanes share the room."""
    for name in "abcd":
        publish(server, 1, name=name)

    async def given() -> list[int]:
        pool, leaving = await lanes_of(server, "leaving")
        await leaving.turn(room=4)
        await leaving.release_own({}, lives=True)
        await leaving.tidy(leaving=True)
        for name in "efgh":
            publish(server, 1, name=name)
        other, lanes = await lanes_of(server, "other")
        counts = [len((await lanes.turn(room=1)).entries) for _ in range(4)]
        await pool.close()
        await other.close()
        return counts

    assert asyncio.run(given()) == [1, 1, 1, 1]


def test_who_put_an_entry_into_a_lane_knows_that_it_waits(server: RedisServer) -> None:  # noqa: F811
    """So it looks for the lane soon, instead of at the next news."""
    publish(server, 1)

    async def waiting() -> int:
        pool, owner = await lanes_of(server, "owner")
        await owner.turn(room=1, demand=1)
        publish(server, 2)
        other, lanes = await lanes_of(server, "other")
        count = (await lanes.turn(room=1)).waiting
        await pool.close()
        await other.close()
        return count

    assert asyncio.run(waiting()) == 1


def test_a_turn_looks_at_about_a_hundred_entries_however_many_lanes_go_on(server: RedisServer) -> None:  # noqa: F811
    """So that it blocks Redis for a millisecond or two; each lane gets its share."""
    for version in range(21):
        for name in range(20):
            publish(server, version, name=f"m{name}")

    async def given() -> tuple[list[Given], list[Given], int]:
        pool, owner = await lanes_of(server, "owner")
        heads = (await owner.turn(room=20)).entries
        other, lanes = await lanes_of(server, "other")
        while (await lanes.turn(room=1)).left == "more":
            pass
        server.execute("CONFIG", "RESETSTAT")
        turn = await owner.turn([head.id for head in heads], [head.lane for head in heads], room=20)
        calls = server.info("commandstats")["cmdstat_xclaim"]["calls"]
        await pool.close()
        await other.close()
        return heads, turn.entries, calls

    heads, entries, calls = asyncio.run(given())
    assert len(entries) == calls == 100
    assert {entry.lane for entry in entries} == {head.lane for head in heads}


def test_large_entries_are_given_a_few_at_a_time(server: RedisServer) -> None:  # noqa: F811
    with server.client() as client:
        for number in range(60):
            client.xadd(STREAM, {"partitionkey": f"m{number}", "data": b"x" * 400_000})

    async def given() -> list[int]:
        pool, lanes = await lanes_of(server, "one", batch=100)
        counts = [len((await lanes.turn(room=100)).entries) for _ in range(3)]
        await pool.close()
        return counts

    assert asyncio.run(given()) == [20, 20, 20]


def test_what_kills_the_consumer_of_a_batch_is_a_dead_letter_alone(server: RedisServer) -> None:  # noqa: F811
    """Although a worker ends one and takes the next at the worst moment: while the loop gathers what to tell Redis."""
    for name in "abcdefg":
        publish(server, "kill" if name == "c" else 1, name=name)  # type: ignore[arg-type]
    service = """
import os, signal, time
from modelready._consumer.in_flight import InFlight
from modelready.consumer import Consumer
finished = InFlight.finished
def finished_slowly(self, most):
    found = finished(self, most)
    time.sleep(0.02)
    return found
InFlight.finished = finished_slowly
def deploy(events):
    for event in events:
        if event.model.version == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
    print(*(event.model.name for event in events), flush=True)
Consumer.from_env(group="deployer", max_attempts=1, batch=7, claim_seconds=0.6, block_seconds=0.1).run_batches(deploy)
"""
    handled = ""
    for life in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", service],
            env={**os.environ, **environ(server)},
            stdout=subprocess.PIPE,
            text=True,
        )
        if life < 2:
            assert process.wait(20) == -signal.SIGKILL
        else:
            until(lambda: len(dead_letters(server)) == 1 and not summary(server), 10, "the dead letter")
            process.terminate()
        handled += process.communicate(timeout=10)[0]
    assert sorted(handled.split()) == ["a", "b", "d", "e", "f", "g"]
    assert dead_letters(server)[0][b"ce_subject"] == b"c/kill"


def test_no_two_consumers_share_an_alive_key() -> None:
    assert KEYS.alive("a", "b:c") != KEYS.alive("a:b", "c")
    assert KEYS.alive("a:b", "c") != KEYS.alive("a%3Ab", "c")
    assert KEYS.alive("deployer", "b:c") == "{model-ready}:alive:deployer:b:c"
