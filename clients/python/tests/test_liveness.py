"""Who counts as dead, and what becomes of the entries of those that are. With a real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

from clients.python.tests.test_consumer import STREAM, environ, publish
from clients.python.tests.test_consumer_group import died, names, server, shared, summary  # noqa: F401
from modelready._consumer.in_flight import Entry, InFlight
from modelready._consumer.lanes import Lanes
from modelready._consumer.liveness import Liveness
from modelready._consumer.options import checked_options
from modelready.keys import REPLAY_CONSUMER, WAITING_CONSUMER, Keys
from modelready.redis.cluster import server_from_env
from modelready.redis.faults import RedisError, is_no_group
from modelready.redis.pool import Pool
from modelready.v1.event_pb2 import ModelReadyToDeploy
from tests.harness.redis_server import RedisServer
from tests.harness.waiting import until

KEYS = Keys("model-ready")
CLAIM = 0.6


class Consumer(NamedTuple):
    """What a loop has, without the loop."""

    lanes: Lanes
    in_flight: InFlight
    liveness: Liveness


@asynccontextmanager
async def consumer(server: RedisServer, name: str = "one", claim_seconds: float = CLAIM) -> AsyncIterator[Consumer]:  # noqa: F811
    pool = Pool(server_from_env(environ(server), STREAM))
    options = checked_options(group="deployer", consumer_name=name)._replace(claim_seconds=claim_seconds)
    lanes, in_flight = Lanes(pool, options), InFlight(claim_seconds, lambda: None, lambda: None)
    await lanes.create_group("0")
    yield Consumer(lanes, in_flight, Liveness(pool, lanes, in_flight, options))
    await pool.close()


def is_alive(server: RedisServer, name: str) -> bool:  # noqa: F811
    return bool(server.execute("EXISTS", KEYS.alive("deployer", name)))


def test_who_shows_no_sign_of_life_for_half_a_claim_is_dead(
    server: RedisServer,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    publish(server, 1)
    publish(server, 1, name="n")
    died(server, "dead", 2)

    async def look() -> float:
        """Seconds from the last sign of life to the look that takes over."""
        alive_at = 0.0
        async with consumer(server) as one:
            while True:
                now = time.monotonic()
                alive_at = now if is_alive(server, "dead") else alive_at
                await one.liveness.sweep()
                if "dead" not in names(server):
                    return time.monotonic() - alive_at
                assert summary(server) == {"dead": 2}
                await asyncio.sleep(0.01)

    assert asyncio.run(asyncio.wait_for(look(), 20)) >= CLAIM / 2
    assert summary(server) == {WAITING_CONSUMER: 2}
    assert f"group deployer: took over 2 entries of {STREAM}" in caplog.text


def test_a_sweep_of_a_stream_that_is_gone_finds_the_group_gone(server: RedisServer) -> None:  # noqa: F811
    """Which the loop creates again; any other error would end it."""

    async def sweep() -> None:
        async with consumer(server) as one:
            server.execute("DEL", STREAM)
            with pytest.raises(RedisError) as raised:
                await one.liveness.sweep()
            assert is_no_group(raised.value)

    asyncio.run(sweep())


def test_time_without_redis_makes_nobody_dead(server: RedisServer) -> None:  # noqa: F811
    publish(server, 1)
    died(server, "dead", 1)

    async def look() -> None:
        async with consumer(server) as one:
            await asyncio.to_thread(until, lambda: not is_alive(server, "dead"), 20, "its key has expired")
            await one.liveness.sweep()
            await asyncio.sleep(2 * CLAIM)
            one.liveness.forget_others()
            await one.liveness.sweep()

    asyncio.run(look())
    assert summary(server) == {"dead": 1}


def test_who_lives_keeps_its_entries_however_old_their_claims_are(server: RedisServer) -> None:  # noqa: F811
    publish(server, 1)
    died(server, "other", 1)
    server.execute("SET", KEYS.alive("deployer", "other"), "1")

    async def look() -> None:
        async with consumer(server) as one:
            end = time.monotonic() + 3 * CLAIM
            while time.monotonic() < end:
                await one.liveness.sweep()
                await asyncio.sleep(CLAIM / 4)

    asyncio.run(look())
    assert summary(server) == {"other": 1}


def test_names_of_consumers_that_ended_do_not_stay(server: RedisServer) -> None:  # noqa: F811
    """One that has nothing pending is forgotten after ten claims."""
    publish(server, 1)
    died(server, "busy", 1)

    async def look() -> None:
        async with consumer(server, claim_seconds=0.05) as one:
            server.execute("SET", KEYS.alive("deployer", "busy"), "1")
            server.execute("XGROUP", "CREATECONSUMER", STREAM, "deployer", "gone")
            await one.liveness.sweep()
            assert "gone" in names(server)
            while "gone" in names(server):
                await one.liveness.sweep()
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(look(), 20))
    assert names(server) == ["busy"]


def test_a_renewal_shows_what_is_lost_and_confirms_the_rest(server: RedisServer) -> None:  # noqa: F811
    mine, lost = [publish(server, 1, name=name)[0] for name in "ab"]

    async def renew() -> tuple[list[str], bool]:
        async with consumer(server) as one:
            given = (await one.lanes.turn(room=2)).entries
            long_ago = time.monotonic() - 10
            one.in_flight.add([Entry(each.id, each.lane, ModelReadyToDeploy()) for each in given], [], long_ago)
            assert one.in_flight.is_doubtful(time.monotonic())
            server.execute("XCLAIM", STREAM, "deployer", "another", "0", lost)
            await one.liveness.renew()
            return list(one.in_flight.entries), one.in_flight.is_doubtful(time.monotonic())

    assert asyncio.run(renew()) == ([mine], False)
    assert is_alive(server, "one")


def test_a_leave_gives_back_all_with_its_attempts_and_takes_the_name_off(server: RedisServer) -> None:  # noqa: F811
    begun, new = [publish(server, 1, name=name)[0] for name in "ab"]

    async def leave() -> list[tuple[str, int]]:
        async with consumer(server) as one, consumer(server, "two") as two:
            await one.lanes.turn(room=2, demand=1)
            await one.liveness.leave({begun: 1, new: 0})
            return [(each.id, each.attempts) for each in (await two.lanes.turn(room=2)).entries]

    assert sorted(asyncio.run(leave())) == [(begun, 1), (new, 0)]
    assert "one" not in names(server)
    assert not is_alive(server, "one")


def test_what_was_replayed_goes_into_the_lanes(server: RedisServer) -> None:  # noqa: F811
    (entry,) = publish(server, 1)

    async def sweep() -> None:
        async with consumer(server) as one:
            with server.client() as client:
                client.xreadgroup("deployer", REPLAY_CONSUMER, {STREAM: ">"})
            await one.liveness.sweep()
            assert summary(server) == {REPLAY_CONSUMER: 1}  # younger than a claim: it is left alone
            with server.client() as client:
                client.xclaim(
                    STREAM, "deployer", REPLAY_CONSUMER, 0, [entry], idle=86_400_000, retrycount=0, justid=True
                )
            await one.liveness.sweep()
            assert summary(server) == {WAITING_CONSUMER: 1}
            assert [each.id for each in (await one.lanes.turn(room=1)).entries] == [entry]

    asyncio.run(sweep())


def test_a_sweep_puts_back_ten_pages_of_a_dead_one_at_most_and_the_next_goes_on_there() -> None:
    asked: list[str] = []

    class Endless:
        async def release(self, _name: bytes, *, after: str, idle_seconds: float) -> tuple[str, int]:
            asked.append(after)
            return f"({len(asked)}-0", 100

    async def sweep() -> None:
        lanes: Any = Endless()
        nothing: Any = None
        liveness = Liveness(nothing, lanes, nothing, checked_options(group="deployer", consumer_name="one"))
        for _ in range(2):
            assert await liveness._release_dead(b"dead", {"pending": 5000, "idle": 0}, 0) == (1000, True)

    asyncio.run(sweep())
    assert asked == ["-", *(f"({number}-0" for number in range(1, 20))]
