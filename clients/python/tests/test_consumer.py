"""What a consumer promises, of both twins, with a real server."""

from __future__ import annotations

import asyncio
import contextlib
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

from clients.python.tests.twins import CONSUMERS
from modelready import model_ready
from modelready.consumer import Consumer
from modelready.entry import encode
from modelready.keys import Keys
from modelready.redis.cluster import server_from_env
from modelready.redis.pool import Pool
from tests.harness.certificates import Authority
from tests.harness.redis_server import RedisServer
from tests.harness.rights import CONSUMER
from tests.harness.waiting import patience, until

STREAM = Keys("model-ready").events
DEAD_LETTERS = Keys("model-ready").dead_letters
ACL = f"user reader {CONSUMER} >secret"

QUICK: dict[str, Any] = {"block_seconds": 0.1, "backoff_base_seconds": 0.05, "backoff_max_seconds": 0.2}


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    with RedisServer(appendonly=True, acl=[ACL]) as server:
        yield server


@pytest.fixture(params=list(CONSUMERS))
def consume(request: pytest.FixtureRequest, server: RedisServer) -> Iterator[Callable[..., Any]]:
    """Makes consumers of the group "deployer" with the least rights, quick to stop."""
    made: list[Any] = []

    def consumer(**options: Any) -> Any:
        settings = {
            "group": "deployer",
            "environ": environ(server),
            "consumer_name": "one",
            **QUICK,
        }
        made.append(CONSUMERS[request.param].from_env(**{**settings, **options}))
        return made[-1]

    yield consumer
    for one in made:
        one.close()


def environ(server: RedisServer) -> dict[str, str]:
    return {
        "REDIS_HOST": server.host,
        "REDIS_PORT": f"{server.port}",
        "REDIS_USERNAME": "reader",
        "REDIS_AUTH_TOKEN": "secret",
    }


def publish(server: RedisServer, *versions: int, name: str = "m", queue: str = "model-ready") -> list[str]:
    with server.client() as client:
        return [
            str(client.xadd(Keys(queue).events, encode(model_ready(name=name, version=n, uri="s3://m/"))).decode())
            for n in versions
        ]


def pending(server: RedisServer) -> list[str]:
    with server.client() as client:
        return [entry["message_id"].decode() for entry in client.xpending_range(STREAM, "deployer", "-", "+", 100)]


def dead_letters(server: RedisServer) -> list[dict[bytes, bytes]]:
    with server.client() as client:
        return [fields for _, fields in client.xrange(DEAD_LETTERS)]


class Handler:
    """Notes the versions that it is given, raises for those in `failing`, and stops its consumer after `count`."""

    def __init__(self, consumer: Any, count: int, failing: tuple[str, ...] = ()) -> None:
        self._consumer = consumer
        self._count = count
        self.failing = failing
        self.until = 1000
        self.versions: list[str] = []

    def __call__(self, event: Any) -> None:
        version = event.model.version
        self.versions.append(version)
        if len(self.versions) == self._count:
            self._consumer.stop()
        if version in self.failing and self.versions.count(version) < self.until:
            raise LookupError(f"no place for {version}")


def test_what_was_published_before_the_first_start_is_handled_and_acknowledged(
    consume: Any, server: RedisServer
) -> None:
    publish(server, 1, 2, 3)
    consumer = consume()
    handler = Handler(consumer, 3)
    consumer.run(handler)

    assert handler.versions == ["1", "2", "3"]
    assert pending(server) == []
    with server.client() as client:
        assert client.acl_log() == []


def test_a_group_may_start_with_what_comes(consume: Any, server: RedisServer) -> None:
    publish(server, 1)
    consumer = consume(start="$")
    handler = Handler(consumer, 1)
    running = threading.Thread(target=consumer.run, args=[handler])
    running.start()
    with server.client() as client:
        until(lambda: client.xinfo_groups(STREAM), 5, "the group")
    publish(server, 2)
    running.join(10)
    assert handler.versions == ["2"]


def test_an_event_whose_handler_raises_comes_again_before_the_next_of_its_model(
    consume: Any, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    publish(server, 1, 2)
    consumer = consume(batch=10)
    handler = Handler(consumer, 4, failing=("1",))
    handler.until = 3
    consumer.run(handler)

    assert handler.versions == ["1", "1", "1", "2"]
    assert pending(server) == []
    assert dead_letters(server) == []
    assert "no place for 1" in caplog.text


def test_an_event_that_always_fails_is_a_dead_letter_with_its_reason(consume: Any, server: RedisServer) -> None:
    first, _ = publish(server, 1, 2)
    before = time.time()
    consumer = consume(max_attempts=3)
    handler = Handler(consumer, 4, failing=("1",))
    consumer.run(handler)

    assert handler.versions == ["1", "1", "1", "2"]
    assert pending(server) == []
    (letter,) = dead_letters(server)
    with server.client() as client:
        ((_, entry),) = client.xrange(STREAM, first, first)
    first_at, last_at = (int(letter.pop(name)) / 1000 for name in (b"dl_first_at", b"dl_last_at"))
    assert before - 1 < first_at <= last_at < time.time() + 1
    assert letter == entry | {
        b"dl_reason": b"HANDLER_FAILED",
        b"dl_detail": b"LookupError: no place for 1",
        b"dl_attempts": b"3",
        b"dl_origin": b"group:deployer",
        b"dl_entry_id": first.encode(),
    }


def test_a_dead_letter_is_written_once_though_the_reply_is_lost(
    consume: Any, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, 1, 2)
    lose_replies(monkeypatch, DEAD_LETTERS, to=[1, 2, 3])
    consumer = consume(max_attempts=1)
    handler = Handler(consumer, 2, failing=("1",))
    consumer.run(handler)
    assert len(dead_letters(server)) == 1
    assert pending(server) == []


def test_while_one_model_waits_for_its_next_attempt_others_go_on(consume: Any, server: RedisServer) -> None:
    publish(server, 1, 2)
    publish(server, 3, 4, name="other")
    consumer = consume(backoff_base_seconds=60.0, backoff_max_seconds=60.0)
    handler = Handler(consumer, 3, failing=("1",))
    began = time.monotonic()
    consumer.run(handler)
    assert handler.versions == ["1", "3", "4"]
    assert time.monotonic() - began < patience(5)  # and a stop does not wait for it
    assert len(pending(server)) == 2


def test_attempts_outlive_their_consumer(consume: Any, server: RedisServer) -> None:
    publish(server, 1)
    for attempt in (1, 2, 3):
        consumer = consume(consumer_name=f"life {attempt}", max_attempts=3, backoff_base_seconds=60.0)
        assert [taken.attempts for taken in one_that_fails(consumer)] == [attempt]
    assert dead_letters(server)[0][b"dl_attempts"] == b"3"


def one_that_fails(consumer: Any) -> Iterator[Any]:
    for delivery in consumer:
        with contextlib.suppress(LookupError), delivery:
            raise LookupError
        yield delivery
        consumer.stop()


def test_a_delivery_tells_what_makes_it_safe_to_repeat(consume: Any, server: RedisServer) -> None:
    (entry,) = publish(server, 1)
    consumer = consume()
    for delivery in consumer:
        assert (delivery.entry_id, delivery.attempts) == (entry, 1)
        assert delivery.first_seen.timestamp() * 1000 == int(entry.partition("-")[0])
        delivery.ack()
        consumer.stop()
    assert pending(server) == []


def test_by_hand_an_event_is_acknowledged_at_the_end_of_its_block(consume: Any, server: RedisServer) -> None:
    entries = publish(server, 1, 2, 3)
    consumer = consume()
    for delivery in consumer:
        assert pending(server)[-1] == delivery.entry_id
        if delivery.event.model.version == "1":
            continue  # not acknowledged
        if delivery.event.model.version == "3":
            break
        with delivery as event:
            assert event.model.version == "2"
    assert pending(server) == [entries[0], entries[2]]


def test_by_hand_an_event_comes_again_when_its_block_raises(consume: Any, server: RedisServer) -> None:
    publish(server, 1, 2)
    consumer = consume()
    seen = []
    for delivery in consumer:
        with contextlib.suppress(LookupError), delivery as event:
            seen.append((event.model.version, delivery.attempts))
            if seen == [("1", 1)]:
                raise LookupError
            if len(seen) == 3:
                consumer.stop()
    assert seen == [("1", 1), ("1", 2), ("2", 1)]
    assert pending(server) == []


def test_in_a_loop_of_its_own_what_is_in_flight_is_put_back_when_the_loop_is_left(
    consume: Any, server: RedisServer
) -> None:
    (entry,) = publish(server, 1)
    delivery = next(iter(consume()))
    assert pending(server) == [entry]
    with pytest.raises(RuntimeError, match="comes again"):
        delivery.ack()


def test_by_hand_an_event_may_be_acknowledged_later(consume: Any, server: RedisServer) -> None:
    publish(server, 1, 2)
    consumer = consume()
    taken = []
    for delivery in consumer:
        taken.append(delivery)
        if len(taken) == 2:
            for each in taken:
                each.ack()
            consumer.stop()
    assert pending(server) == []


def test_after_a_crash_its_own_events_come_first(consume: Any, server: RedisServer) -> None:
    publish(server, 1, 2)
    for _ in consume(batch=10):
        break  # dies with two entries in flight
    publish(server, 3)
    consumer = consume()
    handler = Handler(consumer, 3)
    consumer.run(handler)

    assert handler.versions == ["1", "2", "3"]
    assert pending(server) == []


def test_a_second_iteration_goes_on_where_the_first_ended(consume: Any, server: RedisServer) -> None:
    publish(server, 1, 2)
    consumer = consume(batch=10)
    assert [next(iter(consumer)).event.model.version for _ in range(2)] == ["1", "1"]


def test_it_stops_after_the_event_in_flight(consume: Any, server: RedisServer) -> None:
    publish(server, 1, 2)
    consumer = consume(batch=10)
    handler = Handler(consumer, 1)
    consumer.run(handler)
    assert handler.versions == ["1"]
    assert len(pending(server)) == 1


def test_it_stops_while_it_waits(consume: Any, server: RedisServer) -> None:
    consumer = consume()
    running = threading.Thread(target=consumer.run, args=[print])
    running.start()
    time.sleep(0.3)
    consumer.stop()
    running.join(5)
    assert not running.is_alive()


def test_a_reply_that_is_lost_loses_no_event(
    consume: Any, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, 1, 2)
    lose_replies(monkeypatch, "XREADGROUP", to=[1])
    consumer = consume()
    handler = Handler(consumer, 2)
    consumer.run(handler)
    assert handler.versions == ["1", "2"]


def test_an_acknowledgement_that_is_lost_is_repeated_and_the_event_handled_once(
    consume: Any, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, 1, 2)
    lose_replies(monkeypatch, "XACK", to=[1, 2])
    consumer = consume()
    handler = Handler(consumer, 2)
    consumer.run(handler)
    assert handler.versions == ["1", "2"]
    assert pending(server) == []


def lose_replies(monkeypatch: pytest.MonkeyPatch, word: str, to: list[int]) -> None:
    """The calls with this word and these numbers are carried out, but their replies do not arrive."""
    real = Pool.call
    calls = 0

    async def losing(link: Pool, *commands: tuple[Any, ...], **options: Any) -> list[Any]:
        nonlocal calls
        if not any(word in command for command in commands):
            return await real(link, *commands, **options)
        calls += 1
        if calls not in to:
            return await real(link, *commands, **options)
        await real(link, *commands, **{**options, "first": None})
        raise redis.exceptions.ConnectionError("the reply was lost")

    monkeypatch.setattr(Pool, "call", losing)


def test_a_restart_of_redis_is_not_noticed(consume: Any, server: RedisServer) -> None:
    publish(server, 1)
    consumer = consume()
    handler = Handler(consumer, 2)
    running = threading.Thread(target=consumer.run, args=[handler])
    running.start()
    until(lambda: handler.versions == ["1"], 5, "the first event")
    server.kill()
    time.sleep(0.3)
    server.start()
    publish(server, 2)
    running.join(10)
    assert handler.versions == ["1", "2"]
    assert pending(server) == []


def test_a_group_that_is_gone_is_made_again_from_the_start(
    consume: Any, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    publish(server, 1)
    consumer = consume(start="$")
    handler = Handler(consumer, 1)
    running = threading.Thread(target=consumer.run, args=[handler])
    running.start()
    with server.client() as client:
        until(lambda: client.xinfo_groups(STREAM), 5, "the group")
        client.flushall()
    publish(server, 2)
    running.join(10)
    assert handler.versions == ["2"]
    assert "is gone" in caplog.text


def test_redis_is_waited_for_at_the_start_and_a_stop_ends_the_waiting(
    consume: Any, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    consumer = consume(environ={**environ(server), "REDIS_PORT": "1"})
    threading.Timer(0.5, consumer.stop).start()
    consumer.run(print)
    assert caplog.text.count("waiting for Redis") == 1


def test_an_entry_that_is_no_event_is_a_dead_letter_at_once(consume: Any, server: RedisServer) -> None:
    with server.client() as client:
        strange = client.xadd(STREAM, {"content-type": "application/protobuf", "data": b"\xff\xff"})
        empty = client.xadd(STREAM, {"data": ""})
    publish(server, 1)
    consumer = consume()
    handler = Handler(consumer, 1)
    consumer.run(handler)

    assert handler.versions == ["1"]
    assert pending(server) == []
    letters = dead_letters(server)
    assert [(letter[b"dl_reason"], letter[b"dl_entry_id"]) for letter in letters] == [
        (b"UNDECODABLE", strange),
        (b"UNDECODABLE", empty),
    ]
    assert letters[0][b"data"] == b"\xff\xff"


def test_an_entry_that_was_deleted_while_pending_stops_nobody(consume: Any, server: RedisServer) -> None:
    entry, _ = publish(server, 1, 2)
    for _ in consume():
        break
    with server.client() as client:
        client.xdel(STREAM, entry)
    consumer = consume()
    handler = Handler(consumer, 1)
    consumer.run(handler)
    assert handler.versions == ["2"]


def test_wrong_credentials_are_raised_at_once(consume: Any, server: RedisServer) -> None:
    with pytest.raises(redis.exceptions.AuthenticationError):
        consume(environ={**environ(server), "REDIS_AUTH_TOKEN": "wrong"}).run(print)


def test_rights_that_are_missing_are_raised(consume: Any, server: RedisServer) -> None:
    with pytest.raises(redis.exceptions.NoPermissionError):
        consume(queue="other").run(print)


def test_a_key_of_another_type_is_raised(consume: Any, server: RedisServer) -> None:
    with server.client() as client:
        client.set(STREAM, "a string")
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
        consume().run(print)


def test_the_queue_s_name_comes_from_the_environment(consume: Any, server: RedisServer) -> None:
    publish(server, 1, queue="other")
    admin = {"REDIS_USERNAME": "harness", "REDIS_AUTH_TOKEN": "harness-admin", "QUEUE_NAME": "other"}
    consumer = consume(environ={**environ(server), **admin})
    handler = Handler(consumer, 1)
    consumer.run(handler)
    assert handler.versions == ["1"]


SERVICES = {
    "sync": """
from modelready.consumer import Consumer
def deploy(event):
    print(event.model.version, flush=True)
Consumer.from_env(group="deployer").run(deploy)
print("ended in order")
""",
    "aio": """
import asyncio
from modelready.aio import Consumer
async def deploy(event):
    print(event.model.version, flush=True)
asyncio.run(Consumer.from_env(group="deployer").run(deploy))
print("ended in order")
""",
}


@pytest.mark.parametrize("kind", SERVICES)
def test_sigterm_ends_it_in_order(server: RedisServer, kind: str) -> None:
    publish(server, 7)
    service = subprocess.Popen(
        [sys.executable, "-c", SERVICES[kind]],
        env={**os.environ, **environ(server)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert service.stdout
    assert service.stdout.readline() == "7\n"
    service.send_signal(signal.SIGTERM)
    assert service.communicate(timeout=10)[0] == "ended in order\n"
    assert service.returncode == 0
    assert pending(server) == []


def test_the_handler_of_sigterm_is_put_back(consume: Any, server: RedisServer) -> None:
    before = signal.getsignal(signal.SIGTERM)
    publish(server, 1)
    consumer = consume()
    consumer.run(Handler(consumer, 1))
    assert signal.getsignal(signal.SIGTERM) is before


def test_settings_come_from_the_environment(tmp_path: Path) -> None:
    mine = Authority(tmp_path).client()
    settings = {
        "REDIS_HOST": "redis.test",
        "REDIS_PORT": "6380",
        "REDIS_DB": "2",
        "REDIS_USERNAME": "reader",
        "REDIS_AUTH_TOKEN": "secret",
        "REDIS_TLS_CA_FILE": str(mine.ca),
        "REDIS_TLS_CERT_FILE": str(mine.cert),
        "REDIS_TLS_KEY_FILE": str(mine.key),
    }
    server = server_from_env(settings, STREAM)
    assert server._seed == ("redis.test", 6380)
    assert server._db == 2
    assert server.tls is not None
    assert set(server.tls._used) == {f"REDIS_TLS_{kind}_FILE" for kind in ("CA", "CERT", "KEY")}
    assert asyncio.run(server.credentials.current()) == ("reader", "secret")


@pytest.mark.parametrize(
    ("host", "switch", "tls"),
    [
        ("redis.test", "", True),
        ("redis.test", "false", False),
        ("localhost", "", False),
        ("127.0.0.1", "", False),
        ("::1", "", False),
        ("127.0.0.1", "on", True),
    ],
)
def test_tls_is_on_unless_redis_is_on_this_machine(host: str, switch: str, tls: bool) -> None:
    server = server_from_env({"REDIS_HOST": host, "REDIS_TLS": switch}, STREAM)
    assert (server.tls is not None) is tls


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "REDIS_HOST is not set"),
        ({"REDIS_HOST": "r", "REDIS_PORT": "x"}, "REDIS_PORT is 'x'"),
        ({"REDIS_HOST": "r", "REDIS_DB": "-1"}, "REDIS_DB is '-1'"),
        ({"REDIS_HOST": "r", "REDIS_TLS": "maybe"}, "REDIS_TLS is 'maybe'"),
        ({"REDIS_HOST": "r", "REDIS_CLUSTER": "true", "REDIS_DB": "1"}, "REDIS_DB is 1"),
        ({"REDIS_HOST": "r", "REDIS_USERNAME": "u"}, "REDIS_USERNAME is 'u'"),
        ({"REDIS_HOST": "r", "REDIS_IAM_CLUSTER": "c", "REDIS_TLS": "no"}, "REDIS_IAM_CLUSTER needs"),
        ({"REDIS_HOST": "r", "REDIS_AUTH_TOKEN": "t", "REDIS_AUTH_SECRET_ID": "s"}, "only one of them"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Consumer.from_env(group="deployer", environ=settings)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"group": ""}, "the name of its group"),
        ({"start": "1"}, "start is '1'"),
        ({"batch": 0}, "batch is not below concurrency"),
        ({"concurrency": 4, "batch": 2}, "batch is not below concurrency"),
        ({"max_attempts": 0}, "at least 1"),
        ({"claim_seconds": 0.1}, "claim_seconds at least"),
    ],
)
def test_a_consumer_that_could_not_work_is_refused(options: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Consumer.from_env(**{"group": "deployer", "environ": {"REDIS_HOST": "localhost"}, **options})
