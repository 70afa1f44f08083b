"""The queue can be followed: nothing is acknowledged by it, and publishing does not notice."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from itertools import islice
from typing import Any

import grpc
import pytest

from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import patience, until
from tests.integration.calls import KEYS, Caller, Code, calling, model_event, read_error, refusal_of, to_redis
from tests.integration.operators import Operator, bury, operating


def publish(publisher: Caller, count: int) -> list[str]:
    return [publisher.publish(model_event(number)).event_id for number in range(count)]


def take(call: Any, count: int) -> list[str]:
    """The event ids of the next answers; the call stays open."""
    return [answer.event.event_id for answer in islice(call, count)]


def test_it_shows_the_newest_and_then_what_comes(operator: Operator, publisher: Caller) -> None:
    before = publish(publisher, 5)
    with operator.tailing(2) as tail:
        assert take(tail, 2) == before[-2:]
        after = publish(publisher, 150)
        assert take(tail, 150) == after


def test_from_the_end_it_shows_what_comes(server: RedisServer, operator: Operator, publisher: Caller) -> None:
    publish(publisher, 3)
    for _ in range(2):  # also where the stream is empty
        with operator.tailing() as tail:
            shown: list[str] = []
            reader = threading.Thread(target=lambda tail=tail, shown=shown: shown.extend(take(tail, 1)))
            reader.start()
            time.sleep(0.1)  # the call has to begin before what it is to show
            (event_id,) = publish(publisher, 1)
            reader.join(5)
            assert shown == [event_id]
        server.execute("DEL", KEYS.events)


def test_with_a_group_it_shows_what_that_group_has_open(
    server: RedisServer, operator: Operator, publisher: Caller
) -> None:
    events = publish(publisher, 6)
    with server.client() as client:
        client.xgroup_create(KEYS.events, "a", id="0")
        reply: Any = client.xreadgroup("a", "c", {KEYS.events: ">"}, count=4)
        ids = [entry_id for entry_id, _ in next(iter(reply.values()))[0]]
        client.xack(KEYS.events, "a", ids[0], ids[2])
        client.xdel(KEYS.events, ids[3])
        before = client.xinfo_groups(KEYS.events), client.xpending_range(KEYS.events, "a", "-", "+", 10)
        open_ones = [events[1], *events[4:]]
        for last in (0, 2, 3):
            with operator.tailing(last, "a") as tail:
                assert take(tail, last or 3) == (open_ones[-last:] if last else open_ones)
        after = client.xinfo_groups(KEYS.events), client.xpending_range(KEYS.events, "a", "-", "+", 10)
        for groups, pending in (before, after):
            groups[0].pop("idle", None)
            for one in pending:
                one.pop("time_since_delivered")
        assert before == after
        client.xgroup_create(KEYS.events, "b", id="$")
        with operator.tailing(group="a") as tail:  # what goes back to one group alone is not shown for another
            assert operator.replay([bury(server, model_event(), origin="group:b")]) == (1, 0, 0)
            (newest,) = publish(publisher, 1)
            assert take(tail, 4) == [*open_ones, newest]
    refusal = refusal_of(lambda: take(operator.tail(group="gone"), 1))
    assert (refusal.code, refusal.reason) == (Code.NOT_FOUND, "NOT_FOUND")


def test_an_entry_that_nobody_can_read_is_shown_by_its_id(server: RedisServer, operator: Operator) -> None:
    with server.client() as client:
        written: Any = client.xadd(KEYS.events, {"data": b"\xff"})
    with operator.tailing(1) as tail:
        (answer,) = islice(tail, 1)
    assert answer.entry_id == written.decode()
    assert not answer.HasField("event")


def test_a_few_may_follow_and_publishing_goes_on(operator: Operator, publisher: Caller) -> None:
    publish(publisher, 1)
    tails = [operator.tail(1) for _ in range(8)]
    for tail in tails:
        take(tail, 1)
    refusal = refusal_of(lambda: take(operator.tail(1), 1))
    assert (refusal.code, refusal.reason, refusal.retry) == (Code.RESOURCE_EXHAUSTED, "TOO_MANY_TAILS", True)
    began = time.monotonic()
    ids = publish(publisher, 50)
    assert time.monotonic() - began < patience(5)
    for tail in tails:
        assert take(tail, 50) == ids
        tail.cancel()
    until(lambda: take(operator.tail(1), 1) == ids[-1:], 5, "there is room again")
    for last in (-1, 1001):
        assert refusal_of(lambda last=last: take(operator.tail(last), 1)).fields == ("last",)  # type: ignore[misc]


def test_it_outlasts_an_outage_and_ends_when_the_sidecar_stops() -> None:
    with RedisServer(appendonly=True) as server, SidecarProcess(to_redis(server)) as sidecar, ExitStack() as stack:
        operator, publisher = stack.enter_context(operating(sidecar)), stack.enter_context(calling(sidecar))
        first = publish(publisher, 1)
        with operator.tailing(1) as tail:
            assert take(tail, 1) == first
            server.restart()
            second = publish(publisher, 1)
            assert take(tail, 1) == second
            server.kill()
            assert refusal_of(lambda: take(operator.tail(), 1)).code is Code.UNAVAILABLE
            server.start()
            began = time.monotonic()
            assert sidecar.terminate() == 0
            assert time.monotonic() - began < patience(5)
            with pytest.raises(grpc.RpcError) as ended:
                take(tail, 1)
            assert read_error(ended.value).reason == "SHUTTING_DOWN"
