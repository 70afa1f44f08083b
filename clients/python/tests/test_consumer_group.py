"""What the consumers of a group promise each other, and what many events at once are promised. With a real server."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import redis

from clients.python.tests.test_consumer import DEAD_LETTERS, QUICK, STREAM, dead_letters, environ, publish
from clients.python.tests.twins import CONSUMERS
from modelready import model_ready
from modelready._consumer.lanes import Lanes
from modelready._consumer.options import checked_options
from modelready.consumer import Consumer
from modelready.entry import encode
from modelready.keys import REPLAY_CONSUMER, WAITING_CONSUMER
from modelready.redis.cluster import server_from_env
from modelready.redis.pool import Pool
from tests.harness.redis_server import RedisServer, available_binaries
from tests.harness.rights import CONSUMER
from tests.harness.waiting import until

BINARIES = [
    pytest.param(binary, id=name, marks=[pytest.mark.soak] * (index > 0))
    for index, (name, binary) in enumerate(available_binaries().items())
]


@pytest.fixture(scope="module", params=BINARIES)
def shared(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(binary=request.param, acl=[f"user reader {CONSUMER} >secret"]) as server:
        yield server


@pytest.fixture
def server(shared: RedisServer) -> Iterator[RedisServer]:
    yield shared
    with shared.client() as client:
        assert client.acl_log() == []  # the rights of docs/redis-acl.md are enough for all of this
        client.flushall()


@pytest.fixture
def consume(server: RedisServer) -> Iterator[Callable[..., Consumer]]:
    made: list[Consumer] = []

    def consumer(**options: Any) -> Consumer:
        settings: dict[str, Any] = {"group": "deployer", "environ": environ(server), **QUICK, **options}
        made.append(Consumer.from_env(**settings))
        return made[-1]

    yield consumer
    for one in made:
        one.close()


@pytest.fixture(params=list(CONSUMERS))
def twin(request: pytest.FixtureRequest) -> Any:
    return CONSUMERS[request.param]


class Running:
    """A consumer at work in a thread; it notes what it is given."""

    def __init__(self, consumer: Any, seconds: float = 0.0) -> None:
        self.consumer = consumer
        self.seconds = seconds
        self.versions: list[str] = []
        self.spans: list[tuple[str, float, float]] = []
        self._thread = threading.Thread(target=consumer.run, args=[self._handle])
        self._thread.start()

    def stop(self) -> None:
        self.consumer.stop()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def _handle(self, event: Any) -> None:
        began = time.monotonic()
        self.versions.append(event.model.version)
        time.sleep(self.seconds)
        self.spans.append((event.model.name, began, time.monotonic()))


def summary(server: RedisServer, group: str = "deployer") -> dict[str, int]:
    """How many entries each consumer has in flight."""
    with server.client() as client:
        return {each["name"].decode(): each["pending"] for each in client.xpending(STREAM, group)["consumers"]}


def names(server: RedisServer, group: str = "deployer") -> list[str]:
    with server.client() as client:
        return [each["name"].decode() for each in client.xinfo_consumers(STREAM, group)]


def died(server: RedisServer, name: str, count: int = 10, *, begun: int = 0) -> list[str]:
    """A consumer of ours read, began some, and died."""

    async def turn() -> list[str]:
        link = Pool(server_from_env(environ(server), STREAM))
        options = checked_options(group="deployer", consumer_name=name, claim_seconds=0.6, batch=count)
        lanes = Lanes(link, options)
        await lanes.create_group("0")
        given = (await lanes.turn(room=count, demand=begun)).entries
        await link.close()
        return [each.id for each in given]

    return asyncio.run(turn())


def left_behind(server: RedisServer, name: str, count: int = 10, group: str = "deployer") -> list[str]:
    """A consumer that knows no lanes read and died."""
    with server.client() as client:
        with contextlib.suppress(redis.ResponseError):
            client.xgroup_create(STREAM, group, id="0", mkstream=True)
        reply: Any = client.xreadgroup(group, name, {STREAM: ">"}, count=count)
        (entries,) = reply.values()
        return [entry_id.decode() for entry_id, _ in entries[0]]


# -- taking over


def test_what_a_dead_consumer_left_is_taken_over_in_order(consume: Any, server: RedisServer) -> None:
    publish(server, 1, 2)
    assert len(died(server, "dead")) == 2
    publish(server, 3)
    running = Running(consume(claim_seconds=0.6))
    until(lambda: running.versions == ["1", "2", "3"], 5, "all of them, in order")
    until(lambda: names(server) == [running.consumer._options.consumer_name, WAITING_CONSUMER], 5, "its name is gone")
    running.stop()
    assert summary(server) == {}


def test_what_a_living_consumer_has_in_flight_stays_its_own(consume: Any, server: RedisServer) -> None:
    publish(server, 1)
    slow = Running(consume(claim_seconds=0.6), seconds=2.0)
    until(lambda: slow.versions, 5, "it began")
    idle = Running(consume(claim_seconds=0.6))
    slow.stop()
    idle.stop()
    assert (slow.versions, idle.versions) == (["1"], [])
    assert summary(server) == {}


def test_an_event_that_kills_its_consumers_is_a_dead_letter_and_its_neighbours_are_not(
    consume: Any, server: RedisServer
) -> None:
    entries = publish(server, 1, 2, 3)
    left_behind(server, "dead")
    with server.client() as client:  # it was begun for the fifth time
        client.xclaim(STREAM, "deployer", "dead", 0, [entries[0]], retrycount=5, justid=True)
    running = Running(consume(claim_seconds=0.6))
    until(lambda: running.versions == ["2", "3"], 5, "the others")
    until(lambda: len(dead_letters(server)) == 1, 5, "the dead letter")
    running.stop()
    (letter,) = dead_letters(server)
    assert (letter[b"dl_reason"], letter[b"dl_attempts"]) == (b"CONSUMER_DIED", b"5")
    assert letter[b"dl_entry_id"] == entries[0].encode()
    assert summary(server) == {}


def test_entries_that_were_taken_over_are_begun_one_at_a_time(consume: Any, server: RedisServer) -> None:
    """So that what kills its consumer costs its neighbours no attempt."""
    publish(server, 1, name="a")
    publish(server, 2, name="b")
    left_behind(server, "dead")
    running = Running(consume(claim_seconds=0.6, concurrency=2), seconds=0.5)
    until(lambda: len(running.versions) == 1, 5, "one began")
    with server.client() as client:
        counts = [each["times_delivered"] for each in client.xpending_range(STREAM, "deployer", "-", "+", 10)]
    assert sorted(counts) == [1, 2]
    running.stop()


def test_entries_deleted_before_they_were_handled_are_dropped(consume: Any, server: RedisServer) -> None:
    entries = publish(server, 1, 2)
    left_behind(server, "dead")
    with server.client() as client:
        client.xdel(STREAM, entries[0])
    running = Running(consume(claim_seconds=0.6))
    until(lambda: running.versions == ["2"], 5, "the other")
    running.stop()
    assert summary(server) == {}


def test_what_was_lost_while_it_was_handled_is_not_acknowledged(consume: Any, server: RedisServer) -> None:
    publish(server, 1, 2)
    running = Running(consume(claim_seconds=1.5, batch=2), seconds=0.8)
    until(lambda: running.versions == ["1"], 5, "it began")
    with server.client() as client:
        ids = [each["message_id"] for each in client.xpending_range(STREAM, "deployer", "-", "+", 10)]
        client.xclaim(STREAM, "deployer", "thief", 0, ids)
    until(lambda: running.spans, 5, "it ended")
    running.stop()
    assert running.versions == ["1"]  # the second was not begun
    assert summary(server) == {"thief": 2}


# -- leaving


def test_a_stop_gives_back_what_was_not_begun_and_another_takes_it_at_once(consume: Any, server: RedisServer) -> None:
    publish(server, 1, 2, 3)
    leaving = Running(consume(batch=3, consumer_name="leaving"), seconds=0.3)
    until(lambda: leaving.versions == ["1"], 5, "it began")
    leaving.stop()
    assert leaving.versions == ["1"]
    assert summary(server) == {WAITING_CONSUMER: 2}
    assert names(server) == [WAITING_CONSUMER]  # what was given back keeps no name
    running = Running(consume())
    until(lambda: running.versions == ["2", "3"], 4, "the rest, long before its claim ends")
    running.stop()


def test_the_name_is_taken_off_the_group_when_nothing_is_pending(consume: Any, server: RedisServer) -> None:
    publish(server, 1)
    running = Running(consume(consumer_name="guest"))
    until(lambda: running.versions == ["1"], 5, "the event")
    assert names(server) == ["guest"]
    running.stop()
    assert names(server) == []


# -- many at once


def test_concurrency_is_for_several_models_and_a_model_stays_in_order(consume: Any, server: RedisServer) -> None:
    for version in range(1, 4):
        for model in "abcd":
            publish(server, version, name=model)
    running = Running(consume(concurrency=4), seconds=0.05)
    until(lambda: len(running.spans) == 12, 5, "all")
    running.stop()
    for model in "abcd":
        spans = [(begin, end) for name, begin, end in running.spans if name == model]
        assert all(one[1] <= other[0] for one, other in pairwise(spans))
    edges = sorted([(begin, 1) for _, begin, _ in running.spans] + [(end, -1) for _, _, end in running.spans])
    at_once = [sum(step for _, step in edges[: index + 1]) for index in range(len(edges))]
    assert max(at_once) == 4


def test_a_model_is_in_order_across_the_group(consume: Any, server: RedisServer) -> None:
    publish(server, 1, name="team/m")
    first = Running(consume(), seconds=0.5)
    until(lambda: first.versions == ["1"], 5, "the first has it")
    publish(server, 2, name="team/m")
    publish(server, 3, name="team/other")
    second = Running(consume(batch=2))
    until(lambda: second.versions == ["3"], 0.4, "the other model goes on")
    until(lambda: "2" in [*first.versions, *second.versions], 5, "then the next of the model")
    until(lambda: len(first.spans) + len(second.spans) == 3, 5, "all ended")
    spans = sorted((begin, end) for name, begin, end in first.spans + second.spans if name == "team/m")
    assert spans[0][1] <= spans[1][0]
    first.stop()
    second.stop()


def test_a_batch_is_acknowledged_together(twin: Any, server: RedisServer) -> None:
    publish(server, *range(1, 8))
    consumer = twin.from_env(group="deployer", environ=environ(server), batch=5, **QUICK)
    batches: list[list[str]] = []

    def handle(events: list[Any]) -> None:
        batches.append([event.model.version for event in events])
        if sum(map(len, batches)) == 7:
            consumer.stop()

    consumer.run_batches(handle)
    assert [version for batch in batches for version in batch] == ["1", "2", "3", "4", "5", "6", "7"]
    assert max(map(len, batches)) == 5
    assert summary(server) == {}


def test_a_batch_that_fails_is_handled_one_by_one(twin: Any, server: RedisServer) -> None:
    publish(server, 1, 2, name="a")
    publish(server, 3, 4, name="b")
    consumer = twin.from_env(group="deployer", environ=environ(server), batch=4, max_attempts=2, **QUICK)
    batches: list[list[str]] = []
    done: list[str] = []

    def handle(events: list[Any]) -> None:
        versions = [event.model.version for event in events]
        batches.append(versions)
        if "3" in versions:
            raise LookupError
        done.extend(versions)
        if "4" in done:
            consumer.stop()

    consumer.run_batches(handle)
    assert batches[0] == ["1", "2", "3", "4"]
    assert [batch for batch in batches[1:] if len(batch) > 1] == []
    assert batches.count(["3"]) == 2
    assert sorted(done) == ["1", "2", "4"]
    assert [letter[b"dl_attempts"] for letter in dead_letters(server)] == [b"2"]


def test_a_poison_event_among_ten_thousand(consume: Any, server: RedisServer) -> None:
    with server.client() as client:
        for start in range(0, 10_000, 1000):
            pipeline = client.pipeline(transaction=False)
            for version in range(start, start + 1000):
                pipeline.xadd(STREAM, encode(model_ready(name=f"m{version % 50}", version=version, uri="s3://m/")))
            pipeline.execute()
    consumer = consume(batch=100)
    handled: dict[str, list[int]] = defaultdict(list)

    def handle(event: Any) -> None:
        if event.model.version == "5000":
            raise LookupError("no such artifact")
        handled[event.model.name].append(int(event.model.version))

    thread = threading.Thread(target=consumer.run, args=[handle])
    thread.start()
    until(lambda: sum(map(len, handled.values())) == 9_999 and dead_letters(server), 120, "all but one")
    until(lambda: summary(server) == {}, 20, "all are acknowledged")
    consumer.stop()
    thread.join()
    assert all(versions == sorted(set(versions)) for versions in handled.values())
    (letter,) = dead_letters(server)
    assert (letter[b"dl_reason"], letter[b"dl_detail"]) == (b"HANDLER_FAILED", b"LookupError: no such artifact")
    assert letter[b"ce_subject"] == b"m0/5000"


# -- replays


def test_what_was_replayed_in_its_place_is_handled_as_if_for_the_first_time(consume: Any, server: RedisServer) -> None:
    (entry,) = publish(server, 1)
    running = Running(consume())
    until(lambda: running.versions == ["1"] and summary(server) == {}, 5, "it was handled")
    with server.client() as client:
        client.xclaim(STREAM, "deployer", "replay", 0, [entry], idle=86_400_000, retrycount=0, force=True, justid=True)
    until(lambda: running.versions == ["1", "1"] and summary(server) == {}, 5, "it was handled again")
    running.stop()


def replayed(server: RedisServer, entries: list[str], idle_ms: int = 86_400_000) -> None:
    """What a replay does to entries that the group had acknowledged."""
    with server.client() as client:
        client.xgroup_create(STREAM, "deployer", id="$")
        client.xclaim(
            STREAM, "deployer", REPLAY_CONSUMER, 0, entries, idle=idle_ms, retrycount=0, force=True, justid=True
        )


def test_what_was_replayed_is_begun_like_new_events_and_not_one_at_a_time(consume: Any, server: RedisServer) -> None:
    """Nobody has died of it: a thousand dead letters that come back must not wait for each other."""
    replayed(server, [entry for name in "abcd" for entry in publish(server, 1, name=name)])
    together = threading.Barrier(4, timeout=5)
    consumer = consume(concurrency=4, max_attempts=1)
    thread = threading.Thread(target=consumer.run, args=[lambda _: together.wait()])
    thread.start()
    until(lambda: summary(server) == {}, 10, "they were handled")
    consumer.stop()
    thread.join()
    assert dead_letters(server) == []


def test_nobody_waits_for_what_was_replayed_and_not_taken_over(consume: Any, server: RedisServer) -> None:
    replayed(server, publish(server, 1), idle_ms=0)
    publish(server, 2)
    running = Running(consume(claim_seconds=30))
    until(lambda: running.versions == ["2"], 5, "the other of its model")
    running.stop()


def test_one_consumer_does_not_take_all_that_was_replayed(consume: Any, server: RedisServer) -> None:
    replayed(server, publish(server, *range(2000)))
    release = threading.Event()
    consumer = consume(claim_seconds=30)
    thread = threading.Thread(target=consumer.run, args=[lambda _: release.wait(20)])
    thread.start()
    until(lambda: REPLAY_CONSUMER not in summary(server), 10, "all wait in the lane")
    until_over = time.monotonic() + 0.5
    while time.monotonic() < until_over:
        assert summary(server)[WAITING_CONSUMER] >= 1900
    consumer.stop()
    release.set()
    thread.join()


@pytest.mark.parametrize(("to", "versions"), [("deployer", ["1", "2"]), ("auditor", ["2"])])
def test_an_entry_that_was_replayed_to_one_group_is_for_that_group(
    consume: Any, server: RedisServer, to: str, versions: list[str]
) -> None:
    with server.client() as client:
        client.xadd(STREAM, {**encode(model_ready(name="m", version=1, uri="s3://m/")), "replay_group": to})
    publish(server, 2)
    running = Running(consume(max_attempts=1))
    until(lambda: running.versions == versions and summary(server) == {}, 5, "what is for it")
    running.stop()
    assert not server.execute("EXISTS", DEAD_LETTERS)


def test_none_of_the_rights_is_there_in_vain(consume: Any, server: RedisServer) -> None:
    """The server counts the commands that it carries out, those of scripts too."""
    server.execute("SCRIPT", "FLUSH")
    server.execute("CONFIG", "RESETSTAT")
    consumer = consume(max_attempts=1)
    publish(server, 1)

    def fail(event: Any) -> None:
        consumer.stop()
        raise LookupError

    consumer.run(fail)
    assert len(dead_letters(server)) == 1
    publish(server, 2)
    left_behind(server, "dead")
    running = Running(consume(claim_seconds=0.6))
    until(lambda: running.versions == ["2"], 5, "it was taken over")
    running.stop()
    used = {name.removeprefix("cmdstat_") for name in server.info("commandstats")}
    assert {right.removeprefix("+") for right in CONSUMER.split() if right.startswith("+")} - used == set()
