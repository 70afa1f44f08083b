"""The Queue contract, held by the queue in memory and by the real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from modelready import entry
from modelready.credentials import StaticCredentials
from modelready.keys import Keys
from modelready.redis.settings import RedisSettings
from modelready.v1.event_pb2 import Artifact, ModelReadyToDeploy, ModelVersion
from sidecar.errors import SetupFault, Unavailable
from sidecar.metrics import Metrics
from sidecar.publishing.interfaces import DeadLetter, Event, Queue
from sidecar.redisstream.connection import RedisConnection
from sidecar.redisstream.inspector import RedisInspector
from sidecar.redisstream.queue import RedisQueue
from sidecar.settings import QueueSettings
from tests.fakes.memory_queue import MemoryQueue
from tests.harness.redis_server import RedisServer, available_binaries

KEYS = Keys("model-ready")


def event(number: int) -> Event:
    message = ModelReadyToDeploy(
        event_id=f"event-{number}",
        correlation_id="c",
        source="//test",
        model=ModelVersion(name="fraud", version=str(number)),
        artifact=Artifact(uri="s3://models/fraud/"),
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" if number % 2 else "",
    )
    message.occurred_at.FromMilliseconds(1_700_000_000_000 + number)
    return Event(message.event_id, message, entry.encode_data(message, "protobuf"))


def newest(server: RedisServer) -> Any:
    client: Any = server.client()
    return client.xrevrange(KEYS.events, count=1)[0][1]


@pytest.fixture(scope="module", params=sorted(available_binaries()))
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(binary=available_binaries()[request.param], password="secret") as running:
        yield running


@pytest.fixture
async def connection(server: RedisServer) -> AsyncIterator[RedisConnection]:
    server.execute("FLUSHALL")
    settings = RedisSettings(host=server.host, port=server.port, tls=False)
    connection = RedisConnection(settings, StaticCredentials(None, "secret"), Metrics(), KEYS.events)
    yield connection
    await connection.close()


@pytest.fixture(params=["memory", "redis"])
async def queue(request: pytest.FixtureRequest) -> AsyncIterator[Queue]:
    if request.param == "memory":
        yield MemoryQueue()
        return
    with RedisServer() as server:
        settings = RedisSettings(host=server.host, port=server.port, tls=False)
        connection = RedisConnection(settings, StaticCredentials(), Metrics(), KEYS.events)
        yield RedisQueue(connection, QueueSettings())
        await connection.close()


async def test_events_are_appended_in_order_each_once(queue: Queue) -> None:
    first, _ = await queue.append([event(1), event(2)])
    assert [where.duplicate for where in first] == [False, False]
    again, _ = await queue.append([event(2), event(3), event(1)])
    assert [where.duplicate for where in again] == [True, False, True]
    assert (again[0].entry_id, again[2].entry_id) == (first[1].entry_id, first[0].entry_id)


async def test_an_event_twice_in_one_call_is_one_entry(queue: Queue) -> None:
    where, _ = await queue.append([event(1), event(1)])
    assert where[0].entry_id == where[1].entry_id
    assert [one.duplicate for one in where] == [False, True]


async def test_no_events_are_no_entries(queue: Queue) -> None:
    assert await queue.append([]) == ([], 0)


async def test_a_queue_that_answers_can_be_pinged(queue: Queue) -> None:
    await queue.ping()


async def test_the_entry_is_the_one_of_the_codec(server: RedisServer, connection: RedisConnection) -> None:
    for number, encoding in ((1, "protobuf"), (2, "json")):
        await RedisQueue(connection, QueueSettings(encoding=encoding)).append([event(number)])  # type: ignore[arg-type]
        fields = newest(server)
        expected = {name.encode(): value for name, value in entry.encode(event(number).message, encoding).items()}  # type: ignore[arg-type]
        assert fields == expected
        assert entry.decode(fields) == event(number).message


async def test_the_seen_key_holds_the_entry_and_expires(server: RedisServer, connection: RedisConnection) -> None:
    queue = RedisQueue(connection, QueueSettings(dedup_seconds=100))
    (where,), _ = await queue.append([event(1)])
    client = server.client()
    assert client.get(KEYS.seen("event-1")) == where.entry_id.encode()
    client.pexpire(KEYS.seen("event-1"), 5000)
    await queue.append([event(1)])
    assert client.pttl(KEYS.seen("event-1")) > 90_000  # refreshed, which is the write that WAIT counts from


async def test_the_mirror_gets_each_event_once_even_where_a_push_failed(
    server: RedisServer, connection: RedisConnection
) -> None:
    queue = RedisQueue(connection, QueueSettings(list_names="mirror"))
    client = server.client()
    (where,), _ = await queue.append([event(1)])
    client.set(KEYS.seen("event-1"), where.entry_id + "!")  # as after a failed push
    client.delete("mirror")
    (again,), _ = await queue.append([event(1)])
    await queue.append([event(1)])
    assert again == where._replace(duplicate=True)
    assert client.lrange("mirror", 0, -1) == [entry.encode_list_message(event(1).message)]
    assert client.xlen(KEYS.events) == 1


async def test_a_dedup_key_of_another_type_fails_before_anything_is_written(
    server: RedisServer, connection: RedisConnection
) -> None:
    client = server.client()
    client.lpush(KEYS.seen("event-2"), "a list")
    with pytest.raises(SetupFault) as caught:
        await RedisQueue(connection, QueueSettings()).append([event(1), event(2)])
    assert not caught.value.ambiguous
    assert client.xlen(KEYS.events) == 0


async def test_an_append_survives_a_script_flush(server: RedisServer, connection: RedisConnection) -> None:
    queue = RedisQueue(connection, QueueSettings())
    await queue.append([event(1)])
    server.execute("SCRIPT", "FLUSH")
    await queue.append([event(2)])
    assert server.client().xlen(KEYS.events) == 2


async def test_what_stands_in_the_stream_is_found_by_id_and_time(connection: RedisConnection) -> None:
    queue = RedisQueue(connection, QueueSettings())
    where, _ = await queue.append([event(number) for number in range(2500)])
    now = int(where[0].entry_id.partition("-")[0])
    assert await queue.find(["event-7", "event-2400", "nowhere"], now, now) == {
        "event-7": where[7].entry_id,
        "event-2400": where[2400].entry_id,
    }
    assert await queue.find(["event-7"], now - 9_000_000, now - 8_000_000) == {}


async def test_a_dead_letter_is_written_once_with_why_and_when(
    server: RedisServer, connection: RedisConnection
) -> None:
    queue = RedisQueue(connection, QueueSettings())
    letter = DeadLetter("event-1", event(1).data, "TOO_OLD", "spooled for 9 s", 3, 1000, 2000)
    damaged = DeadLetter("event-2", b"\xff\xff", "SPOOL_CORRUPT", "crc", 0, 1000, 1000)
    await queue.dead_letter([letter])
    await queue.dead_letter([letter, damaged])
    client: Any = server.client()
    (_, first), (_, second) = client.xrange(KEYS.dead_letters)
    assert entry.decode(first) == event(1).message
    assert {name: value for name, value in first.items() if name.startswith(b"dl_")} == {
        b"dl_reason": b"TOO_OLD",
        b"dl_detail": b"spooled for 9 s",
        b"dl_attempts": b"3",
        b"dl_first_at": b"1000",
        b"dl_last_at": b"2000",
        b"dl_origin": b"sidecar",
        b"dl_entry_id": b"",
    }
    assert (second[b"ce_id"], second[b"data"]) == (b"event-2", b"\xff\xff")


async def test_the_state_of_groups_is_right_where_lag_is_not(server: RedisServer, connection: RedisConnection) -> None:
    queue = RedisQueue(connection, QueueSettings())
    where, _ = await queue.append([event(number) for number in range(10)])
    client = server.client()
    client.xgroup_create(KEYS.events, "all", id="0")
    client.xgroup_create(KEYS.events, "middle", id=where[3].entry_id)  # its lag is null
    client.xreadgroup("all", "one", {KEYS.events: ">"}, count=4)
    client.xack(KEYS.events, "all", where[0].entry_id)
    client.xdel(KEYS.events, where[9].entry_id)
    state = await RedisInspector(connection, QueueSettings()).inspect()
    groups = {group.name: group for group in state.groups}
    assert (state.length, groups["all"].depth, groups["all"].pending, groups["all"].consumers) == (9, 8, 3, 1)
    assert (groups["middle"].depth, groups["middle"].pending) == (5, 0)
    assert groups["middle"].oldest_ms == int(where[4].entry_id.partition("-")[0])


async def test_a_pool_serves_many_callers_in_turn(connection: RedisConnection) -> None:
    replies = await asyncio.gather(*(connection.execute("PING") for _ in range(200)))
    assert replies == [b"PONG"] * 200


async def test_a_cancelled_call_leaves_no_reply_to_the_next(server: RedisServer, connection: RedisConnection) -> None:
    await connection.warm()
    for _ in range(20):
        task = asyncio.create_task(connection.execute("ECHO", "cancelled"))
        await asyncio.sleep(0.0005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    replies = await asyncio.gather(*(connection.execute("ECHO", str(number)) for number in range(50)))
    assert replies == [str(number).encode() for number in range(50)]


async def test_a_server_that_is_gone_is_transient_and_soon_back(server: RedisServer) -> None:
    settings = RedisSettings(host=server.host, port=server.port, tls=False, timeout=1.0)
    connection = RedisConnection(settings, StaticCredentials(None, "secret"), Metrics(), KEYS.events)
    await connection.warm()
    server.kill()
    with pytest.raises(Unavailable) as caught:
        await connection.execute("PING")
    assert not caught.value.ambiguous
    server.start()
    assert await connection.execute("PING") == b"PONG"
    await connection.close()
