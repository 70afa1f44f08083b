"""No event is begun before the one before it of its model has ended, in all consumers of a group together."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from modelready import model_ready
from modelready.entry import encode
from tests.chaos.test_consumers_killed import GROUP, KEYS, Fleet, Load, check, fleet, pending
from tests.harness.redis_server import RedisServer
from tests.harness.relay import Relay
from tests.harness.waiting import until

pytestmark = pytest.mark.chaos

CLAIM = 1.0


def publish(server: RedisServer, count: int, models: int) -> list[str]:
    """Each model's versions in order, the models one after the other."""
    published = []
    with server.client() as client:
        for start in range(0, count, 500):
            with client.pipeline(transaction=False) as pipeline:
                for number in range(start, min(start + 500, count)):
                    version, model = divmod(number, models)
                    event = model_ready(name=f"team/{model}", version=version, uri="s3://models/")
                    published.append(event.event_id)
                    pipeline.xadd(KEYS.events, encode(event))
                pipeline.execute()
    return published


def finish(server: RedisServer, *fleets: Fleet, published: list[str], seconds: float = 60) -> None:
    """Wait until all is handled, and check it."""

    def over() -> bool:
        with server.client() as client:
            (group,) = client.xinfo_groups(KEYS.events)
            (newest,) = client.xrevrange(KEYS.events, count=1)
        return bool(group["pending"] == 0 and group["last-delivered-id"] == newest[0])

    until(over, seconds, "all are acknowledged")
    attempts = sorted((each for one in fleets for each in one.attempts()), key=lambda each: each.begin)
    check(attempts, published)
    assert server.execute("XLEN", KEYS.dead_letters) == 0
    assert server.execute("ZCARD", KEYS.waiting(GROUP)) == server.execute("HLEN", KEYS.lanes(GROUP)) == 0


@pytest.mark.parametrize(
    ("size", "models", "count"),
    [
        (2, 1, 3_000),
        (4, 8, 5_000),
        (10, 200, 5_000),
        pytest.param(10, 200, 50_000, marks=pytest.mark.soak),
        pytest.param(20, 1, 200_000, marks=pytest.mark.soak),
        pytest.param(20, 1000, 1_000_000, marks=pytest.mark.soak),
    ],
)
def test_with_no_fault(tmp_path: Path, size: int, models: int, count: int) -> None:
    with RedisServer() as server, fleet(tmp_path, server, size=size, HANDLER_SECONDS=0, CLAIM_SECONDS=30) as consumers:
        published = publish(server, count, models)
        finish(server, consumers, published=published, seconds=30 + count / 500)


def test_one_of_them_has_a_slow_connection(tmp_path: Path) -> None:
    """Answers that are old when they arrive judge nothing."""
    near, far = tmp_path / "near", tmp_path / "far"
    near.mkdir()
    far.mkdir()
    with RedisServer() as server, Relay(server.port) as relay:
        relay.delay(0.02)
        with (
            fleet(near, server, size=2, CLAIM_SECONDS=5) as quick,
            fleet(far, server, size=1, CLAIM_SECONDS=5, REDIS_PORT=relay.port) as slow,
        ):
            with Load(server, models=3, per_second=200) as load:
                slow.wait_for_work(5)
                quick.wait_for_work(100)
            finish(server, quick, slow, published=load.published)


def away(server: RedisServer, relay: Relay) -> None:
    server.kill()
    time.sleep(2 * CLAIM)
    server.start()


def frozen(server: RedisServer, relay: Relay) -> None:
    server.freeze()
    time.sleep(2 * CLAIM)
    server.thaw()


def restarted(server: RedisServer, relay: Relay) -> None:
    server.kill()
    server.start()


def cut(server: RedisServer, relay: Relay) -> None:
    relay.cut()


def cut_in_a_request(server: RedisServer, relay: Relay) -> None:
    """The server carries it out, and the reply is lost."""
    relay.cut_after(200)


@pytest.mark.parametrize(("fault", "times"), [(away, 1), (frozen, 1), (restarted, 3), (cut, 4), (cut_in_a_request, 4)])
def test_through_faults_of_redis(tmp_path: Path, fault: Callable[[RedisServer, Relay], None], times: int) -> None:
    """All consumers live on, also while Redis is away for longer than their claim: nobody is taken for dead."""
    with (
        RedisServer(appendonly=True) as server,
        Relay(server.port) as relay,
        fleet(tmp_path, server, size=3, CLAIM_SECONDS=CLAIM, REDIS_PORT=relay.port, HANDLER_SECONDS=0.01) as consumers,
    ):
        published = publish(server, 1_000, 12)
        for _ in range(times):
            consumers.wait_for_work(20)
            fault(server, relay)
        finish(server, consumers, published=published)


@pytest.mark.soak
@pytest.mark.parametrize("fault", [away, frozen, restarted, cut, cut_in_a_request])
def test_through_many_faults_of_redis(tmp_path: Path, fault: Callable[[RedisServer, Relay], None]) -> None:
    test_through_faults_of_redis(tmp_path, fault, 10)


@pytest.mark.soak
def test_through_kills_of_many(tmp_path: Path) -> None:
    with RedisServer() as server, fleet(tmp_path, server, size=10, CLAIM_SECONDS=CLAIM) as consumers:
        with Load(server, models=100, per_second=1000) as load:
            for number in range(60):
                consumers.wait_for_work(100)
                consumers.kill(number % 10)
        until(lambda: pending(server) == 0, 60, "all are acknowledged")
        finish(server, consumers, published=load.published)
