"""What the guard against doing things twice promises, with a real server."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import redis

from modelready.keys import Keys
from modelready.seen import SeenGuard
from tests.harness.redis_server import RedisServer
from tests.harness.waiting import until

EVENT = "0190-event"
KEY = Keys("model-ready").done("deployer", EVENT)


def value(server: RedisServer) -> Any:
    return server.execute("GET", KEY)


def test_the_first_does_it_and_later_ones_learn_that_it_is_done(make_guard: Any, server: RedisServer) -> None:
    guard = make_guard(ttl_seconds=100)
    firsts = []
    for _ in range(3):
        with guard.once(EVENT) as first:
            firsts.append(first)
    assert firsts == [True, False, False]
    assert value(server) == b"done"
    assert 99_000 < server.execute("PTTL", KEY) <= 100_000


def test_events_and_groups_are_apart(make_guard: Any) -> None:
    for group, event in (("deployer", EVENT), ("deployer", "another"), ("auditor", EVENT)):
        with make_guard(group).once(event) as first:
            assert first


def test_a_block_that_raises_leaves_it_to_be_done(make_guard: Any, server: RedisServer) -> None:
    guard = make_guard()
    with pytest.raises(LookupError), guard.once(EVENT):
        raise LookupError
    assert value(server) is None
    with guard.once(EVENT) as first:
        assert first


def test_who_comes_while_it_is_done_waits_for_the_end(make_guard: Any) -> None:
    guard, firsts = make_guard(), []
    doing, finish = threading.Event(), threading.Event()

    def do() -> None:
        with guard.once(EVENT) as first:
            firsts.append(first)
            doing.set()
            assert finish.wait(10)

    threads = [threading.Thread(target=do) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert doing.wait(5)
    threading.Timer(0.2, finish.set).start()
    for thread in threads:
        thread.join(10)
    assert sorted(firsts) == [False, False, False, True]


def test_who_waits_takes_over_when_it_fails(make_guard: Any) -> None:
    guard = make_guard()
    took_over: list[bool] = []

    def wait() -> None:
        with guard.once(EVENT) as first:
            took_over.append(first)

    thread = threading.Thread(target=wait)
    with pytest.raises(LookupError), guard.once(EVENT):  # noqa: PT012 - the thread starts within
        thread.start()
        time.sleep(0.1)
        assert took_over == []
        raise LookupError
    thread.join(10)
    assert took_over == [True]


def test_a_dead_one_s_lease_runs_out(make_guard: Any, server: RedisServer) -> None:
    server.execute("SET", KEY, "the token of one that died", "PX", 300)
    began = time.monotonic()
    with make_guard().once(EVENT) as first:
        assert first
    assert time.monotonic() - began > 0.2


def test_a_live_one_s_lease_does_not(make_guard: Any) -> None:
    guard = make_guard(lease_seconds=0.3)
    with guard.once(EVENT) as first:
        assert first
        with pytest.raises(TimeoutError, match=EVENT), make_guard(wait_seconds=0.7).once(EVENT):
            pass


def test_redis_going_away_in_between_loses_no_mark(make_guard: Any, server: RedisServer) -> None:
    with make_guard().once(EVENT) as first:
        assert first
        server.kill()
        threading.Timer(0.5, server.start).start()
    until(lambda: value(server) == b"done", 5, "it is marked")


def test_an_outage_for_longer_than_it_waits_is_raised(make_guard: Any, server: RedisServer) -> None:
    server.kill()
    try:
        with pytest.raises(redis.ConnectionError), make_guard(wait_seconds=0.2).once(EVENT):
            pytest.fail("nobody knows whether it is the first")
    finally:
        server.start()


def test_refused_rights_are_raised_at_once(server: RedisServer) -> None:
    with server.client(username="guard", password="secret") as client:
        guard = SeenGuard(client, "deployer", queue="another")
        with pytest.raises(redis.ResponseError, match="permission"), guard.once(EVENT):
            pytest.fail("nobody knows whether it is the first")


@pytest.mark.parametrize("wrong", [{"group": ""}, {"ttl_seconds": 0}, {"lease_seconds": 0}])
def test_what_cannot_guard_is_refused(wrong: dict[str, Any], make_guard: Any) -> None:
    with pytest.raises(ValueError, match=r"group|seconds"):
        make_guard(**wrong)
