"""QUEUE_MAX_DEPTH: a full queue refuses or spools, and never drops."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, cast

import pytest

from sidecar.errors import QueueFull, Unavailable
from sidecar.metrics import Metrics
from sidecar.publishing import depth_limit
from sidecar.publishing.backoff import Backoff
from sidecar.publishing.depth_limit import BoundedQueue, DepthLimit
from sidecar.publishing.entry_ids import number
from sidecar.publishing.event_log import EventObserver
from sidecar.publishing.forwarder import Forwarder
from sidecar.publishing.interfaces import Appended, Attempts, DeadLetter, Depth, Event
from sidecar.publishing.spool_gate import SpoolGate
from tests.fakes.events import events
from tests.fakes.memory_queue import MemoryQueue
from tests.fakes.memory_spool import MemorySpool
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import auntil, until
from tests.integration.calls import (
    KEYS,
    PRIMARY,
    STORED,
    TO_DISK,
    Code,
    as_spooled,
    calling,
    entries,
    health,
    model_event,
    put_into_spool,
    queued_ids,
    to_redis,
)
from tests.integration.operators import operating

LIMIT = 50


def read_all(server: RedisServer) -> int:
    """As a consumer of the group g that acknowledges all that it is given; how many."""
    with server.client() as client:
        reply: Any = client.xreadgroup("g", "c", {KEYS.events: ">"}, count=1000)
        ids = [entry_id for entry_id, _ in next(iter(reply.values()))[0]] if reply else []
        return int(client.xack(KEYS.events, "g", *ids)) if ids else 0


@pytest.mark.parametrize("grouped", [True, False], ids=["a slow group", "no group"])
def test_what_is_too_much_is_spooled_or_refused_and_comes_later(server: RedisServer, grouped: bool) -> None:
    server.execute("FLUSHALL")
    if grouped:
        server.execute("XGROUP", "CREATE", KEYS.events, "g", "0", "MKSTREAM")
    env = to_redis(server, QUEUE_MAX_DEPTH=str(LIMIT))
    with SidecarProcess(env) as sidecar, calling(sidecar) as publisher, operating(sidecar) as operator:
        receipts = [publisher.publish(model_event(number)) for number in range(LIMIT)]
        assert {receipt.outcome for receipt in receipts} == {STORED}
        refusal = publisher.refused_as("QUEUE_FULL")
        assert (refusal.code, refusal.reason, refusal.retry) == (Code.RESOURCE_EXHAUSTED, "QUEUE_FULL", True)
        spooled = [publisher.publish(model_event(number)) for number in range(30)]
        assert {receipt.outcome for receipt in spooled} == {TO_DISK}
        behind = publisher.refused_as("QUEUE_FULL")  # it would have to wait for an empty spool
        assert (behind.code, behind.reason) == (Code.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        assert len(queued_ids(server)) == LIMIT
        assert health(sidecar) == (True, True, True)
        promise = operator.status().promise
        assert (promise.accepting, promise.spooling) == (True, True)
        assert "the queue is full" in promise.summary
        if grouped:
            until(lambda: read_all(server) or sidecar.metrics()["modelready_spool_events"] == 0, 10, "it is read")
        else:  # somebody trims by hand, since without groups the sidecar does not
            server.execute("XTRIM", KEYS.events, "MAXLEN", "0")
        until(lambda: sidecar.metrics()["modelready_spool_events"] == 0, 10, "the spool is empty")
        ids = [receipt.event_id for receipt in (receipts if grouped else []) + spooled]
        assert queued_ids(server) == ids
        until(lambda: publisher.publish(durability=PRIMARY).outcome == STORED, 5, "there is room")


class Depths:
    """An observer whose depth is what a test says."""

    def __init__(self, depth: int, last_id: str) -> None:
        self.set(depth, last_id)

    def set(self, depth: int, last_id: str) -> None:
        self.now = Depth(depth, number(last_id))

    async def depth(self) -> Depth:
        return self.now


def stored(*entry_ids: str) -> list[Appended]:
    return [Appended(entry_id, False) for entry_id in entry_ids]


def test_until_the_first_look_it_is_not_full() -> None:
    assert not DepthLimit(cast("Any", Depths(9, "5-1")), 1).full


async def test_what_was_appended_since_the_depth_was_taken_counts() -> None:
    observer = Depths(7, "5-1")
    limit = DepthLimit(cast("Any", observer), 10)
    assert not limit.full
    await limit.refresh()
    limit.added(stored("5-2", "5-3"))
    limit.added([Appended("5-3", True)])
    assert not limit.full
    limit.added(stored("5-10"))
    assert limit.full
    await limit.refresh()  # another sidecar's look, which is older than these
    assert limit.full
    observer.set(9, "5-9")
    await limit.refresh()
    assert limit.full
    observer.set(9, "5-10")
    await limit.refresh()
    assert not limit.full
    limit.added(stored("5-11"))
    assert limit.full


async def test_what_went_with_a_deleted_stream_counts_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depth_limit, "_NOT_IN_DEPTH_SECONDS", 0.05)
    observer = Depths(0, "0-0")
    limit = DepthLimit(cast("Any", observer), 2)
    limit.added(stored("5-1", "5-2"))
    await limit.refresh()
    assert limit.full
    await asyncio.sleep(0.06)
    await limit.refresh()
    assert not limit.full


async def test_a_full_queue_takes_no_event_and_everything_else_goes_on_to_redis() -> None:
    queue = MemoryQueue()
    full = BoundedQueue(queue, DepthLimit(cast("Any", Depths(0, "0-0")), 2))
    await full.ping()
    appended, confirmed = await full.append(events(0, 2), replicas=1)
    assert ([where.entry_id for where in appended], confirmed) == (["1-0", "2-0"], 1)
    for call in (full.append(events(2, 3)), full.ping()):
        with pytest.raises(QueueFull, match="the queue is full, QUEUE_MAX_DEPTH is 2"):
            await call
    assert (len(queue.calls), queue.pings) == (1, 1)
    queue.found = {"e": "7-0"}
    assert await full.find(["e"], 5, 9) == {"e": "7-0"}
    assert queue.searched == [(5, 9)]
    letter = DeadLetter("e", b"", "TOO_OLD", "", 1, 0, 0)
    await full.dead_letter([letter])
    assert queue.letters == [letter]
    queue.always = Unavailable("away")
    with pytest.raises(Unavailable):
        await full.try_write()


def test_a_dead_letter_is_written_where_the_depth_is_bounded(server: RedisServer) -> None:
    server.execute("FLUSHALL")
    sidecar = SidecarProcess(to_redis(server, QUEUE_MAX_DEPTH=str(LIMIT)))
    good = model_event()
    good.occurred_at.GetCurrentTime()
    put_into_spool(sidecar, [Event("damaged", good, b"\xff"), as_spooled(good)], Attempts())
    with sidecar:
        until(lambda: queued_ids(server) == [good.event_id], 10, "what is behind it is delivered")
        assert [letter[b"dl_reason"] for letter in entries(server, KEYS.dead_letters)] == [b"UNDECODABLE"]


class CountedDepths(Depths):
    """Counts how often it is asked."""

    looks = 0

    async def depth(self) -> Depth:
        self.looks += 1
        return self.now


async def test_while_it_is_full_no_attempt_is_counted_and_redis_is_asked_once_a_second() -> None:
    queue, spool, metrics = MemoryQueue(), MemorySpool(), Metrics()
    observer = CountedDepths(10, "0-0")
    limit = DepthLimit(cast("Any", observer), 10)
    await limit.refresh()
    await spool.put([event._replace(data=event.message.SerializeToString()) for event in events(0, 3)], Attempts())
    gate = SpoolGate(spool)
    forwarder = Forwarder(
        BoundedQueue(queue, limit), spool, gate, metrics, EventObserver(metrics), backoff=Backoff(0.01, 0.02),
        dedup_seconds=86400, max_age=604800,
    )  # fmt: skip
    tasks = [asyncio.create_task(forwarder.run()), asyncio.create_task(limit.run())]
    await auntil(lambda: gate.last_error is not None, 5, "it is met")
    counted = [row.attempts.count for row in spool.rows]
    observer.looks = 0
    await asyncio.sleep(2.5)
    assert [row.attempts.count for row in spool.rows] == counted
    assert (queue.pings, queue.calls) == (0, [])
    assert observer.looks in {2, 3}
    observer.set(0, "0-0")
    await auntil(lambda: not spool.depth, 5, "there is room")
    assert queue.entries == [event.id for event in events(0, 3)]
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
