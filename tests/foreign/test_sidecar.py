"""The clients in other languages against a real sidecar: its addresses, its refusals, its death."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.foreign.clients import Client, Driver
from tests.harness.certificates import Authority
from tests.harness.ports import LOOPBACK, PortLease
from tests.harness.redis_server import RedisServer
from tests.harness.relay import Relay
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until
from tests.integration.calls import queued, to_redis

TOKEN = "the-token"


def asking(target: str, version: int = 7, **options: Any) -> Mapping[str, Any]:
    event = {"model": {"name": "fraud", "version": f"{version}"}, "artifact": {"uri": "s3://models/fraud/"}}
    return {"timeout": 10, "token": TOKEN, "target": target, "event": event, **options}


@pytest.fixture
def queue(server: RedisServer) -> RedisServer:
    """Redis, empty."""
    server.execute("FLUSHALL")
    return server


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("sidecar"))


@pytest.fixture(scope="module")
def sidecar(server: RedisServer, authority: Authority) -> Iterator[SidecarProcess]:
    """On a port with TLS and a unix socket."""
    tls, lease = authority.server(), PortLease()
    env = to_redis(
        server,
        SIDECAR_API_TOKEN=TOKEN,
        SIDECAR_LISTEN=f"{LOOPBACK}:{lease.port},unix:{authority.ca.parent}/socket",
        SIDECAR_TLS_CERT_FILE=str(tls.cert),
        SIDECAR_TLS_KEY_FILE=str(tls.key),
    )
    with SidecarProcess(env, tls=tls) as sidecar:
        yield sidecar
    lease.release()


def on_socket(sidecar: SidecarProcess) -> str:
    return sidecar.env["SIDECAR_LISTEN"].split(",")[1]


def test_over_tls_and_a_unix_socket(
    driver: Driver, sidecar: SidecarProcess, authority: Authority, queue: RedisServer
) -> None:
    over_tls = asking(sidecar.address, 1, ca_file=str(authority.ca))
    receipts = [driver.publish(asked)["receipt"] for asked in (over_tls, asking(on_socket(sidecar), 2))]
    assert [receipt["outcome"] for receipt in receipts] == ["OUTCOME_STORED"] * 2
    assert [event.model.version for event in queued(queue)] == ["1", "2"]
    assert [receipt["eventId"] for receipt in receipts] == [event.event_id for event in queued(queue)]


def test_the_same_id_makes_one_entry(driver: Driver, sidecar: SidecarProcess, queue: RedisServer) -> None:
    asked = asking(on_socket(sidecar))
    asked["event"]["eventId"] = "mine"
    first, second = driver.publish(asked)["receipt"], driver.publish(asked)["receipt"]
    assert (first["outcome"], second["outcome"]) == ("OUTCOME_STORED", "OUTCOME_DUPLICATE")
    assert first["entryId"] == second["entryId"]
    assert len(queued(queue)) == 1


def test_what_the_sidecar_refuses(driver: Driver, sidecar: SidecarProcess, queue: RedisServer) -> None:
    asked = asking(on_socket(sidecar), event={"model": {"name": "fraud"}})
    error = driver.publish(asked)["error"]
    assert (error["kind"], error["reason"]) == ("InvalidEvent", "INVALID_EVENT")
    assert {field for field, _ in error["violations"]} == {"event.model.version", "event.artifact.uri"}
    error = driver.publish(asking(on_socket(sidecar), token="wrong"))["error"]
    assert (error["kind"], error["reason"]) == ("Unauthenticated", "TOKEN_WRONG")
    assert queued(queue) == []


def test_a_certificate_that_nobody_vouches_for(
    driver: Driver, sidecar: SidecarProcess, queue: RedisServer, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger")
    error = driver.publish(asking(sidecar.address, ca_file=str(stranger.ca), timeout=1))["error"]
    assert error["kind"] in ("Unavailable", "DeadlineExceeded")
    assert queued(queue) == []


def test_nothing_is_lost_doubled_or_reordered_when_the_sidecar_is_killed(client: Client, queue: RedisServer) -> None:
    receipts: list[Mapping[str, Any]] = []

    def publish(target: str) -> None:
        with Driver(client) as driver:
            receipts.extend(driver.publish(asking(target, version, timeout=60)) for version in range(200))

    with SidecarProcess(to_redis(queue, SIDECAR_API_TOKEN=TOKEN)) as sidecar:
        publishing = threading.Thread(target=publish, args=(sidecar.address,))
        publishing.start()
        for kills in range(1, 4):
            until(lambda: len(receipts) >= kills * 50, 60, "it publishes")  # noqa: B023
            sidecar.kill()
            sidecar.start()
        publishing.join(60)
    assert not publishing.is_alive()
    events = queued(queue)
    assert [receipt["receipt"]["eventId"] for receipt in receipts] == [event.event_id for event in events]
    assert [event.model.version for event in events] == [f"{version}" for version in range(200)]


def test_without_a_sidecar(driver: Driver) -> None:
    lease = PortLease()
    error = driver.publish(asking(f"{LOOPBACK}:{lease.port}", timeout=1))["error"]
    assert (error["kind"], error["reason"]) == ("Unavailable", "")
    lease.release()


@pytest.mark.soak
def test_a_connection_whose_packets_vanish_is_replaced(client: Client, queue: RedisServer) -> None:
    """A ping finds it out after 10 seconds, and gives it up 5 seconds later."""
    with (
        SidecarProcess(to_redis(queue, SIDECAR_API_TOKEN=TOKEN)) as sidecar,
        Relay(int(sidecar.address.rpartition(":")[2])) as relay,
        Driver(client) as driver,
        ThreadPoolExecutor() as threads,
    ):
        target = f"{relay.host}:{relay.port}"
        driver.publish(asking(target, 1, timeout=60))
        relay.swallow_replies()
        second = threads.submit(driver.publish, asking(target, 2, timeout=60))
        until(lambda: len(queued(queue)) == 2, 10, "it is stored, and its receipt is lost")
        relay.pass_replies()
        assert second.result()["receipt"]["outcome"] == "OUTCOME_DUPLICATE"
        assert relay.counters.accepted == 2
