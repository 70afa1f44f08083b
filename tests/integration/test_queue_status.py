"""The status is right: against a count by brute force, in every case in which XINFO's lag is null or wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import redis

from modelready.credentials import StaticCredentials
from modelready.keys import Keys
from modelready.redis.settings import RedisSettings
from sidecar.metrics import Metrics
from sidecar.redisstream.connection import RedisConnection
from sidecar.redisstream.inspector import RedisInspector
from sidecar.settings import QueueSettings
from tests.harness.ports import LOOPBACK
from tests.harness.redis_server import RedisServer, available_binaries
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.topology import Replicated
from tests.harness.waiting import until
from tests.integration.calls import calling, model_event, to_redis
from tests.integration.operators import bury, give_up, operating

KEYS = Keys("model-ready")
GROUP = "g"


@pytest.fixture(scope="module", params=sorted(available_binaries()))
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(binary=available_binaries()[request.param]) as running:
        yield running


@pytest.fixture
async def inspector(server: RedisServer) -> AsyncIterator[RedisInspector]:
    settings = RedisSettings(host=server.host, port=server.port, tls=False)
    connection = RedisConnection(settings, StaticCredentials(), Metrics(), KEYS.events)
    yield RedisInspector(connection, QueueSettings())
    await connection.close()


class Stream:
    """The queue's stream, with ids that are known: entry n has the id `<n>-0`."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self._last = 0

    def add(self, count: int) -> None:
        with self.client.pipeline(transaction=False) as pipe:
            for _ in range(count):
                self._last += 1
                pipe.xadd(KEYS.events, {"n": self._last}, id=f"{self._last}-0")
            pipe.execute()

    def group(self, start: str = "0") -> None:
        self.client.xgroup_create(KEYS.events, GROUP, id=start, mkstream=True)

    def read(self, count: int, *, ack: bool = True) -> None:
        reply: Any = self.client.xreadgroup(GROUP, "c", {KEYS.events: ">"}, count=count)
        ids = [entry_id for entry_id, _ in next(iter(reply.values()))[0]] if reply else []
        if ack and ids:
            self.client.xack(KEYS.events, GROUP, *ids)

    def delete(self, *numbers: int) -> None:
        self.client.xdel(KEYS.events, *(f"{number}-0" for number in numbers))

    def trim(self, length: int) -> None:
        self.client.xtrim(KEYS.events, maxlen=length, approximate=False)

    def set_back(self, number: int, read: int | None = None) -> None:
        self.client.xgroup_setid(KEYS.events, GROUP, f"{number}-0", entries_read=read)

    def open(self) -> tuple[int, int, int | None]:
        """Pending and undelivered entries, and the oldest of both, counted one by one."""
        pending: Any = self.client.xpending_range(KEYS.events, GROUP, "-", "+", 100_000)
        groups: Any = self.client.xinfo_groups(KEYS.events)
        undelivered: Any = self.client.xrange(KEYS.events, f"({groups[0]['last-delivered-id'].decode()}")
        ids = [one["message_id"] for one in pending] + [entry_id for entry_id, _ in undelivered]
        oldest = min((int(one.partition(b"-")[0]) for one in ids), default=None)
        return len(pending), len(undelivered), oldest


def scenario(*steps: Callable[[Stream], object], name: str) -> Any:
    return pytest.param(steps, id=name)


def hundred_ten_read(stream: Stream) -> None:
    stream.group()
    stream.add(100)
    stream.read(10)


SCENARIOS = [
    scenario(lambda s: s.group(), name="no entries"),
    scenario(hundred_ten_read, name="as usual"),
    scenario(hundred_ten_read, lambda s: s.read(7, ack=False), name="some pending"),
    scenario(hundred_ten_read, lambda s: s.read(100), name="all read"),
    scenario(hundred_ten_read, lambda s: s.delete(3), name="a delivered entry deleted"),
    scenario(hundred_ten_read, lambda s: s.read(5, ack=False), lambda s: s.delete(12), name="a pending entry deleted"),
    scenario(hundred_ten_read, lambda s: s.delete(50), name="an undelivered entry deleted"),
    scenario(hundred_ten_read, lambda s: s.delete(50), lambda s: s.read(45), name="read past the deleted one"),
    scenario(hundred_ten_read, lambda s: s.delete(50), lambda s: s.read(100), name="read to the end after that"),
    scenario(hundred_ten_read, lambda s: s.delete(11, 100), name="the next and the newest deleted"),
    scenario(hundred_ten_read, lambda s: s.trim(50), name="undelivered entries trimmed"),
    scenario(hundred_ten_read, lambda s: s.trim(50), lambda s: s.read(5), name="trimmed, and some more read"),
    scenario(hundred_ten_read, lambda s: s.trim(88), lambda s: s.read(5), name="a few trimmed, and some more read"),
    scenario(hundred_ten_read, lambda s: s.trim(50), lambda s: s.add(60), name="trimmed, and grown again"),
    scenario(hundred_ten_read, lambda s: s.trim(0), name="all trimmed"),
    scenario(lambda s: s.add(100), lambda s: s.group("37-0"), name="made in the middle"),
    scenario(
        lambda s: s.add(100), lambda s: s.group("37-0"), lambda s: s.read(20), name="made in the middle, and read on"
    ),
    scenario(lambda s: s.add(100), lambda s: s.group("$"), name="made at the end"),
    scenario(lambda s: s.add(100), lambda s: s.group("$"), lambda s: s.add(7), name="made at the end, then grown"),
    scenario(hundred_ten_read, lambda s: s.read(90), lambda s: s.set_back(60), name="set back"),
    scenario(hundred_ten_read, lambda s: s.read(90, ack=False), lambda s: s.set_back(60), name="set back, all pending"),
    scenario(hundred_ten_read, lambda s: s.set_back(60, 60), name="set on with the number read"),
    scenario(lambda s: s.group(), lambda s: s.add(2500), lambda s: s.read(10), name="many"),
    scenario(lambda s: s.add(2500), lambda s: s.group("100-0"), name="many, made in the middle"),
    scenario(
        lambda s: s.group(), lambda s: s.add(2500), lambda s: s.read(10), lambda s: s.delete(99), name="many, deleted"
    ),
    scenario(lambda s: s.group(), lambda s: s.add(3000), lambda s: s.trim(2000), name="many, the first ones trimmed"),
    scenario(
        lambda s: s.group(),
        lambda s: s.add(5000),
        lambda s: s.read(10),
        lambda s: s.trim(3000),
        lambda s: s.read(5),
        name="many, trimmed, and some more read",
    ),
]


@pytest.mark.parametrize("steps", SCENARIOS)
async def test_depth_is_what_a_count_gives(
    client: redis.Redis, inspector: RedisInspector, steps: tuple[Callable[[Stream], object], ...]
) -> None:
    stream = Stream(client)
    for step in steps:
        step(stream)
    pending, undelivered, oldest = stream.open()
    (group,) = (await inspector.inspect()).groups
    assert (group.pending, group.undelivered, group.oldest_ms) == (pending, undelivered, oldest)
    assert group.depth == (await inspector.depth()).depth == pending + undelivered


async def test_without_a_stream_there_is_nothing(client: redis.Redis, inspector: RedisInspector) -> None:
    state = await inspector.inspect()
    assert (state.length, state.dead_letters, state.oldest_ms, list(state.groups)) == (0, 0, None, [])
    assert (await inspector.depth()).depth == await inspector.dedup_keys() == 0
    assert await inspector.dead_letter_counts() == ([], None)


async def test_depth_is_the_slowest_group_s_or_the_length(client: redis.Redis, inspector: RedisInspector) -> None:
    stream = Stream(client)
    stream.add(30)
    assert (await inspector.depth()).depth == 30
    stream.group("$")
    assert (await inspector.depth()).depth == 0
    client.xgroup_create(KEYS.events, "slow", id="10-0")
    assert (await inspector.depth()).depth == 20


async def test_consumers_and_when_they_last_asked(client: redis.Redis, inspector: RedisInspector) -> None:
    stream = Stream(client)
    stream.group()
    stream.add(3)
    (group,) = (await inspector.inspect()).groups
    assert (group.consumers, group.idle) == (0, None)
    stream.read(3, ack=False)
    client.xclaim(KEYS.events, GROUP, "replay", 0, ["1-0"], justid=True)  # as a replay leaves it: nobody is there
    await asyncio.sleep(0.05)
    stream.add(1)
    client.xreadgroup(GROUP, "another", {KEYS.events: ">"})
    (group,) = (await inspector.inspect()).groups
    assert group.consumers == 2
    assert group.idle is not None
    assert group.idle < 0.05


async def test_dead_letters_by_reason(server: RedisServer, client: redis.Redis, inspector: RedisInspector) -> None:
    first = bury(server, model_event(), reason="A")
    others = [bury(server, model_event(), reason=reason) for reason in "BBCB"]
    oldest = int(first.partition("-")[0])
    assert await inspector.dead_letter_counts() == ([("B", 3), ("A", 1), ("C", 1)], oldest)
    client.xdel(KEYS.dead_letters, others[0])  # one of the middle
    assert dict((await inspector.dead_letter_counts()).reasons) == {"A": 1, "B": 2, "C": 1}
    client.xdel(KEYS.dead_letters, others[1])
    bury(server, model_event(), reason="D")  # as many as before
    assert dict((await inspector.dead_letter_counts()).reasons) == {"A": 1, "B": 1, "C": 1, "D": 1}
    before = server.info("commandstats")
    await inspector.dead_letter_counts()
    after = server.info("commandstats")
    assert before["cmdstat_evalsha"]["calls"] == after["cmdstat_evalsha"]["calls"]  # nothing changed: not counted again


async def test_dead_letters_are_counted_up_to_ten_thousand(client: redis.Redis, inspector: RedisInspector) -> None:
    with client.pipeline(transaction=False) as pipe:
        for _ in range(10_500):
            pipe.xadd(KEYS.dead_letters, {"dl_reason": "A"})
        pipe.execute()
    assert (await inspector.dead_letter_counts()).reasons == [("A", 10_000)]


async def test_the_estimate_of_dedup_keys(client: redis.Redis, inspector: RedisInspector) -> None:
    now, day = time.time_ns() // 1_000_000, 86_400_000

    def add(count: int, oldest_ms: int, newest_ms: int) -> None:
        with client.pipeline(transaction=False) as pipe:
            for number in range(count):
                at = oldest_ms + (newest_ms - oldest_ms) * number // count
                pipe.xadd(KEYS.events, {"n": "1"}, id=f"{at}-{number}")
            pipe.execute()

    add(300, now - 3 * day, now - 2 * day)
    add(500, now - day // 2, now)
    assert await inspector.dedup_keys() == 500  # counted
    client.delete(KEYS.events)
    add(3000, now - day // 2, now)
    assert await inspector.dedup_keys() == 3000  # all of it
    client.delete(KEYS.events)
    add(4000, now - 2 * day, now)
    assert abs(await inspector.dedup_keys() - 2000) < 50  # by time


# -- the whole answer


def test_the_whole_status(server: RedisServer) -> None:
    server.execute("FLUSHALL")
    server.execute("CONFIG", "SET", "maxmemory", "200mb")
    env = to_redis(server, QUEUE_MAX_DEPTH="1000", QUEUE_RETENTION_SECONDS="3600", QUEUE_LIST="deployments")
    with SidecarProcess(env) as sidecar, operating(sidecar) as operator, calling(sidecar) as publisher:
        with server.client() as client:
            client.xgroup_create(KEYS.events, GROUP, id="0", mkstream=True)
        began = time.time()
        for number in range(5):
            publisher.publish(model_event(number))
        give_up(server, GROUP)
        status = operator.status()
        version = server.info("server")
    server.execute("CONFIG", "SET", "maxmemory", "0")
    redis_status = status.redis
    assert redis_status.engine == ("valkey" if "valkey_version" in version else "redis")
    assert redis_status.version == version.get("valkey_version", version["redis_version"])
    assert (redis_status.role, redis_status.replicas, redis_status.cluster) == ("master", 0, False)
    assert redis_status.max_memory_bytes == 200 << 20 > redis_status.used_memory_bytes > 100_000
    assert redis_status.eviction_policy == "noeviction"
    assert 0 < redis_status.latency.ToMilliseconds() + redis_status.latency.nanos < 1e9
    (group,) = status.groups
    assert (group.depth, group.pending, group.undelivered, group.consumers) == (4, 0, 4, 1)
    assert 0 <= group.idle.ToMilliseconds() < 5000
    assert began - 5 < group.oldest_unacknowledged_at.seconds < began + 5
    assert [(reason.reason, reason.count) for reason in status.dead_letter_reasons] == [("HANDLER_FAILED", 1)]
    assert began - 5 < status.oldest_dead_letter_at.seconds < began + 5
    assert status.dedup_keys == 5
    assert (status.promise.accepting, status.promise.spooling, status.promise.pending) == (True, False, 0)
    assert status.promise.summary == "acknowledged by the Redis primary"
    assert (status.trim.retention.seconds, status.trim.max_depth, status.trim.held_back_by) == (3600, 1000, "")
    assert began - 5 < status.trim.oldest_entry_at.seconds < began + 5
    assert status.list.depth == 5
    assert list(status.lists) == [status.list]


def test_replicas_are_counted_and_an_outage_is_reported() -> None:
    with Replicated() as servers:
        env = {"REDIS_HOST": LOOPBACK, "REDIS_PORT": str(servers.port)}
        with SidecarProcess(env) as sidecar, operating(sidecar) as operator:
            assert operator.status().redis.replicas == 1
            servers.primary.kill()
            until(lambda: operator.status().promise.spooling, 10, "it spools")
            status = operator.status()
            assert not status.redis_up
            assert status.redis_error
            assert not status.HasField("redis")
            assert not status.HasField("trim")
            assert status.promise.accepting
            assert "acknowledged by this task's disk" in status.promise.summary


def test_an_abandoned_group_is_named_with_its_age(server: RedisServer) -> None:
    server.execute("FLUSHALL")
    now = time.time_ns() // 1_000_000
    with server.client() as client:
        for group in ("quick", "gone", "gone for longer"):
            client.xgroup_create(KEYS.events, group, id="0", mkstream=True)
        for age in (7200, 5400, 10):
            client.xadd(KEYS.events, {"data": "x"}, id=f"{now - age * 1000}-0")
        client.xgroup_setid(KEYS.events, "quick", "$")
        client.xgroup_setid(KEYS.events, "gone", f"{now - 7_200_000}-0")
    with SidecarProcess(to_redis(server, QUEUE_RETENTION_SECONDS="3600")) as sidecar, operating(sidecar) as operator:
        status = operator.status()
        assert status.trim.held_back_by == "gone for longer"
        gauge = 'modelready_trim_held_back_seconds{group="gone for longer"}'
        assert 7190 < until(lambda: sidecar.metrics().get(gauge), 5, "the gauge is there") < 7300
        ages = [
            sidecar.metrics()[f'modelready_queue_oldest_age_seconds{{group="{group}"}}']
            for group in ("quick", "gone", "gone for longer")
        ]
        assert [round(age, -2) for age in ages] == [0, 5400, 7200]
        warning = "keeps entries older than QUEUE_RETENTION_SECONDS"
        assert sidecar.logs().count(warning) == 1
        assert server.execute("XLEN", KEYS.events) == 3


async def test_reasons_of_other_programs_are_bounded(client: redis.Redis, inspector: RedisInspector) -> None:
    """Each is a time series in somebody's Prometheus, and a line in the status."""
    with client.pipeline(transaction=False) as pipe:
        for number in range(300):
            pipe.xadd(KEYS.dead_letters, {"dl_reason": f"{number} {'x' * 100_000 * (number == 7)}"})
            pipe.xadd(KEYS.dead_letters, {"dl_reason": "OFTEN"})
        pipe.xadd(KEYS.dead_letters, {"other": "x"})
        pipe.execute()
    reasons, _ = await inspector.dead_letter_counts()
    assert reasons[0] == ("OFTEN", 300)
    assert reasons[-1] == ("OTHER", 282)
    assert sum(count for _, count in reasons) == 601
    assert len(reasons) == 21
    assert max(len(reason) for reason, _ in reasons) <= 64


async def test_only_dead_letters_that_came_are_counted(
    server: RedisServer, client: redis.Redis, inspector: RedisInspector
) -> None:
    with client.pipeline(transaction=False) as pipe:
        for _ in range(2000):
            pipe.xadd(KEYS.dead_letters, {"dl_reason": "A"})
        pipe.execute()
    assert (await inspector.dead_letter_counts()).reasons == [("A", 2000)]
    server.execute("CONFIG", "RESETSTAT")
    bury(server, model_event(), reason="B")
    assert (await inspector.dead_letter_counts()).reasons == [("A", 2000), ("B", 1)]
    assert server.info("commandstats")["cmdstat_evalsha"]["calls"] == 1


async def test_the_consumers_of_many_groups_are_not_asked_for_at_each_look(
    client: redis.Redis, inspector: RedisInspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is one command a group, and several pages and operators may look."""
    for number in range(60):
        client.xgroup_create(KEYS.events, f"{GROUP}-{number}", id="0", mkstream=True)
    client.xadd(KEYS.events, {"n": "1"})
    client.xreadgroup(f"{GROUP}-7", "c", {KEYS.events: ">"})

    def asked() -> int:
        stats: Any = client.info("commandstats")
        return int(stats.get("cmdstat_xinfo|consumers", {"calls": 0})["calls"])

    before = asked()
    for _ in range(3):
        state = await inspector.inspect()
        by_name = {group.name: group for group in state.groups}
        assert (len(by_name), by_name[f"{GROUP}-7"].consumers, by_name[f"{GROUP}-8"].consumers) == (60, 1, 0)
        assert by_name[f"{GROUP}-7"].idle is not None
    if any("xinfo|consumers" in name for name in client.info("commandstats")):  # Redis 6.2 counts all XINFO as one
        assert asked() - before == 60
    monkeypatch.setattr("sidecar.redisstream.inspector._CONSUMERS_SECONDS", 0)
    client.xreadgroup(f"{GROUP}-8", "c", {KEYS.events: ">"})
    assert next(group for group in (await inspector.inspect()).groups if group.name == f"{GROUP}-8").consumers == 1
