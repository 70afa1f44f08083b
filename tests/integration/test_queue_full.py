"""QUEUE_MAX_DEPTH: a full queue refuses or spools, and never drops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sidecar.publishing.room import Room
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until
from tests.integration.calls import (
    KEYS,
    PRIMARY,
    STORED,
    TO_DISK,
    Code,
    calling,
    health,
    model_event,
    queued_ids,
    to_redis,
)
from tests.integration.operators import operating

LIMIT = 50


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


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
        refusal = publisher.refused(durability=PRIMARY, timeout=1)
        assert (refusal.code, refusal.reason, refusal.retry) == (Code.RESOURCE_EXHAUSTED, "QUEUE_FULL", True)
        spooled = [publisher.publish(model_event(number)) for number in range(30)]
        assert {receipt.outcome for receipt in spooled} == {TO_DISK}
        behind = publisher.refused(durability=PRIMARY, timeout=1)  # it would have to wait for an empty spool
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
    """An inspector whose depth is what a test says."""

    def __init__(self, depth: int) -> None:
        self.now = depth

    async def depth(self) -> int:
        return self.now


async def test_what_was_appended_since_the_last_look_counts() -> None:
    inspector = Depths(7)
    room = Room(inspector, 10)  # type: ignore[arg-type]
    assert not room.full
    await room.look()
    room.added(2)
    assert not room.full
    room.added(1)
    assert room.full
    inspector.now = 9
    await room.look()
    assert not room.full
    room.added(1)
    assert room.full
