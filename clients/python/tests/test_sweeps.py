"""Who is taken for dead, and what becomes of what it had. With a real server, sweep by sweep."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from clients.python.tests.test_consumer import ACL, STREAM, environ
from clients.python.tests.test_lane_steps import add, claim, free, join, owners, pending, waiting  # noqa: F401
from modelready._consumer import liveness as liveness_module
from modelready._consumer.in_flight import Entry, InFlight
from modelready._consumer.lanes import Lanes
from modelready._consumer.liveness import Liveness
from modelready._consumer.options import checked_options
from modelready.keys import REPLAY_CONSUMER, WAITING_CONSUMER, Keys
from modelready.redis.cluster import server_from_env
from modelready.redis.pool import Pool
from modelready.v1.event_pb2 import ModelReadyToDeploy
from tests.harness.redis_server import RedisServer

CLAIM = 60.0
KEYS = Keys("model-ready")


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    with RedisServer(acl=[ACL]) as server:
        yield server


class Sweeper:
    """A consumer of which only the liveness runs, when a test says so."""

    def __init__(self, server: RedisServer, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._pool = Pool(server_from_env(environ(server), STREAM))
        given = checked_options(group="deployer", consumer_name="sweeper", **{"claim_seconds": CLAIM, **options})
        lanes = Lanes(self._pool, given)
        self.flight = InFlight(CLAIM, lambda: None, lambda: None)
        self.liveness = Liveness(self._pool, lanes, self.flight, given)
        self._loop.run_until_complete(lanes.create_group("0"))

    def sweep(self) -> None:
        self._loop.run_until_complete(self.liveness.sweep())

    def renew(self) -> None:
        self._loop.run_until_complete(self.liveness.renew())

    def later(self, seconds: float) -> None:
        """As if so much time had passed since the last look."""
        missing = self.liveness._missing_since
        missing.update({name: since - seconds for name, since in missing.items()})

    def close(self) -> None:
        self._loop.run_until_complete(self._pool.close())
        self._loop.close()


@pytest.fixture
def sweeper(server: RedisServer) -> Iterator[Sweeper]:
    made = Sweeper(server)
    yield made
    made.close()


def names(server: RedisServer) -> set[str]:
    with server.client() as client:
        return {each["name"].decode() for each in client.xinfo_consumers(STREAM, "deployer")}


@pytest.fixture
def dead(server: RedisServer, join: Callable[..., Any]) -> list[str]:  # noqa: F811
    """It had two entries, and its alive key is gone."""
    entries = add(server, "ab")
    join("dead").turn(room=2, demand=1)
    server.execute("DEL", KEYS.alive("deployer", "dead"))
    claim(server, "dead", *entries, idle=int(CLAIM * 2000))
    return entries


@pytest.mark.usefixtures("dead")
def test_one_is_dead_when_it_was_missing_for_half_a_claim(server: RedisServer, sweeper: Sweeper) -> None:
    sweeper.sweep()
    sweeper.later(CLAIM / 2 - 5)
    sweeper.sweep()
    assert {consumer for consumer, _ in pending(server).values()} == {"dead"}
    sweeper.later(6)
    sweeper.sweep()
    assert list(pending(server).values()) == [(WAITING_CONSUMER, 1), (WAITING_CONSUMER, 0)]
    assert (owners(server), free(server), waiting(server)) == ({"a": "", "b": ""}, {"a", "b"}, 2)
    assert "dead" not in names(server)


@pytest.mark.usefixtures("dead")
def test_one_that_says_that_it_lives_keeps_what_it_has(server: RedisServer, sweeper: Sweeper) -> None:
    sweeper.sweep()
    server.execute("SET", KEYS.alive("deployer", "dead"), "1")
    sweeper.later(CLAIM)
    sweeper.sweep()
    server.execute("DEL", KEYS.alive("deployer", "dead"))
    sweeper.sweep()  # it is missing from now on
    assert {consumer for consumer, _ in pending(server).values()} == {"dead"}


@pytest.mark.usefixtures("dead")
def test_while_redis_is_away_nobody_is_missing(server: RedisServer, sweeper: Sweeper) -> None:
    sweeper.sweep()
    sweeper.later(CLAIM)
    sweeper.liveness.forget_others()
    sweeper.sweep()
    assert {consumer for consumer, _ in pending(server).values()} == {"dead"}


def test_what_a_dead_one_was_given_within_a_claim_stays(dead: list[str], server: RedisServer, sweeper: Sweeper) -> None:
    claim(server, "dead", dead[0])  # a moment ago
    sweeper.sweep()
    sweeper.later(CLAIM)
    sweeper.sweep()
    assert [consumer for consumer, _ in pending(server).values()] == ["dead", WAITING_CONSUMER]
    assert "dead" in names(server)


def test_a_dead_one_s_many_entries_go_page_by_page(
    server: RedisServer, sweeper: Sweeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness_module, "_MAX_PAGES", 2)
    entries = add(server, "a" * 250)
    with server.client() as client:
        client.xreadgroup("deployer", "dead", {STREAM: ">"}, count=250)
    claim(server, "dead", *entries, idle=int(CLAIM * 2000))
    sweeper.sweep()
    sweeper.later(CLAIM)
    sweeper.sweep()
    assert waiting(server) == 200
    assert sweeper.liveness.sweep_at < time.monotonic() + 0.2  # there is more
    sweeper.sweep()
    assert waiting(server) == 250
    assert sweeper.liveness.sweep_at > time.monotonic() + 1
    assert "dead" not in names(server)


@pytest.mark.parametrize(("pending_entries", "is_released"), [(1001, False), (1000, True)])
def test_above_many_that_wait_no_more_are_added_of_one_that_has_many(
    server: RedisServer, sweeper: Sweeper, monkeypatch: pytest.MonkeyPatch, pending_entries: int, is_released: bool
) -> None:
    monkeypatch.setattr(liveness_module, "_MAX_WAITING", 1)
    server.execute("ZADD", KEYS.waiting("deployer"), "0", "1:x 1", "0", "1:x 2")
    with server.client() as client, client.pipeline() as pipe:
        for _ in range(pending_entries):
            pipe.xadd(STREAM, {"partitionkey": "a"})
        pipe.execute()
        client.xreadgroup("deployer", "dead", {STREAM: ">"}, count=pending_entries)
        ids = [entry.decode() for entry, _ in client.xrange(STREAM)]
    claim(server, "dead", *ids, idle=int(CLAIM * 2000))
    peer = {"pending": pending_entries, "idle": 0}
    found = sweeper._loop.run_until_complete(sweeper.liveness._release_dead(b"dead", peer, 2))
    assert bool(found[0]) is is_released


@pytest.mark.parametrize(("claims", "is_gone"), [(10, True), (9.9, False)])
def test_a_name_without_entries_goes_after_ten_claims(
    server: RedisServer, sweeper: Sweeper, claims: float, is_gone: bool
) -> None:
    server.execute("XGROUP", "CREATECONSUMER", STREAM, "deployer", "gone")
    peer = {"pending": 0, "idle": int(claims * CLAIM * 1000)}
    found = sweeper._loop.run_until_complete(sweeper.liveness._release_dead(b"gone", peer, 0))
    assert found == (0, False)
    assert ("gone" in names(server)) is not is_gone


@pytest.mark.parametrize(("idle", "is_taken"), [(CLAIM * 2, True), (CLAIM / 2, False)])
def test_what_was_replayed_goes_into_the_lanes(
    server: RedisServer, sweeper: Sweeper, idle: float, is_taken: bool
) -> None:
    (entry,) = add(server, "a")
    claim(server, REPLAY_CONSUMER, entry, idle=int(idle * 1000), force=True, retrycount=0)
    sweeper.sweep()
    assert pending(server) == {entry: (WAITING_CONSUMER if is_taken else REPLAY_CONSUMER, 0)}
    assert free(server) == ({"a"} if is_taken else set())


def test_what_waits_in_no_lane_is_put_into_one(server: RedisServer, sweeper: Sweeper) -> None:
    """Somebody deleted the key."""
    entries = add(server, "ab")
    claim(server, WAITING_CONSUMER, *entries, force=True, retrycount=0)
    sweeper.sweep()
    assert (waiting(server), free(server)) == (2, {"a", "b"})


def test_a_renewal_says_what_is_lost_and_when_the_next_is_due(
    server: RedisServer, sweeper: Sweeper, caplog: pytest.LogCaptureFixture
) -> None:
    kept, lost = add(server, "ab")
    claim(server, "sweeper", kept, force=True, idle=500_000)
    claim(server, "other", lost, force=True)
    sweeper.flight.add(
        [Entry(entry, lane, ModelReadyToDeploy()) for entry, lane in ((kept, b"a"), (lost, b"b"))], [], 1.0
    )
    began = time.monotonic()
    sweeper.renew()
    assert list(sweeper.flight.entries) == [kept]
    assert caplog.messages == [f"entry {lost} was taken over by another consumer"]
    assert began <= sweeper.flight.confirmed_at <= time.monotonic()
    assert sweeper.liveness.renew_at == pytest.approx(sweeper.flight.confirmed_at + CLAIM / 6)
    assert server.execute("EXISTS", KEYS.alive("deployer", "sweeper")) == 1
    with server.client() as client:
        (row,) = client.xpending_range(STREAM, "deployer", kept, kept, 1)
    assert row["time_since_delivered"] < 400_000


def test_one_s_own_lanes_go_on_where_nothing_of_them_is_in_flight(server: RedisServer, sweeper: Sweeper) -> None:
    (entry,) = add(server, "a")
    claim(server, WAITING_CONSUMER, entry, force=True)
    server.execute("ZADD", KEYS.waiting("deployer"), "0", f"1:a {entry.partition('-')[0]:0>20}-{0:020d}")
    server.execute("HSET", KEYS.lanes("deployer"), "a", "sweeper")
    sweeper.sweep()
    assert sweeper.flight.ended_lanes(9) == [b"a"]
    sweeper.flight.went_on([b"a"])
    sweeper.sweep()  # not at each sweep
    assert sweeper.flight.ended_lanes(9) == []
