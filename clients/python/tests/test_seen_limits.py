"""The guard where its holder dies, is frozen, or has no Redis; and its keys, beside those of the version before."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from clients.python.tests.test_seen import EVENT, KEY
from modelready import seen
from modelready.seen import SeenGuard
from tests.harness.redis_server import RedisServer
from tests.harness.waiting import patience, until

LEASE_SECONDS = 0.5

HOLDER = """
import sys
import redis
from modelready.seen import SeenGuard

guard = SeenGuard(redis.Redis(port=int(sys.argv[1])), "deployer", lease_seconds=float(sys.argv[2]))
with guard.once(sys.argv[3]) as first:
    print(first, flush=True)
    word = sys.stdin.readline()
    if "fail" in word:
        raise LookupError(word)
print("marked", flush=True)
"""


@contextmanager
def holder(server: RedisServer, lease_seconds: float = LEASE_SECONDS) -> Iterator[subprocess.Popen[str]]:
    """A process that is within its block and ends it at a line on its standard input."""
    command = [sys.executable, "-c", HOLDER, str(server.port), str(lease_seconds), EVENT]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "True\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_reservation_expires_with_its_holder(make_guard: Any, server: RedisServer) -> None:
    with holder(server, lease_seconds=3) as process:
        before = server.execute("PTTL", KEY)
        until(lambda: server.execute("PTTL", KEY) < before, 10, "time goes by")
        before = server.execute("PTTL", KEY)
        until(lambda: server.execute("PTTL", KEY) > before, 10, "it is extended while its holder lives")
        process.kill()
        process.wait()
    assert server.execute("PTTL", KEY) != -1  # it ends by itself
    server.execute("PEXPIRE", KEY, 100)
    with make_guard(wait_seconds=20).once(EVENT) as first:
        assert first


@pytest.mark.parametrize("ending", ["succeeds", "fails"])
def test_a_thawed_holder_leaves_its_heir_s_reservation_alone(make_guard: Any, server: RedisServer, ending: str) -> None:
    with holder(server) as process:
        process.send_signal(signal.SIGSTOP)
        until(lambda: not server.execute("EXISTS", KEY), 5, "its lease has run out")
        with make_guard().once(EVENT) as first:
            assert first
            heirs = server.execute("GET", KEY)
            process.send_signal(signal.SIGCONT)
            deadline = time.monotonic() + 2 * LEASE_SECONDS
            while time.monotonic() < deadline:  # it would have extended its lease by now
                assert server.execute("GET", KEY) == heirs
                time.sleep(0.02)
            out, err = process.communicate(ending + "\n", timeout=10)
            assert "another has taken it over" in err
            assert server.execute("GET", KEY) == (b"done" if ending == "succeeds" else heirs)
        assert ("marked" in out) == (ending == "succeeds")
    assert server.execute("GET", KEY) == b"done"


def test_no_two_pairs_of_group_and_event_share_a_key(make_guard: Any) -> None:
    pairs = [("team", "deploy:123"), ("team:deploy", "123"), ("team", "deploy/123"), ("team/deploy", "123")]
    pairs += [("team", "deploy%3A123"), ("team:deploy:123", ":"), ("team", "a/b:c"), ("team/a", "b:c")]
    for group, event in pairs:
        with make_guard(group).once(event) as first:
            assert first, (group, event)
    for group, event in pairs:
        with make_guard(group).once(event) as first:
            assert not first, (group, event)


@pytest.mark.parametrize(("group", "event"), [("deployer", "1"), ("team", "deploy:123"), ("team:deploy", "123")])
def test_what_the_version_before_has_done_or_reserved_counts(
    make_guard: Any, server: RedisServer, group: str, event: str
) -> None:
    key = f"{{model-ready}}:done:{group}:{event}"
    server.execute("SET", key, "the token of one that died", "PX", 300)
    began = time.monotonic()
    with pytest.raises(LookupError), make_guard(group).once(event) as first:  # noqa: PT012 - what happens within it is asked
        assert first
        assert time.monotonic() - began > 0.2
        raise LookupError
    server.execute("SET", key, "done", "PX", 60_000)
    with make_guard(group).once(event) as first:
        assert not first


def test_a_plain_pair_keeps_its_key_for_the_version_before() -> None:
    assert KEY == "{model-ready}:done:deployer:0190-event"


@contextmanager
def nothing() -> Iterator[int]:
    """A port where connections are refused."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@contextmanager
def silence() -> Iterator[int]:
    """A port where connections are taken and nothing answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize("elsewhere", [nothing, silence])
def test_a_redis_that_is_elsewhere_is_named_soon(
    elsewhere: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seen._FIRST_SECONDS <= 10
    monkeypatch.setattr(seen, "_FIRST_SECONDS", 3)
    caplog.set_level(logging.WARNING, "modelready.seen")
    with elsewhere() as port, redis.Redis(port=port, password="s3cret") as client:  # which itself retries for a minute
        guard = SeenGuard(client, "deployer")
        began = time.monotonic()
        expected = pytest.raises(redis.ConnectionError, match=f"waited 3 s for Redis at localhost:{port}")
        with expected as refusal, guard.once(EVENT):
            pytest.fail("nobody knows whether it is the first")
        assert time.monotonic() - began < patience(5)
    assert f"Redis at localhost:{port}" in caplog.records[0].getMessage()
    assert "s3cret" not in f"{refusal.value}{caplog.text}"


def test_an_outage_of_redis_is_waited_for_no_longer_than_was_said(server: RedisServer) -> None:
    with redis.Redis(port=server.port) as client:
        guard = SeenGuard(client, "deployer", wait_seconds=1.5)
        try:
            with guard.once(EVENT):
                server.kill()
                began = time.monotonic()
        except redis.ConnectionError as error:
            assert "waited 1.5 s for Redis at localhost" in str(error)  # noqa: PT017 - the end of the block is timed, too
            assert time.monotonic() - began < patience(4)
        else:
            pytest.fail("nobody knows whether it is done")
        finally:
            server.start()


def test_a_block_that_raises_while_redis_is_away_is_not_held_up(server: RedisServer) -> None:
    with redis.Redis(port=server.port) as client:
        try:
            with SeenGuard(client, "deployer").once(EVENT):
                server.kill()
                began = time.monotonic()
                raise LookupError  # noqa: TRY301 - as a block does
        except LookupError:
            assert time.monotonic() - began < patience(4)
        finally:
            server.start()


def test_what_is_waited_for_in_vain_is_not_waited_for_when_the_process_ends() -> None:
    code = (
        "import redis\nfrom modelready.seen import SeenGuard\n"
        "with SeenGuard(redis.Redis(port=1), 'deployer', wait_seconds=0).once('1'): pass"
    )
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    assert time.monotonic() - began < patience(15)
    assert "waited 0 s for Redis at localhost:1" in ended.stderr


def test_threads_of_the_guard_end(make_guard: Any) -> None:
    guard = make_guard()
    for number in range(20):
        with guard.once(f"event-{number}"):
            pass
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith("modelready-")], 5, "all have ended")
