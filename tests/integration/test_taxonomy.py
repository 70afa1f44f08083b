"""What each thing that Redis can answer becomes: transient, or a fault of set-up that a person must fix.

Transient: a caller who accepts this task's disk notices nothing, one who insists on Redis gets UNAVAILABLE with a
RetryInfo. Set-up: FAILED_PRECONDITION for both, and not ready. Each from a real server.
"""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from modelready.ids import uuid7
from tests.harness.cluster import Cluster
from tests.harness.ports import LOOPBACK
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until
from tests.integration.calls import (
    DEFAULT,
    KEYS,
    PRIMARY,
    SPOOLED,
    STORED,
    TO_DISK,
    Caller,
    Code,
    calling,
    health,
    model_event,
    queued_ids,
    to_redis,
)

LIST = "deployments"


@contextmanager
def listening(env: dict[str, str]) -> Iterator[tuple[SidecarProcess, Caller]]:
    sidecar = SidecarProcess(env)
    sidecar.start("listening")
    with sidecar, calling(sidecar) as caller:
        yield sidecar, caller


def transient(sidecar: SidecarProcess, caller: Caller, reason: str, *, redis_up: bool = False) -> list[str]:
    """A PRIMARY caller gets the reason and a RetryInfo; the disk takes the other events. Returns their ids."""
    refusal = caller.refused_as(reason)
    assert (refusal.code, refusal.retry) == (Code.UNAVAILABLE, True), refusal
    spooled = [caller.publish(durability=durability) for durability in (DEFAULT, SPOOLED)]
    assert [receipt.outcome for receipt in spooled] == [TO_DISK, TO_DISK]
    assert not any(receipt.entry_id for receipt in spooled)
    until(lambda: health(sidecar) == (True, True, redis_up), 3, "the health names say so")
    assert sidecar.get("/readyz")[0] == 200
    return [receipt.event_id for receipt in spooled]


def fault_of_set_up(sidecar: SidecarProcess, caller: Caller, reason: str, *, redis_up: bool) -> None:
    """Nobody is acknowledged, nothing is kept, it is not ready, and says why."""
    for durability in (DEFAULT, SPOOLED, PRIMARY):
        refusal = caller.refused(durability=durability)
        assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, reason), refusal
        assert not refusal.retry
        assert not refusal.fields
    until(lambda: health(sidecar) == (True, False, redis_up), 3, "the health names say so")
    status, body = sidecar.get("/readyz")
    assert status == 503
    assert '"problem": ""' not in body
    assert sidecar.metrics()["modelready_spool_events"] == 0


def recovers(sidecar: SidecarProcess, server: RedisServer, ids: list[str]) -> None:
    """By itself, and what was acknowledged is there, in order."""
    until(lambda: health(sidecar) == (True, True, True), 12, "it serves")
    until(lambda: queued_ids(server) == ids, 5, "the spool drains")


def is_mended(sidecar: SidecarProcess, caller: Caller) -> None:
    """The next event goes through, and at once it is ready again."""
    assert caller.publish(durability=PRIMARY).outcome == STORED
    until(lambda: health(sidecar) == (True, True, True), 4, "it serves")


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def test_oom_is_transient(server: RedisServer) -> None:
    with listening(to_redis(server)) as (sidecar, caller):
        server.execute("CONFIG", "SET", "maxmemory-policy", "noeviction")
        server.execute("CONFIG", "SET", "maxmemory", "1")
        spooled = transient(sidecar, caller, "REDIS_OOM", redis_up=True)
        server.execute("CONFIG", "SET", "maxmemory", "0")
        recovers(sidecar, server, spooled)


def test_loading_is_transient() -> None:
    config = {"enable-debug-command": "yes", "loading-process-events-interval-bytes": "1024", "rdbcompression": "no"}
    with RedisServer(config=config) as server, listening(to_redis(server)) as (sidecar, caller):
        with server.client() as client:
            client.mset({f"filler:{number}": "x" * 200 for number in range(10_000)})
        server.execute("CONFIG", "SET", "key-load-delay", "2000")  # microseconds a key: 20 s, unless the test ends it
        loading = threading.Thread(target=lambda: run_for_long(server, "DEBUG", "RELOAD"))
        loading.start()
        until(lambda: server.info("persistence")["loading"], 3, "it loads")
        spooled = transient(sidecar, caller, "REDIS_LOADING")
        server.execute("CONFIG", "SET", "key-load-delay", "0")
        loading.join()
        recovers(sidecar, server, spooled)


def test_readonly_is_transient() -> None:
    with RedisServer() as primary, RedisServer(replica_of=(LOOPBACK, primary.port)) as replica:
        until(lambda: replica.info("replication")["master_link_status"] == "up", 10, "it replicates")
        with listening(to_redis(replica)) as (sidecar, caller):
            spooled = transient(sidecar, caller, "REDIS_READONLY", redis_up=True)
            replica.execute("REPLICAOF", "NO", "ONE")
            recovers(sidecar, replica, spooled)


def test_too_many_clients_are_transient() -> None:
    with RedisServer(config={"maxclients": "20"}) as server, ExitStack() as others:
        for _ in range(20):
            others.enter_context(socket.create_connection((server.host, server.port)))
        with listening(to_redis(server)) as (sidecar, caller):
            spooled = transient(sidecar, caller, "REDIS_MAXCLIENTS")
            others.close()
            recovers(sidecar, server, spooled)


def test_a_script_that_keeps_redis_busy_is_transient(server: RedisServer) -> None:
    """BUSY: somebody else's script runs for longer than the limit."""
    server.execute("CONFIG", "SET", "lua-time-limit", "10")
    with listening(to_redis(server)) as (sidecar, caller):
        endless = threading.Thread(target=lambda: run_until_killed(server))
        endless.start()
        until(lambda: answers_busy(server), 3, "it is busy")
        spooled = transient(sidecar, caller, "REDIS_BUSY")
        server.execute("SCRIPT", "KILL")
        endless.join()
        recovers(sidecar, server, spooled)


def run_for_long(server: RedisServer, *command: str) -> None:
    with server.client(socket_timeout=30) as client:
        client.execute_command(*command)


def run_until_killed(server: RedisServer) -> None:
    with server.client(socket_timeout=30) as client, pytest.raises(Exception, match="killed"):
        client.eval("while true do end", 0)


def answers_busy(server: RedisServer) -> bool:
    with server.client() as client:
        try:
            client.get("any")
        except Exception as error:  # noqa: BLE001 - which one, is what is asked
            return "BUSY" in str(error)
    return False


@pytest.mark.parametrize("right", ["xadd", "set", "evalsha"])
def test_a_missing_right_is_a_fault_of_set_up(right: str, server: RedisServer) -> None:
    server.execute("ACL", "SETUSER", "default", f"-{right}", f"-{right.removesuffix('sha')}")
    with listening(to_redis(server)) as (sidecar, caller):
        fault_of_set_up(sidecar, caller, "REDIS_NO_PERMISSION", redis_up=right != "evalsha")
        assert not queued_ids(server)
        server.execute("ACL", "SETUSER", "default", f"+{right}", f"+{right.removesuffix('sha')}")
        is_mended(sidecar, caller)


@pytest.mark.parametrize("key", [KEYS.events, LIST])
def test_a_key_of_another_type_is_a_fault_of_set_up(key: str, server: RedisServer) -> None:
    server.execute("SET", key, "no stream and no list")
    with listening(to_redis(server, QUEUE_LIST=LIST)) as (sidecar, caller):
        fault_of_set_up(sidecar, caller, "REDIS_WRONG_TYPE", redis_up=False)
        server.execute("DEL", key)
        is_mended(sidecar, caller)


def test_a_dedup_key_of_another_type_hurts_only_its_own_event(server: RedisServer) -> None:
    poisoned = uuid7()
    server.execute("LPUSH", KEYS.seen(poisoned), "no string")
    with listening(to_redis(server)) as (_, caller):
        for durability in (DEFAULT, PRIMARY):
            refusal = caller.refused(model_event(event_id=poisoned), durability)
            assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "REDIS_WRONG_TYPE")
            assert caller.publish(durability=durability).outcome == STORED
        assert poisoned not in queued_ids(server)


def test_a_cluster_that_nobody_mentioned_is_a_fault_of_set_up() -> None:
    with Cluster(masters=2) as cluster:
        owner = cluster.owner(KEYS.events)
        stranger = cluster.another_master(owner)
        with listening(to_redis(stranger)) as (sidecar, caller):
            fault_of_set_up(sidecar, caller, "REDIS_CLUSTER_MODE", redis_up=False)
            assert "REDIS_CLUSTER=true" in sidecar.get("/readyz")[1]


def test_what_is_no_redis_is_a_fault_of_set_up() -> None:
    with http.server.ThreadingHTTPServer((LOOPBACK, 0), http.server.BaseHTTPRequestHandler) as web:
        threading.Thread(target=web.serve_forever, args=(0.05,), daemon=True).start()
        with listening({"REDIS_HOST": LOOPBACK, "REDIS_PORT": str(web.server_port)}) as (sidecar, caller):
            fault_of_set_up(sidecar, caller, "REDIS_PROTOCOL", redis_up=False)
            assert "no Redis" in sidecar.get("/readyz")[1]
        web.shutdown()
