"""TLS to Redis: an authority of one's own, client certificates, and every certificate that must be refused."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.certificates import Authority
from tests.harness.redis_server import RedisServer, available_binaries, supports_tls
from tests.harness.relay import Relay
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until
from tests.integration.calls import DEFAULT, PRIMARY, STORED, Code, calling, health, model_event, queued_ids

TLS_SERVERS = [
    pytest.param(binary, id=name) for name, binary in available_binaries().items() if supports_tls(binary)
] or [pytest.param("", marks=pytest.mark.skip(reason="no server here was built with TLS"))]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def plain() -> Iterator[RedisServer]:
    """A server behind a relay that speaks TLS for it, so that each test can choose the certificate."""
    with RedisServer(password="a-token") as server:
        yield server


def by_tls(port: int, ca: Path, **env: str) -> dict[str, str]:
    address = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(port), "REDIS_AUTH_TOKEN": "a-token"}
    return {**address, "REDIS_TLS": "true", "REDIS_TLS_CA_FILE": str(ca), **env}


@pytest.mark.parametrize("binary", TLS_SERVERS)
def test_a_server_that_speaks_tls_itself_and_asks_for_a_client_certificate(binary: str, authority: Authority) -> None:
    mine = authority.client()
    with RedisServer(binary=binary, password="a-token", tls=authority.server()) as server:
        server.execute("CONFIG", "SET", "tls-auth-clients", "yes")
        certificate = {"REDIS_TLS_CERT_FILE": str(mine.cert), "REDIS_TLS_KEY_FILE": str(mine.key)}
        with SidecarProcess(by_tls(server.port, authority.ca, **certificate)) as sidecar, calling(sidecar) as caller:
            event = model_event()
            assert caller.publish(event, PRIMARY).outcome == STORED
            assert health(sidecar) == (True, True, True)
            with server.client(ssl_certfile=str(mine.cert), ssl_keyfile=str(mine.key)) as client:
                assert [fields[b"ce_id"] for _, fields in client.xrange("{model-ready}:events")] == [
                    event.event_id.encode()
                ]


@pytest.mark.parametrize("binary", TLS_SERVERS)
@pytest.mark.parametrize("kind", ["missing", "another authority's"])
def test_a_client_certificate_that_the_server_does_not_accept(
    kind: str, binary: str, authority: Authority, tmp_path: Path
) -> None:
    mine = Authority(tmp_path, "stranger").client()
    certificate = {"REDIS_TLS_CERT_FILE": str(mine.cert), "REDIS_TLS_KEY_FILE": str(mine.key)}
    with RedisServer(binary=binary, password="a-token", tls=authority.server()) as server:
        server.execute("CONFIG", "SET", "tls-auth-clients", "yes")
        refused(by_tls(server.port, authority.ca, **certificate if kind != "missing" else {}))


@pytest.mark.parametrize("kind", ["wrong name", "expired", "unknown authority"])
def test_a_certificate_that_must_not_be_trusted(
    kind: str, authority: Authority, tmp_path: Path, plain: RedisServer
) -> None:
    certificate = {
        "wrong name": authority.wrong_name,
        "expired": authority.expired,
        "unknown authority": Authority(tmp_path, "stranger").server,
    }[kind]()
    with Relay(plain.port, tls=certificate) as endpoint:
        refused(by_tls(endpoint.port, authority.ca))
        assert not queued_ids(plain)


def test_without_a_ca_file_a_private_authority_is_not_trusted(authority: Authority, plain: RedisServer) -> None:
    with Relay(plain.port, tls=authority.server()) as endpoint:
        env = by_tls(endpoint.port, authority.ca)
        del env["REDIS_TLS_CA_FILE"]
        refused(env)
        assert not queued_ids(plain)


def refused(env: dict[str, str]) -> None:
    """Not ready from the start, and each publish says that it is the certificate; nothing is kept, nothing is sent."""
    sidecar = SidecarProcess(env)
    sidecar.start("listening")
    with sidecar, calling(sidecar) as caller:
        for durability in (DEFAULT, PRIMARY):
            refusal = caller.refused(durability=durability)
            assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "REDIS_CERTIFICATE")
            assert not refusal.retry
        until(lambda: "certificate" in sidecar.get("/readyz")[1], 3, "/readyz says why")
        assert health(sidecar) == (True, False, False)
        status, body = sidecar.get("/readyz")
        assert status == http.client.SERVICE_UNAVAILABLE
        assert "certificate" in json.loads(body)["problem"]
        assert sidecar.metrics()["modelready_spool_events"] == 0
        assert "a-token" not in sidecar.logs() + body


def test_a_renewed_certificate_is_taken_without_a_restart(authority: Authority, plain: RedisServer) -> None:
    with Relay(plain.port, tls=authority.expired()) as endpoint:
        sidecar = SidecarProcess(by_tls(endpoint.port, authority.ca))
        sidecar.start("listening")
        with sidecar, calling(sidecar) as caller:
            until(lambda: health(sidecar) == (True, False, False), 3, "it refuses the expired one")
            endpoint.use_certificate(authority.server())
            until(lambda: health(sidecar) == (True, True, True), 5, "it takes the new one")
            assert caller.publish(durability=PRIMARY).outcome == STORED
