"""Trimming: what every group has acknowledged goes when it is old; nothing that is open ever does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from modelready.credentials import StaticCredentials
from modelready.keys import Keys
from modelready.redis.settings import RedisSettings
from sidecar.metrics import Metrics
from sidecar.operations.trimmer import Trimmer
from sidecar.redisstream.connection import RedisConnection
from sidecar.redisstream.trimmer import RedisTrimmer
from sidecar.settings import QueueSettings
from tests.harness.redis_server import RedisServer, available_binaries
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until
from tests.integration.calls import to_redis

KEYS = Keys("model-ready")
BINARIES = available_binaries()
AT_THE_END = 2**62  # a cut that is later than every entry


@pytest.fixture(scope="module", params=sorted(BINARIES))
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(binary=BINARIES[request.param]) as running:
        yield running


def connect(server: RedisServer) -> RedisConnection:
    settings = RedisSettings(host=server.host, port=server.port, tls=False, timeout=30.0)
    return RedisConnection(settings, StaticCredentials(), Metrics(), KEYS.events)


@pytest.fixture
async def stream(server: RedisServer) -> AsyncIterator[RedisTrimmer]:
    connection = connect(server)
    yield RedisTrimmer(connection, QueueSettings())
    await connection.close()


def add(client: redis.Redis, count: int, first: int = 1) -> None:
    with client.pipeline(transaction=False) as pipe:
        for number in range(first, first + count):
            pipe.xadd(KEYS.events, {"n": "1"}, id=f"{number}-0")
        pipe.execute()


def read(client: redis.Redis, group: str, count: int, *, ack: bool = True) -> None:
    reply: Any = client.xreadgroup(group, "c", {KEYS.events: ">"}, count=count)
    ids = [entry_id for entry_id, _ in next(iter(reply.values()))[0]] if reply else []
    if ack and ids:
        client.xack(KEYS.events, group, *ids)


def left(client: redis.Redis) -> list[int]:
    entries: Any = client.xrange(KEYS.events)
    return [int(entry_id.partition(b"-")[0]) for entry_id, _ in entries]


async def test_without_groups_nothing_goes(client: redis.Redis, stream: RedisTrimmer) -> None:
    assert await stream.trim(AT_THE_END) == 0  # nor is there a stream
    add(client, 10)
    assert await stream.trim(AT_THE_END) == 0
    assert len(left(client)) == 10


async def test_the_slowest_group_decides(client: redis.Redis, stream: RedisTrimmer) -> None:
    add(client, 20)
    for group in ("quick", "slow", "pending"):
        client.xgroup_create(KEYS.events, group, id="0")
    read(client, "quick", 20)
    read(client, "slow", 12)
    read(client, "pending", 7)
    read(client, "pending", 1, ack=False)
    read(client, "pending", 12)
    assert await stream.trim(AT_THE_END) == 7
    assert left(client) == list(range(8, 21))
    client.xack(KEYS.events, "pending", "8-0")
    assert await stream.trim(AT_THE_END) == 5
    read(client, "slow", 20)
    assert await stream.trim(AT_THE_END) == 8
    assert left(client) == []


async def test_what_is_younger_than_the_cut_stays(client: redis.Redis, stream: RedisTrimmer) -> None:
    add(client, 20)
    client.xgroup_create(KEYS.events, "g", id="$")
    assert await stream.trim(15) == 14
    assert left(client) == list(range(15, 21))


@pytest.mark.parametrize(
    ("delivered", "following"),
    [
        ("9-9", "10-0"),
        ("99-0", "100-0"),
        ("5-9", "5-10"),
        (f"5-{2**60 + 400}", f"5-{2**60 + 500}"),
        ("5-1", f"{2**53}-0"),
    ],
)
async def test_ids_of_any_length_keep_their_order(
    client: redis.Redis, stream: RedisTrimmer, delivered: str, following: str
) -> None:
    """As text "10" is before "9", and 2**60 + 401 is none of Lua's numbers."""
    client.xadd(KEYS.events, {"n": "1"}, id="1-0")
    for entry_id in (delivered, following):
        client.xadd(KEYS.events, {"n": "1"}, id=entry_id)
    client.xgroup_create(KEYS.events, "g", id=delivered)
    assert await stream.trim(AT_THE_END) in (1, 2)  # one too few where the sequence is too long to add to
    entries: Any = client.xrange(KEYS.events)
    assert entries[-1][0].decode() == following


@pytest.mark.parametrize("slow_first", [True, False])
@pytest.mark.parametrize("pending", [True, False], ids=["pending", "undelivered"])
async def test_within_a_millisecond_the_sequence_decides(
    client: redis.Redis, stream: RedisTrimmer, slow_first: bool, pending: bool
) -> None:
    for sequence in range(1, 13):
        client.xadd(KEYS.events, {"n": "1"}, id=f"5-{sequence}")
    names = ["a slow", "b quick"] if slow_first else ["b slow", "a quick"]  # groups come in the order of their names
    for name in names:
        client.xgroup_create(KEYS.events, name, id="0")
        read(client, name, 3)
        if "quick" in name or pending:
            read(client, name, 7, ack="quick" in name)
    assert await stream.trim(AT_THE_END) == 3
    entries: Any = client.xrange(KEYS.events)
    assert [entry_id.decode() for entry_id, _ in entries] == [f"5-{sequence}" for sequence in range(4, 13)]


async def test_many_go_in_bounded_steps(client: redis.Redis, stream: RedisTrimmer) -> None:
    add(client, 25_000)
    client.xgroup_create(KEYS.events, "g", id="24950-0")
    steps = []
    while removed := await stream.trim(AT_THE_END):
        steps.append(removed)
    assert max(steps) <= 10_000
    assert len(steps) >= 3
    assert left(client) == list(range(24_951, 25_001))


async def test_one_of_many_trims(server: RedisServer, client: redis.Redis, stream: RedisTrimmer) -> None:
    other_connection = connect(server)
    other = RedisTrimmer(other_connection, QueueSettings())
    turns = await asyncio.gather(*(one.take_turn(0.3) for one in (stream, other, stream, other)))
    assert sorted(turns) == [False, False, False, True]
    assert client.pttl(KEYS.trim_lock) > 0
    await asyncio.sleep(0.35)
    assert await other.take_turn(0.3)
    await other_connection.close()


async def test_the_retention_is_a_time(client: redis.Redis, stream: RedisTrimmer) -> None:
    now = time.time_ns() // 1_000_000
    for age in (7200, 3700, 3500, 0):
        client.xadd(KEYS.events, {"n": "1"}, id=f"{now - age * 1000}-0")
    client.xgroup_create(KEYS.events, "g", id="$")
    assert await Trimmer(stream, 3600, Metrics()).trim() == 2
    assert left(client) == [now - 3_500_000, now]


async def test_without_a_retention_nothing_ever_goes(client: redis.Redis, stream: RedisTrimmer) -> None:
    add(client, 10)
    client.xgroup_create(KEYS.events, "g", id="$")
    await asyncio.wait_for(Trimmer(stream, 0, Metrics()).run(), 1)  # it is over at once
    assert len(left(client)) == 10


def test_a_sidecar_trims(server: RedisServer, client: redis.Redis) -> None:
    add(client, 100)
    client.xgroup_create(KEYS.events, "g", id="90-0")
    with SidecarProcess(to_redis(server, QUEUE_RETENTION_SECONDS="60")) as sidecar:
        until(lambda: client.xlen(KEYS.events) == 10, 5, "it was trimmed")
        until(lambda: sidecar.metrics()["modelready_trimmed_entries_total"] == 90, 2, "it was counted")


@pytest.mark.parametrize(
    ("retention", "window", "warned"), [("60", "60", True), ("60", "604800", False), ("0", "60", False)]
)
def test_a_retention_below_the_spool_s_age_is_reported(
    server: RedisServer, retention: str, window: str, warned: bool
) -> None:
    env = to_redis(server, QUEUE_RETENTION_SECONDS=retention, QUEUE_DEDUP_SECONDS=window)
    with SidecarProcess(env) as sidecar:
        assert ("may be delivered twice" in sidecar.logs()) == warned


# -- at any moment, whatever the groups do

Id = tuple[int, int]
GROUPS = ("a", "b", "c")


class Trimming(RuleBasedStateMachine):
    """The stream and its groups by a model; after each trim all that is open must stand, and all else be gone."""

    server: RedisServer

    def __init__(self) -> None:
        super().__init__()
        self.client = self.server.client()
        self.runner = asyncio.Runner()
        self.connection = connect(self.server)
        self.trimmer = RedisTrimmer(self.connection, QueueSettings())
        self.ids: list[Id] = []
        self.standing: set[Id] = set()
        self.last: dict[str, Id] = {}
        self.pending: dict[str, set[Id]] = {}

    @initialize()
    def empty(self) -> None:
        self.client.flushall()

    @rule(
        count=strategies.integers(1, 12),
        step=strategies.sampled_from([0, 1, 3, 900]),
        sequence=strategies.sampled_from([1, 100, 10**15, 2**60]),
    )
    def entries_come(self, count: int, step: int, sequence: int) -> None:
        """Ids of one and of many digits, also more than a Lua number holds."""
        for _ in range(count):
            time_part, before = self.ids[-1] if self.ids else (7, 0)
            stays = not step and before + sequence < 2**63
            entry = (time_part, before + sequence) if stays else (time_part + max(step, 1), 0)
            self.client.xadd(KEYS.events, {"n": "1"}, id=text(entry))
            self.ids.append(entry)
            self.standing.add(entry)

    @rule(group=strategies.sampled_from(GROUPS), where=strategies.integers(0, 100))
    def a_group_is_made_or_set(self, group: str, where: int) -> None:
        start = self.ids[(len(self.ids) - 1) * where // 100] if self.ids and where else (0, 0)
        if group in self.last:
            self.client.xgroup_setid(KEYS.events, group, text(start))
        else:
            self.client.xgroup_create(KEYS.events, group, id=text(start), mkstream=True)
            self.pending[group] = set()
        self.last[group] = start

    @precondition(lambda self: self.last)
    @rule(data=strategies.data(), count=strategies.integers(1, 15), acknowledged=strategies.booleans())
    def a_group_reads(self, data: strategies.DataObject, count: int, acknowledged: bool) -> None:
        group = data.draw(strategies.sampled_from(sorted(self.last)))
        given = [entry for entry in self.ids if entry in self.standing and entry > self.last[group]][:count]
        read(self.client, group, count, ack=acknowledged)
        if given:
            self.last[group] = given[-1]
        if acknowledged:
            self.pending[group] -= set(given)
        else:
            self.pending[group] |= set(given)

    @precondition(lambda self: any(self.pending.values()))
    @rule(data=strategies.data())
    def a_group_acknowledges(self, data: strategies.DataObject) -> None:
        group = data.draw(strategies.sampled_from(sorted(group for group, ids in self.pending.items() if ids)))
        entry = data.draw(strategies.sampled_from(sorted(self.pending[group])))
        self.client.xack(KEYS.events, group, text(entry))
        self.pending[group].remove(entry)

    @precondition(lambda self: self.last and self.standing)
    @rule(data=strategies.data())
    def an_entry_is_given_to_a_group_again(self, data: strategies.DataObject) -> None:
        """As a replay of a dead letter does, wherever the group stands."""
        group = data.draw(strategies.sampled_from(sorted(self.last)))
        entry = data.draw(strategies.sampled_from(sorted(self.standing)))
        self.client.xclaim(KEYS.events, group, "replay", 0, [text(entry)], force=True, justid=True)
        self.pending[group].add(entry)

    @precondition(lambda self: self.last)
    @rule(data=strategies.data())
    def a_group_goes(self, data: strategies.DataObject) -> None:
        group = data.draw(strategies.sampled_from(sorted(self.last)))
        self.client.xgroup_destroy(KEYS.events, group)
        del self.last[group], self.pending[group]

    @rule(where=strategies.integers(0, 100))
    def it_is_trimmed(self, where: int) -> None:
        cut = self.ids[(len(self.ids) - 1) * where // 100][0] if self.ids and where < 100 else 2**40
        while self.runner.run(self.trimmer.trim(cut)):
            pass
        remaining = self.stands()
        gone = self.standing - remaining
        assert not [entry for entry in gone if self.is_open(entry)]
        assert all(entry < (cut, 0) for entry in gone)
        floor = min([(cut, 0), *self.last.values(), *(entry for ids in self.pending.values() for entry in ids)])
        assert not self.last or not [entry for entry in remaining if entry < floor]
        assert self.last or not gone
        self.standing = remaining

    @invariant()
    def the_model_is_right(self) -> None:
        assert self.stands() == self.standing

    def is_open(self, entry: Id) -> bool:
        return any(entry > last for last in self.last.values()) or any(entry in ids for ids in self.pending.values())

    def stands(self) -> set[Id]:
        entries: Any = self.client.xrange(KEYS.events)
        return {tuple(int(part) for part in entry_id.split(b"-")) for entry_id, _ in entries}  # type: ignore[misc]

    def teardown(self) -> None:
        self.runner.run(self.connection.close())
        self.runner.close()
        self.client.close()


def text(entry: Id) -> str:
    return f"{entry[0]}-{entry[1]}"


def trim_at_any_moment(binary: str, examples: int) -> None:
    # Small nodes, so that every trim meets the edges of some.
    with RedisServer(binary=binary, config={"stream-node-max-entries": "3"}) as server:
        machine = type("Trimmed", (Trimming,), {"server": server})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )


@pytest.mark.parametrize("binary", BINARIES.values(), ids=BINARIES)
def test_no_unacknowledged_entry_is_ever_gone(binary: str) -> None:
    trim_at_any_moment(binary, 40)


@pytest.mark.soak
@pytest.mark.parametrize("binary", BINARIES.values(), ids=BINARIES)
def test_no_unacknowledged_entry_is_ever_gone_for_long(binary: str) -> None:
    trim_at_any_moment(binary, 2000)
