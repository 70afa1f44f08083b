"""What a consumer of the mirror list promises, of both twins, with a real server."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

import modelready.aio
from modelready import model_ready
from modelready._consumer.list_reader import ListReader
from modelready.entry import ListFormat, encode_list_message, list_payload
from modelready.list_consumer import ListConsumer, ListMessage
from tests.harness.redis_server import RedisServer
from tests.harness.waiting import until

LIST = "deployments"
PROCESSING, DEAD, LEASES = f"{LIST}:processing", f"{LIST}:dlq", f"{LIST}:lease:*"
ACL = (
    "user reader on >secret resetchannels -@all +hello +auth +ping +client|setname +eval +evalsha +blmove +lrange +mget"
    f" +lpos +lrem +lpush +rpush +get +set +del ~{LIST} ~{LIST}:*"
)
QUICK: dict[str, Any] = {"block_seconds": 0.1, "retry_seconds": 0.01, "lease_seconds": 0.3, "recover_seconds": 0.2}


class AioListConsumer:
    """The asyncio twin, with handlers that block in a thread, as they should."""

    def __init__(self, consumer: modelready.aio.ListConsumer) -> None:
        self._consumer = consumer

    @classmethod
    def from_env(cls, *args: Any, **options: Any) -> AioListConsumer:
        return cls(modelready.aio.ListConsumer.from_env(*args, **options))

    def run(self, handler: Callable[[ListMessage], object]) -> None:
        async def run() -> None:
            async with self._consumer as consumer:
                await consumer.run(lambda message: asyncio.to_thread(handler, message))

        asyncio.run(run())

    def stop(self) -> None:
        self._consumer.stop()

    def close(self) -> None:
        pass


TWINS: dict[str, Any] = {"sync": ListConsumer, "aio": AioListConsumer}


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    with RedisServer(appendonly=True, acl=[ACL]) as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    with server.client() as client:
        yield client


def environ(server: RedisServer) -> dict[str, str]:
    return {
        "REDIS_HOST": server.host,
        "REDIS_PORT": f"{server.port}",
        "REDIS_USERNAME": "reader",
        "REDIS_AUTH_TOKEN": "secret",
        "QUEUE_LIST": LIST,
    }


class Running:
    """A consumer that runs in a thread, and the messages that its handler was given."""

    def __init__(self, consumer: Any, handler: Callable[[ListMessage], object]) -> None:
        self.messages: list[ListMessage] = []
        self.consumer = consumer
        self._handler = handler
        self._thread = threading.Thread(target=consumer.run, args=[self._handle])
        self._thread.start()

    @property
    def versions(self) -> list[str]:
        return [message.payload["model_version"] for message in self.messages]

    def stop(self) -> None:
        self.consumer.stop()
        self._thread.join(10)
        assert not self._thread.is_alive()
        self.consumer.close()

    def _handle(self, message: ListMessage) -> None:
        self.messages.append(message)
        self._handler(message)


both_twins = pytest.mark.parametrize("twin", list(TWINS))


@pytest.fixture
def twin() -> str:
    """The rules are shared, so that most tests need but one of the two."""
    return "sync"


@pytest.fixture
def consume(twin: str, server: RedisServer) -> Iterator[Callable[..., Running]]:
    """Starts consumers with the least rights, quick to stop, retry and recover; they end with the test."""
    started: list[Running] = []

    def consume(handler: Callable[[ListMessage], object] = lambda _: None, **options: Any) -> Running:
        started.append(Running(TWINS[twin].from_env(environ=environ(server), **{**QUICK, **options}), handler))
        return started[-1]

    yield consume
    for running in started:
        running.stop()


@pytest.fixture
def in_a_process(server: RedisServer) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts consumers as processes; `handler` is an expression. They end with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(handler: str, setup: str = "") -> subprocess.Popen[bytes]:
        run = f"ListConsumer.from_env(block_seconds=0.1, lease_seconds=0.5, recover_seconds=0.3).run({handler})"
        code = f"import os, time\n{setup}\nfrom modelready.list_consumer import ListConsumer\n{run}\n"
        env = {**os.environ, **environ(server)}
        started.append(subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def push(client: redis.Redis, *versions: int, list_format: ListFormat = "envelope") -> list[bytes]:
    """As the sidecar does."""
    events = [model_ready(name="m", version=n, uri="s3://m/", correlation_id=f"c-{n}") for n in versions]
    messages = [encode_list_message(event, list_format) for event in events]
    for message in messages:
        client.lpush(LIST, message)
    return messages


def at(client: redis.Redis, key: str) -> list[bytes]:
    found: Any = client.lrange(key, 0, -1)
    return list(found)


def at_rest(client: redis.Redis) -> bool:
    return not (at(client, LIST) or at(client, PROCESSING) or client.keys(LEASES))


def refuse(_: ListMessage) -> None:
    raise LookupError("no place")


@both_twins
@pytest.mark.parametrize("list_format", ["envelope", "payload"])
def test_messages_of_either_format_are_handled_in_order(
    list_format: ListFormat, consume: Any, client: redis.Redis
) -> None:
    sent = push(client, 1, 2, 3, list_format=list_format)
    running = consume()
    until(lambda: len(running.messages) == 3 and at_rest(client), 5, "all are done")
    assert [message.raw for message in running.messages] == sent
    first = running.messages[0]
    if list_format == "envelope":
        whole = json.loads(sent[0])
        assert (first.message_id, first.correlation_id) == (whole["message_id"], "c-1")
        assert first.payload == whole["payload"]
    else:
        assert (first.message_id, first.correlation_id) == ("", "")
        assert first.payload == json.loads(sent[0])
    assert first.payload.keys() == {"model_id", "model_name", "model_version", "timestamp", "message_version"}
    assert at(client, DEAD) == []
    assert client.acl_log() == []


@both_twins
@pytest.mark.parametrize("list_format", ["envelope", "payload"])
def test_what_fails_is_tried_three_times_and_then_a_dead_letter(
    list_format: ListFormat, consume: Any, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    sent = push(client, 1, 2, list_format=list_format)
    in_hand: list[list[bytes]] = []

    def handle(message: ListMessage) -> None:
        in_hand.append(at(client, PROCESSING))
        if message.payload["model_version"] == "1":
            refuse(message)

    running = consume(handle)
    until(lambda: running.versions == ["1", "1", "1", "2"] and at_rest(client), 5, "both are at their end")
    assert [message.retry_count for message in running.messages] == [0, 1, 2, 0]
    (dead,) = at(client, DEAD)
    if list_format == "envelope":
        assert json.loads(dead) == {**json.loads(sent[0]), "retry_count": 3}
        assert [json.loads(one)["retry_count"] for (one,) in in_hand] == [0, 1, 2, 0]
    else:
        assert dead == sent[0]
        assert in_hand == [[sent[0]]] * 3 + [[sent[1]]]
    assert "no place" in caplog.text


def test_a_message_that_fails_once_is_done_in_the_end(consume: Any, client: redis.Redis) -> None:
    push(client, 1)

    def handle(message: ListMessage) -> None:
        if not message.retry_count:
            refuse(message)

    running = consume(handle)
    until(lambda: running.versions == ["1", "1"] and at_rest(client), 5, "it is done")
    assert at(client, DEAD) == []


def test_the_tries_of_an_earlier_consumer_count(consume: Any, client: redis.Redis) -> None:
    (message,) = push(client, 1)
    client.lset(LIST, 0, json.dumps({**json.loads(message), "retry_count": 4, "max_retries": 5}))
    running = consume(refuse)
    until(lambda: len(at(client, DEAD)) == 1 and at_rest(client), 5, "it is a dead letter")
    assert len(running.messages) == 1
    assert json.loads(at(client, DEAD)[0])["retry_count"] == 5


STRANGE = [
    b"",
    b"\xff",
    b"{",
    b"[]",
    b"7",
    b"[" * 100_000,
    b"{}",
    b'{"model_name": "m", "model_version": 7}',
    b'{"message_type": "another", "payload": {"model_name": "m", "model_version": "7"}}',
    (
        b'{"message_type": "model_ready_to_deploy", "message_id": "1", "correlation_id": "", "retry_count": "0",'
        b' "max_retries": 3, "payload": {"model_name": "m", "model_version": "7"}}'
    ),
]


@both_twins
def test_what_is_no_message_is_a_dead_letter_and_stops_nobody(
    consume: Any, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    client.lpush(LIST, *STRANGE)
    push(client, 1)
    running = consume()
    until(lambda: running.versions == ["1"] and at_rest(client), 5, "the other one is done")
    assert at(client, DEAD) == STRANGE[::-1]
    assert caplog.text.count("goes to the dead letters") == len(STRANGE)


PAYLOAD = {"model_name": "m", "model_version": "1"}
ENVELOPE = {"message_type": "model_ready_to_deploy", "payload": PAYLOAD}
OF_OTHERS: dict[str, dict[str, Any]] = {
    "the least": {"payload": PAYLOAD},
    "the publisher of before": {
        **ENVELOPE, "message_id": "1", "timestamp": "2025-01-27T12:00:00", "retry_count": 0, "max_retries": 3,
        "payload": {**PAYLOAD, "contributor_address": None, "tags": {"a": "b"}, "status": "registered"},
    },
    "put back by a consumer of before": {**ENVELOPE, "message_id": "1", "retry_count": 1, "max_retries": 3},
    "null for what is absent": {
        **ENVELOPE, "message_id": None, "correlation_id": None, "retry_count": None, "max_retries": None
    },
    "put back with a count of its own": {**PAYLOAD, "_retryCount": 2},
}  # fmt: skip


@both_twins
@pytest.mark.parametrize("writer", OF_OTHERS)
def test_what_other_programs_left_in_the_list_is_handled(writer: str, consume: Any, client: redis.Redis) -> None:
    """Whatever may be missing is."""
    written = OF_OTHERS[writer]
    client.lpush(LIST, json.dumps(written))
    running = consume()
    until(lambda: running.versions == ["1"] and at_rest(client), 5, "it is done")
    (message,) = running.messages
    assert message.payload == written.get("payload", written)
    assert (message.message_id, message.correlation_id) == (written.get("message_id") or "", "")
    assert (message.retry_count, message.max_retries) == (written.get("retry_count") or 0, 3)
    assert at(client, DEAD) == []


def test_what_other_programs_left_is_tried_as_often_and_counts_its_failures(consume: Any, client: redis.Redis) -> None:
    client.lpush(LIST, json.dumps(ENVELOPE))
    running = consume(refuse, max_retries=2)
    until(lambda: len(at(client, DEAD)) == 1 and at_rest(client), 5, "it is a dead letter")
    assert [message.retry_count for message in running.messages] == [0, 1]
    assert json.loads(at(client, DEAD)[0]) == {**ENVELOPE, "retry_count": 2}


def test_a_message_is_pushed_before_it_is_removed(server: RedisServer, client: redis.Redis) -> None:
    """A script that fails does not roll back: where the dead letters' key is no list, the message stays in flight."""
    (message,) = push(client, 1)
    client.set(DEAD, "no list")
    consumer = ListConsumer.from_env(environ=environ(server), **QUICK)
    with consumer, pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        consumer.run(refuse)
    (left,) = at(client, PROCESSING)
    assert json.loads(left) == {**json.loads(message), "retry_count": 2}


def test_the_companions_have_the_names_that_are_configured(server: RedisServer, client: redis.Redis) -> None:
    client.lpush(LIST, b"no message")
    push(client, 1)
    seen: list[list[bytes]] = []
    env = {
        **environ(server),
        "QUEUE_LIST_PROCESSING": f"{LIST}:busy",
        "QUEUE_LIST_DEAD_LETTERS": "{list}:failed",
        "QUEUE_LIST": f"{LIST}=payload",
    }
    with ListConsumer.from_env(environ=env, **QUICK) as consumer:
        running = Running(consumer, lambda _: seen.append(at(client, f"{LIST}:busy")))
        until(lambda: running.versions == ["1"] and not client.exists(f"{LIST}:busy"), 5, "it is done")
        running.stop()
    assert [len(messages) for messages in seen] == [1]
    assert at(client, f"{LIST}:failed") == [b"no message"]
    assert client.keys(f"{LIST}*") == [f"{LIST}:failed".encode()]


def test_of_several_lists_one_must_be_named(server: RedisServer, client: redis.Redis) -> None:
    env = {**environ(server), "QUEUE_LIST": f"another,{LIST}=payload"}
    with pytest.raises(ValueError, match="QUEUE_LIST is 'another,deployments=payload': it names several lists"):
        ListConsumer.from_env(environ=env)
    push(client, 1)
    running = Running(ListConsumer.from_env(LIST, environ=env, **QUICK), lambda _: None)
    until(lambda: running.versions == ["1"], 5, "it reads the one")
    running.stop()


@pytest.mark.parametrize(
    "values",
    [
        {"QUEUE_LIST": "a=xml"},
        {"QUEUE_LIST": "a,,b"},
        {"QUEUE_LIST": "a, a=payload"},
        {"QUEUE_LIST": "a,b", "QUEUE_LIST_PROCESSING": "busy"},
        {"QUEUE_LIST": "a", "QUEUE_LIST_DEAD_LETTERS": "{list}"},
        {"QUEUE_LIST": "a,a:dlq"},
    ],
)
def test_names_that_cannot_be_are_refused_by_the_variable(values: dict[str, str], server: RedisServer) -> None:
    with pytest.raises(ValueError, match=r"^QUEUE_LIST\w* is '.*': ") as raised:
        ListConsumer.from_env(environ={**environ(server), **values})
    assert [name for name in values if str(raised.value).startswith(f"{name} is")] or values["QUEUE_LIST"] == "a,a:dlq"


@both_twins
def test_what_a_dead_one_left_is_the_next_to_be_handled(consume: Any, client: redis.Redis) -> None:
    push(client, 1)
    client.lmove(LIST, PROCESSING, "RIGHT", "LEFT")  # it died before it took the lease
    push(client, 2, 3)
    running = consume(lambda _: time.sleep(0.3))  # longer than the recovery waits
    until(lambda: len(running.messages) == 3 and at_rest(client), 5, "all are done")
    assert running.versions == ["2", "1", "3"]


def test_a_killed_one_s_message_is_recovered(in_a_process: Any, client: redis.Redis, consume: Any) -> None:
    push(client, 1)
    dying = in_a_process("lambda message: print('in flight', flush=True) or time.sleep(60)")
    assert dying.stdout is not None
    assert dying.stdout.readline() == b"in flight\n"
    running = consume()
    dying.kill()
    dying.wait()
    until(lambda: running.versions == ["1"] and at_rest(client), 5, "another one handles it")


@both_twins
def test_a_live_one_s_message_is_not_taken_however_long_it_takes(consume: Any, client: redis.Redis) -> None:
    push(client, 1)
    slow = threading.Event()
    first = consume(lambda _: slow.wait(20))
    until(lambda: first.versions == ["1"], 5, "it is in flight")
    second = consume()
    time.sleep(1.0)  # more than lease and recovery: nothing is to happen
    assert second.messages == []
    assert len(at(client, PROCESSING)) == 1
    slow.set()
    until(lambda: at_rest(client), 5, "it is done")
    assert second.messages == []


def test_a_plain_consumer_s_message_is_left_alone_where_that_is_asked_for(consume: Any, client: redis.Redis) -> None:
    (theirs,) = push(client, 1)
    client.brpoplpush(LIST, PROCESSING)
    running = consume(recover_seconds=None)
    push(client, 2)
    until(lambda: running.versions == ["2"], 5, "it handles its own")
    time.sleep(0.5)  # more than lease and recovery: nothing is to happen
    assert at(client, PROCESSING) == [theirs]
    assert running.versions == ["2"]


def test_who_lost_its_lease_leaves_the_message_to_its_heir(
    consume: Any, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    (message,) = push(client, 1)

    def frozen(_: ListMessage) -> None:
        (lease,) = client.keys(LEASES)
        client.set(lease, "another")

    running = consume(frozen, lease_seconds=30)
    until(lambda: "another consumer may handle it again" in caplog.text, 5, "it notices")
    assert at(client, PROCESSING) == [message]
    assert running.versions == ["1"]


@both_twins
def test_redis_going_away_is_not_noticed(
    consume: Any, server: RedisServer, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    push(client, 1)
    running = consume()
    until(lambda: running.versions == ["1"] and at_rest(client), 5, "the first")
    server.kill()
    until(lambda: "waiting for Redis" in caplog.text, 5, "it is away")
    server.start()
    push(client, 2)
    until(lambda: running.versions == ["1", "2"] and at_rest(client), 10, "the second")


def test_redis_going_away_while_a_message_is_in_flight_loses_no_answer(
    consume: Any, server: RedisServer, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    push(client, 1)

    def handle(_: ListMessage) -> None:
        server.kill()
        threading.Timer(0.3, server.start).start()

    running = consume(handle, lease_seconds=5)
    until(lambda: running.messages and not server.running, 5, "it is away")
    until(lambda: at_rest(client), 10, "the message is done")
    assert running.versions == ["1"]
    assert "waiting for Redis" in caplog.text


@pytest.mark.parametrize("fails", [False, True])
def test_answers_whose_replies_are_lost_are_repeated_and_done_once(
    fails: bool, consume: Any, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def lose_every_other_reply(name: str) -> None:
        real = getattr(ListReader, name)

        async def losing(self: ListReader, *args: Any) -> Any:
            calls.append(name)
            reply = await real(self, *args)
            if calls.count(name) % 2:
                raise redis.ConnectionError("the reply was lost")
            return reply

        monkeypatch.setattr(ListReader, name, losing)

    lose_every_other_reply("_hold")
    lose_every_other_reply("_moved")
    push(client, 1, 2)
    running = consume(refuse if fails else lambda _: None, recover_seconds=None, lease_seconds=30)
    until(lambda: at_rest(client), 10, "all are done")
    until(lambda: calls.count("_moved") == (6 if fails else 2) * 2, 5, "each answer was given twice")
    assert running.versions == (["1"] * 3 + ["2"] * 3 if fails else ["1", "2"])
    assert len(at(client, DEAD)) == (2 if fails else 0)


def test_a_stop_while_redis_is_away_ends_it(consume: Any, server: RedisServer) -> None:
    server.kill()
    try:
        consume().stop()
    finally:
        server.start()


def test_a_refused_login_is_raised(server: RedisServer) -> None:
    with (
        ListConsumer.from_env(environ={**environ(server), "REDIS_AUTH_TOKEN": "wrong"}) as consumer,
        pytest.raises(redis.AuthenticationError),
    ):
        consumer.run(print)


@pytest.mark.parametrize("variable", ["QUEUE_LIST", "REDIS_HOST"])
def test_what_is_not_set_is_named(variable: str, server: RedisServer) -> None:
    with pytest.raises(ValueError, match=variable):
        ListConsumer.from_env(environ={**environ(server), variable: ""})


def test_sigterm_ends_it_after_the_message_in_flight(in_a_process: Any, client: redis.Redis) -> None:
    _, second = push(client, 1, 2)
    process = in_a_process("lambda message: print('in flight', flush=True) or time.sleep(0.5)")
    assert process.stdout is not None
    assert process.stdout.readline() == b"in flight\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert process.stdout.read() == b""
    assert at(client, LIST) == [second]
    assert at(client, PROCESSING) == []


@both_twins
def test_a_stop_puts_back_what_waits_for_its_next_try(consume: Any, client: redis.Redis) -> None:
    push(client, 1, 2)
    running = consume(refuse, retry_seconds=30)
    until(lambda: b'"retry_count":1' in b"".join(at(client, PROCESSING)), 5, "it waits")
    running.stop()
    back = at(client, LIST)
    assert [json.loads(message)["payload"]["model_version"] for message in back] == ["2", "1"]
    assert json.loads(back[1])["retry_count"] == 1
    assert at(client, PROCESSING) == []


def test_the_payload_that_it_gives_is_the_design_s(consume: Any, client: redis.Redis) -> None:
    event = model_ready(
        name="m", version=1, uri="s3://m/", baseline_value=0.5, current_value=0.75, labels={"team": "é"}
    )
    client.lpush(LIST, encode_list_message(event))
    running = consume()
    until(lambda: running.messages, 5, "it is handled")
    assert running.messages[0].payload == list_payload(event)


@pytest.mark.soak
def test_killed_again_and_again_under_load_each_message_is_handled_and_never_twice_at_the_same_time(
    in_a_process: Any, client: redis.Redis, tmp_path: Path
) -> None:
    handler = "lambda message: [print_(message, 'begin'), time.sleep(0.005), print_(message, 'end')]"
    setup = f"""
log = open({str(tmp_path / "log")!r}, "ab", 0)
def print_(message, what):
    log.write(f"{{message.payload['model_version']}} {{os.getpid()}} {{what}}\\n".encode())
"""
    push(client, *range(1500))
    consumers = [in_a_process(handler, setup) for _ in range(4)]
    killed = set()
    for number in range(20):
        until(lambda number=number: client.llen(LIST) < 1400 - 50 * number, 30, "they work")  # type: ignore[misc]
        victim = consumers[number % 4]
        victim.kill()
        victim.wait()
        killed.add(f"{victim.pid}")
        consumers[number % 4] = in_a_process(handler, setup)
    until(lambda: at_rest(client), 60, "all are done")
    for consumer in consumers:
        consumer.terminate()
        assert consumer.wait(10) == 0

    holders: dict[str, str] = {}
    done = set()
    for line in (tmp_path / "log").read_text().splitlines():
        version, pid, what = line.split()
        if what == "begin":
            assert holders.get(version, pid) in {pid, *killed}, f"{version} is in two hands"
            holders[version] = pid
        else:
            assert holders.pop(version) == pid
            done.add(version)
    assert done == {f"{version}" for version in range(1500)}
    assert at(client, DEAD) == []


@pytest.fixture(autouse=True)
def _logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
