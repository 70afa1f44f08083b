"""What it costs to watch a queue: one sidecar looks for all, whatever stands in the stream and however many groups."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis

from modelready.credentials import StaticCredentials
from modelready.keys import Keys
from modelready.redis.settings import RedisSettings
from sidecar.errors import Unavailable
from sidecar.metrics import Metrics
from sidecar.redisstream import shared_inspector
from sidecar.redisstream.connection import RedisConnection
from sidecar.redisstream.inspector import RedisInspector
from sidecar.redisstream.shared_inspector import SharedInspector
from sidecar.settings import QueueSettings
from tests.harness.redis_server import RedisServer, available_binaries
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import auntil
from tests.integration.calls import to_redis

KEYS = Keys("model-ready")
QUEUE = KEYS.queue
MIDDLE = 30_000


@pytest.fixture(scope="module", params=sorted(available_binaries()))
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    acl = ["user old on >old ~* -@all +@all resetkeys ~{model-ready}:events ~{model-ready}:dead-letters"]
    with RedisServer(binary=available_binaries()[request.param], acl=acl) as running:
        yield running


class Looker:
    """What a sidecar looks with."""

    def __init__(self, server: RedisServer, *, user: str = "") -> None:
        settings = RedisSettings(host=server.host, port=server.port, tls=False, timeout=1.0)
        credentials = StaticCredentials(username=user, token=user) if user else StaticCredentials()
        self.connection = RedisConnection(settings, credentials, Metrics(), KEYS.events)
        self.inspector = RedisInspector(self.connection, QueueSettings())
        self.looks = SharedInspector(self.inspector, self.connection, QUEUE)


@pytest.fixture
async def lookers(server: RedisServer) -> AsyncIterator[list[Looker]]:
    async with AsyncExitStack() as stack:
        made = [Looker(server) for _ in range(3)]
        for one in made:
            stack.push_async_callback(one.connection.close)
        yield made


def fill(client: redis.Redis, count: int, *, spread: int = 0) -> None:
    """Entries, and groups that stand in the middle of them."""
    with client.pipeline(transaction=False) as pipe:
        for number in range(1, count + 1):
            pipe.xadd(KEYS.events, {"data": "x" * 100}, id=f"{number}-0")
        pipe.execute()
        for number in range(spread):
            pipe.xgroup_create(KEYS.events, f"g{number}", id=f"{count * (number + 1) // (spread + 1)}-0")
        pipe.execute()


def calls(server: RedisServer, command: str) -> int:
    return int(server.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


async def test_one_looks_and_the_others_read(server: RedisServer, client: redis.Redis, lookers: list[Looker]) -> None:
    fill(client, 5000, spread=3)
    client.xadd(KEYS.dead_letters, {"dl_reason": "A"})
    server.execute("CONFIG", "RESETSTAT")
    first, second, third = lookers
    seen = await first.looks.observe()
    assert [group.depth for group in seen.state.groups] == [3750, 2500, 1250]
    assert seen.dead.reasons == [("A", 1)]
    assert await second.looks.observe() == seen == await third.looks.observe()
    depths = [await one.looks.depth() for one in lookers]
    assert {one.depth for one in depths} == {3750}
    assert calls(server, "xinfo|groups") == 2  # the state's and the depth's
    assert client.pttl(KEYS.observed("state")) > 0
    assert client.pttl(KEYS.observed("depth")) > 0
    # Each has what the first one counted.
    server.execute("CONFIG", "RESETSTAT")
    state = await second.inspector.inspect()
    assert [group.depth for group in state.groups] == [3750, 2500, 1250]
    assert calls(server, "evalsha") == 0


async def test_a_sidecar_that_dies_with_the_turn_is_replaced(
    server: RedisServer, client: redis.Redis, lookers: list[Looker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_inspector, "_STATE_SECONDS", 0.3)
    fill(client, 10, spread=1)
    first, second, _ = lookers
    await first.looks.observe()
    assert (await second.looks.observe()).state.length == 10
    client.xadd(KEYS.events, {"data": "x"}, id="11-0")
    client.set(KEYS.observed_turn("state"), "1", px=200)  # taken by one that is killed now

    async def sees_it() -> bool:
        return (await second.looks.observe()).state.length == 11

    await auntil(sees_it, 3, "another one looks")


@pytest.mark.parametrize("found", [b"", b"[]", b"\xff", b'{"version": 99}', b'{"version": 1}'], ids=repr)
async def test_what_cannot_be_read_is_looked_at_again(client: redis.Redis, lookers: list[Looker], found: bytes) -> None:
    fill(client, 10, spread=1)
    for what in ("state", "depth"):
        client.set(KEYS.observed(what), found)
        client.set(KEYS.observed_turn(what), "1", px=60_000)
    assert (await lookers[0].looks.observe()).state.depth == 5
    assert (await lookers[0].looks.depth()).depth == 5


async def test_without_the_right_each_looks_for_itself_and_says_so_once(
    server: RedisServer, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    fill(client, 10, spread=1)
    looker = Looker(server, user="old")
    for _ in range(3):
        assert (await looker.looks.depth()).depth == 5
    assert (await looker.looks.observe()).state.depth == 5
    assert caplog.text.count("looks at the queue for itself alone") == 1
    await looker.connection.close()


async def test_while_redis_is_away_nothing_is_known_and_afterwards_all_is(client: redis.Redis) -> None:
    with RedisServer(appendonly=True) as server:
        with server.client() as other:
            fill(other, 10, spread=1)
        looker = Looker(server)
        assert (await looker.looks.depth()).depth == 5
        server.kill()
        for ask in (looker.looks.depth, looker.looks.observe):
            with pytest.raises(Unavailable):
                await ask()
        server.start()
        assert (await looker.looks.observe()).state.depth == 5
        await looker.connection.close()


async def test_counting_the_middle_of_a_long_stream_takes_its_time_and_is_exact_then(
    client: redis.Redis, lookers: list[Looker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one sidecar counted the next one has: their turns alternate."""
    monkeypatch.setattr(shared_inspector, "_STATE_SECONDS", 0.2)
    fill(client, MIDDLE)
    client.xgroup_create(KEYS.events, "g", id=f"{MIDDLE // 2}-0")
    with client.pipeline(transaction=False) as pipe:
        for number in range(1, 2001):  # far apart in time, so that an estimate is wrong
            pipe.xadd(KEYS.events, {"data": "x"}, id=f"{number * 1_000_000}-0")
        pipe.execute()
    wanted, turn = MIDDLE // 2 + 2000, 0

    async def exact() -> bool:
        nonlocal turn
        turn += 1
        client.delete(KEYS.observed_turn("state"))
        return (await lookers[turn % 3].looks.observe()).state.depth == wanted

    await auntil(exact, 20, "it was counted")


def idle_cost(server: RedisServer, seconds: float, **env: str) -> tuple[float, float]:
    """The share of a core that the commands of an idle sidecar take, and how many commands a second."""
    with SidecarProcess(to_redis(server, **env)):
        server.execute("CONFIG", "RESETSTAT")
        time.sleep(seconds)
        stats: dict[str, Any] = server.info("commandstats")
    del stats["cmdstat_config|resetstat"]
    inside = {"cmdstat_xrange", "cmdstat_xrevrange", "cmdstat_xlen"}  # of scripts, mostly: counted with them
    spent = sum(stat["usec"] for name, stat in stats.items() if name not in inside)
    return spent / 1e6 / seconds, sum(stat["calls"] for stat in stats.values()) / seconds


def test_an_idle_sidecar_costs_redis_the_same_whatever_stands_there(server: RedisServer, client: redis.Redis) -> None:
    """Groups in the middle and at the end of a stream, whose lag Redis does not know."""
    least, _ = idle_cost(server, 3)
    assert least < 0.01
    fill(client, 100_000, spread=3)
    with client.pipeline(transaction=False) as pipe:
        for number in range(300):
            pipe.xgroup_create(KEYS.events, f"late{number}", id="$")
        for _ in range(10):
            pipe.xadd(KEYS.events, {"data": "x"})
        pipe.execute()
    groups: Any = client.xinfo_groups(KEYS.events)
    assert [group["lag"] for group in groups] == [None] * 303
    share, commands = idle_cost(server, 8, QUEUE_MAX_DEPTH="1000000")
    assert share < 0.015  # 0.004 on a quiet machine; the first count is in it
    assert commands < 150
