"""doctor, logged in: rights, keys, engines, roles, clusters, replicas, memory, latency and the probe, each for real."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from modelready.keys import Keys
from sidecar.cli.doctor import examine
from sidecar.cli.doctor.acl import ALWAYS, CLUSTER, MIRROR, OPERATING
from tests.harness import rights
from tests.harness.cluster import Cluster
from tests.harness.ports import LOOPBACK
from tests.harness.redis_server import RedisServer, available_binaries
from tests.harness.relay import Relay
from tests.harness.topology import Replicated
from tests.harness.waiting import until
from tests.integration.doctor_run import TOKEN, examined, status_of, the_finding, to_port

KEYS = Keys("model-ready")
LIST = "deployments"
LINES = (rights.RIGHTS, rights.MIRROR, rights.CLUSTER)
RIGHTS = [word.removeprefix("+") for line in LINES for word in line.split() if word.startswith("+")]
PATTERNS = [word for line in LINES for word in line.split() if word.startswith("~")]
OPERATORS = {right.name for right in OPERATING} - {right.name for right in ALWAYS}
OPERATORS_PATTERNS = {
    f"~{key}" for key in (KEYS.trim_lock, KEYS.observed("*"), KEYS.lanes("*"), KEYS.waiting("*"), KEYS.free("*"))
}
BINARIES = [pytest.param(binary, id=name) for name, binary in available_binaries().items()]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """The default user has the token and all rights."""
    with RedisServer(password=TOKEN) as server:
        yield server


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """The user `owner` may do all, the user `registry` what the document says, but for the right of a cluster's."""
    line = [word for word in " ".join(LINES).split() if word != "+cluster|slots"]
    acl = [f"user registry >{TOKEN} {' '.join(line)}", f"user owner on >{TOKEN} ~* &* +@all", "user default off"]
    with Cluster(masters=3, acl=acl) as cluster:
        yield cluster


@pytest.fixture
def empty(server: RedisServer) -> RedisServer:
    server.execute("FLUSHALL")
    return server


def empties(server: RedisServer) -> None:
    until(lambda: server.execute("DBSIZE") == 0, 2, "it left nothing behind")


# -- rights


def test_the_rights_are_those_of_the_document() -> None:
    assert {right.name for right in (*ALWAYS, *MIRROR, *CLUSTER, *OPERATING)} == set(RIGHTS)


@pytest.mark.parametrize("binary", BINARIES)
def test_each_missing_right_is_named_and_the_whole_line_is_enough(binary: str, tmp_path: Path) -> None:
    env = {"REDIS_USERNAME": "registry", "QUEUE_LIST": LIST}
    with RedisServer(binary=binary, acl=["user default off"]) as server:

        def grant(lacking: str = "") -> None:
            line = [word for word in " ".join(LINES).split() if word != lacking]
            server.execute("ACL", "SETUSER", "registry", "reset", f">{TOKEN}", *line)

        grant()
        report = examined(to_port(server.port, **env), tmp_path)
        assert {line.status for line in report.lines} == {"ok"}, report.as_text()
        assert server.execute("ACL", "LOG") == []
        # A login is never refused for its commands; CLUSTER SLOTS is another test's.
        for right in set(RIGHTS) - {"hello", "cluster|slots"}:
            grant(f"+{right}")
            report = examined(to_port(server.port, **env), tmp_path)
            line = the_finding(report, "acl-operating" if right in OPERATORS else "acl-commands")
            assert line.found.startswith(f"the user registry lacks +{right}")
            assert line.found == f"the user registry lacks +{right}" or right == "client|setname"
        for pattern in PATTERNS:
            grant(pattern)
            finding = "acl-operating" if pattern in OPERATORS_PATTERNS else "acl-keys"
            line = the_finding(examined(to_port(server.port, **env), tmp_path), finding)
            assert line.found == f"the user registry lacks {pattern}"
        empties(server)


def test_a_right_that_only_a_cluster_needs(cluster: Cluster, tmp_path: Path) -> None:
    env = to_port(cluster.port, REDIS_USERNAME="registry", REDIS_CLUSTER="true")
    report = examined(env, tmp_path)
    assert "lacks +cluster|slots" in the_finding(report, "acl-commands").found
    assert status_of(report, "probe") == "skipped"
    for node in cluster.nodes:
        node.execute("ACL", "SETUSER", "registry", "+cluster|slots")
    report = examined(env, tmp_path)
    assert {line.status for line in report.lines} == {"ok"}, report.as_text()


# -- keys


@pytest.mark.parametrize(
    ("key", "command"), [(KEYS.events, "SET"), (KEYS.dead_letters, "SET"), (f"{LIST}:processing", "SET")]
)
def test_a_key_that_something_else_holds(key: str, command: str, empty: RedisServer, tmp_path: Path) -> None:
    empty.execute(command, key, "somebody else's")
    report = examined(to_port(empty.port, QUEUE_LIST=LIST), tmp_path)
    assert key in the_finding(report, "keys-wrong-type").found
    assert empty.execute("GET", key) == b"somebody else's"


# -- the engine


@contextmanager
def claiming(server: RedisServer, version: str) -> Iterator[int]:
    """The port of a relay whose server gives itself out for another version: one as old is not to be had everywhere."""
    real = server.execute("HELLO")[b"version"]
    before, after = (f"${len(each)}\r\n{each}\r\n".encode() for each in (real.decode(), version))

    def carry(client: socket.socket) -> None:
        with client, socket.create_connection((LOOPBACK, server.port)) as target, suppress(OSError):
            pump = threading.Thread(target=copy, args=(client, target), daemon=True)
            pump.start()
            while part := target.recv(65536):
                client.sendall(part.replace(before, after))

    def copy(client: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while part := client.recv(65536):
                target.sendall(part)
            target.shutdown(socket.SHUT_RDWR)

    def accept(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=carry, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server((LOOPBACK, 0)) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_an_engine_that_is_too_old(empty: RedisServer, tmp_path: Path) -> None:
    with claiming(empty, "6.0.20") as port:
        assert "6.0.20" in the_finding(examined(to_port(port), tmp_path), "version-old").found


class OldServer(RedisServer):
    """One that does not know HELLO, as before Redis 6.0; the harness's own client does without."""

    def __init__(self) -> None:
        super().__init__(config={"rename-command": 'HELLO ""'})

    def client(self, **options: Any) -> redis.Redis:
        return super().client(**{"protocol": 2, **options})


def test_an_engine_that_does_not_know_hello(tmp_path: Path) -> None:
    with OldServer() as server:
        env = to_port(server.port, REDIS_AUTH_TOKEN="")
        assert "HELLO" in the_finding(examined(env, tmp_path), "version-old").found


def test_a_replica_a_primary_and_the_replicas_that_confirm(tmp_path: Path) -> None:
    with Replicated(password=TOKEN) as pair:
        report = examined(to_port(pair.replica.port), tmp_path)
        the_finding(report, "role-replica")
        assert status_of(report, "probe") == "skipped"

        env = to_port(pair.port, PUBLISH_DURABILITY="replicated", REDIS_TIMEOUT_SECONDS="1")
        report = examined(env, tmp_path)
        assert report.exit_code == 0, report.as_text()
        assert "confirmed by 1 replicas" in report.as_text()
        the_finding(examined({**env, "REDIS_MIN_REPLICAS": "2"}, tmp_path), "replicas-too-few", "replicas")


def test_a_replica_that_lags(tmp_path: Path) -> None:
    with Replicated(password=TOKEN) as pair:
        pair.link.stall()
        env = to_port(pair.port, PUBLISH_DURABILITY="replicated", REDIS_TIMEOUT_SECONDS="1")
        the_finding(examined(env, tmp_path), "probe-unconfirmed")
        until(lambda: pair.primary.execute("DBSIZE") == 0, 2, "it left nothing behind")
        pair.link.resume()


# -- clusters


def test_a_cluster_against_the_setting(cluster: Cluster, tmp_path: Path) -> None:
    """From whichever node it begins, it looks at the owner of the queue."""
    for node in cluster.nodes:
        env = to_port(node.port, REDIS_USERNAME="owner")
        the_finding(examined(env, tmp_path), "cluster-on")
        report = examined({**env, "REDIS_CLUSTER": "true"}, tmp_path)
        assert {line.status for line in report.lines} == {"ok"}, report.as_text()
    for node in cluster.nodes:
        empties(node)


def test_no_cluster_against_the_setting(empty: RedisServer, tmp_path: Path) -> None:
    the_finding(examined(to_port(empty.port, REDIS_CLUSTER="true"), tmp_path), "cluster-off")


def test_a_cluster_in_which_nobody_has_the_queue(tmp_path: Path) -> None:
    with RedisServer(cluster=True) as node:
        report = examined(to_port(node.port, REDIS_AUTH_TOKEN="", REDIS_CLUSTER="true"), tmp_path)
    assert "serves the queue's slot" in the_finding(report, "cluster-no-owner").found
    assert status_of(report, "probe") == "skipped"


# -- memory and latency


def test_a_policy_that_evicts_the_dedup_keys(tmp_path: Path) -> None:
    with RedisServer(password=TOKEN, config={"maxmemory-policy": "volatile-lru"}) as server:
        assert "volatile-lru" in the_finding(examined(to_port(server.port), tmp_path), "eviction-policy").found


def test_a_queue_that_is_full(tmp_path: Path) -> None:
    with RedisServer(password=TOKEN) as server:
        for _ in range(3):
            server.execute("XADD", "{model-ready}:events", "*", "of", "another")
        for limit, full in (("0", False), ("4", False), ("3", True)):
            report = examined(to_port(server.port, QUEUE_MAX_DEPTH=limit), tmp_path)
            assert ("keys-queue-full" in {line.finding for line in report.lines}) == full
        assert "3 entries open, QUEUE_MAX_DEPTH is 3" in the_finding(report, "keys-queue-full").found


def test_a_policy_that_evicts_queues_is_a_failure(tmp_path: Path) -> None:
    with RedisServer(password=TOKEN, config={"maxmemory-policy": "allkeys-random"}) as server:
        found = the_finding(examined(to_port(server.port), tmp_path), "eviction-queue")
        assert (found.status, "whole queues are evicted" in found.found) == ("failure", True)


def test_memory_that_is_nearly_full_and_full(tmp_path: Path) -> None:
    with RedisServer(password=TOKEN) as server:
        server.execute("SET", "filling", bytes(30_000_000))
        server.execute("CONFIG", "SET", "maxmemory", int(server.info("memory")["used_memory"] * 1.05))
        report = examined(to_port(server.port), tmp_path)
        the_finding(report, "memory-nearly-full")
        assert status_of(report, "probe") == "ok"

        server.execute("CONFIG", "SET", "maxmemory", 1)
        report = examined(to_port(server.port), tmp_path)
        assert {line.finding for line in report.lines} == {"", "memory-nearly-full", "probe-refused"}
        assert "REDIS_OOM" in report.as_text()
        assert report.exit_code == 1
        until(lambda: server.execute("KEYS", "*") == [b"filling"], 2, "it left nothing behind")


def test_a_slow_way_is_a_warning(empty: RedisServer, tmp_path: Path) -> None:
    with Relay(empty.port) as way:
        way.delay(0.003)
        report = examine(to_port(way.port, SPOOL_DIR=str(tmp_path)))
    assert "latency-high" in {line.finding for line in report.lines}
    assert status_of(report, "latency") == "warning"
    assert report.exit_code == 0


@pytest.mark.parametrize("request_bytes", [300, 1500, 2500])
def test_a_connection_that_breaks(request_bytes: int, empty: RedisServer, tmp_path: Path) -> None:
    """At whatever moment: it says so, tries nothing more, and leaves nothing behind."""
    with Relay(empty.port) as way:
        way.cut_after(request_bytes)
        report = examined(to_port(way.port), tmp_path)
    (lost,) = [line for line in report.lines if line.finding]
    the_finding(report, "connection-lost", lost.check)
    assert status_of(report, "probe") == "skipped"
    empties(empty)


# -- the probe


def test_the_probe_is_seen_by_no_consumer_and_leaves_nothing(empty: RedisServer, tmp_path: Path) -> None:
    with empty.client() as client:
        client.xadd(KEYS.events, {"ce_id": "real"})
        client.xgroup_create(KEYS.events, "deployer", id="0")
        before = client.xinfo_stream(KEYS.events, full=True)
        report = examined(to_port(empty.port, QUEUE_LIST=LIST), tmp_path)
        assert status_of(report, "probe") == "ok"
        assert client.xinfo_stream(KEYS.events, full=True) == before
        until(lambda: client.keys() == [KEYS.events.encode()], 2, "nothing else is left")
