"""TLS to Redis: an authority of one's own, client certificates, and every certificate that must be refused."""

from __future__ import annotations

import http.client
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.certificates import Authority, TLSFiles
from tests.harness.redis_server import RedisServer, available_binaries, supports_tls
from tests.harness.relay import Relay
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until
from tests.integration.calls import DEFAULT, PRIMARY, STORED, Code, Load, calling, health, model_event, queued_ids

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


def place(issued: TLSFiles, at: TLSFiles) -> None:
    shutil.copyfile(issued.cert, at.cert)
    shutil.copyfile(issued.key, at.key)


@pytest.mark.parametrize("binary", TLS_SERVERS)
def test_another_authority_and_client_certificate_are_taken_without_a_restart(
    binary: str, authority: Authority, tmp_path: Path
) -> None:
    """The server restarts with them, the sidecar does not. No caller sees an error: both are trusted meanwhile."""
    other = Authority(tmp_path, "other")
    old_ca, new_ca = authority.ca.read_bytes(), other.ca.read_bytes()
    mine = TLSFiles(tmp_path / "mine.crt", tmp_path / "mine.key", tmp_path / "trusted.pem")
    server_s = TLSFiles(tmp_path / "server.crt", tmp_path / "server.key", tmp_path / "server-ca.pem")
    place(authority.client(), mine)
    place(authority.server(), server_s)
    mine.ca.write_bytes(old_ca)
    server_s.ca.write_bytes(old_ca)
    env = {"REDIS_TLS_CERT_FILE": str(mine.cert), "REDIS_TLS_KEY_FILE": str(mine.key)}
    with RedisServer(binary=binary, password="a-token", tls=server_s, appendonly=True) as server:

        def insist() -> None:
            """Everybody needs a certificate from now on, and must show it."""
            with server.client(ssl_certfile=str(mine.cert), ssl_keyfile=str(mine.key)) as client:
                client.config_set("tls-auth-clients", "yes")
                client.client_kill_filter(_type="normal", skipme=True)

        insist()
        with SidecarProcess(by_tls(server.port, mine.ca, **env)) as sidecar, Load(sidecar, [DEFAULT] * 2) as load:
            until(lambda: len(load.acked) > 20, 5, "it publishes")
            mine.ca.write_bytes(old_ca + new_ca)
            server.stop()
            place(other.client(), mine)
            place(other.server(), server_s)
            server_s.ca.write_bytes(new_ca)
            server.start()
            insist()
            until(lambda: health(sidecar) == (True, True, True), 5, "it is connected again")
            mine.ca.write_bytes(new_ca)
            insist()
            with calling(sidecar) as caller:
                until(lambda: caller.publish(durability=PRIMARY).outcome == STORED, 5, "it is connected again")
            load.__exit__()
            assert load.errors == [], sidecar.logs()
            until(lambda: sidecar.metrics()["modelready_spool_events"] == 0, 10, "the spool is empty")
            assert "new certificate files are in use" in sidecar.logs()
            with server.client(ssl_certfile=str(mine.cert), ssl_keyfile=str(mine.key)) as client:
                stored = [fields[b"ce_id"].decode() for _, fields in client.xrange("{model-ready}:events")]
        assert len(stored) == len(set(stored))
        assert set(load.acked) <= set(stored)


@pytest.mark.parametrize("binary", TLS_SERVERS)
def test_client_files_that_cannot_be_used_leave_those_before_in_use(
    binary: str, authority: Authority, tmp_path: Path
) -> None:
    mine = TLSFiles(tmp_path / "mine.crt", tmp_path / "mine.key", authority.ca)
    place(authority.client(), mine)
    env = {"REDIS_TLS_CERT_FILE": str(mine.cert), "REDIS_TLS_KEY_FILE": str(mine.key)}
    with (
        RedisServer(binary=binary, password="a-token", tls=authority.server()) as server,
        SidecarProcess(by_tls(server.port, authority.ca, **env)) as sidecar,
        calling(sidecar) as caller,
    ):
        shutil.copyfile(authority.client().cert, mine.cert)  # and its key is not there yet
        with server.client() as client:
            client.config_set("tls-auth-clients", "yes")
            client.client_kill_filter(_type="normal", skipme=True)
        for _ in range(10):
            assert caller.publish(durability=PRIMARY).outcome == STORED
        warnings = [line for line in sidecar.logs().splitlines() if "cannot be used" in line]
        assert len(warnings) == 1
        assert "REDIS_TLS_CERT_FILE" in warnings[0]


def test_an_authority_s_file_that_blocks_freezes_nothing(authority: Authority, plain: RedisServer) -> None:
    """Under load, while connections are opened again."""
    with Relay(plain.port, tls=authority.server()) as endpoint:
        sidecar = SidecarProcess(by_tls(endpoint.port, authority.ca))
        with sidecar, Load(sidecar, [DEFAULT] * 2) as load:
            until(lambda: len(load.acked) > 20, 5, "it publishes")
            authority.ca.unlink()
            os.mkfifo(authority.ca)
            with plain.client() as client:
                client.client_kill_filter(_type="normal", skipme=True)
            until(lambda: "it cannot be read (is no file)" in sidecar.logs(), 5, "it has looked")
            before = len(load.acked)
            until(lambda: len(load.acked) > before + 20, 5, "it goes on")
            until(lambda: health(sidecar) == (True, True, True), 5, "it is connected again")
            load.__exit__()
            assert load.errors == [], sidecar.logs()
            assert sidecar.terminate(10) == 0
        assert set(load.acked) <= set(queued_ids(plain))


def test_a_renewed_certificate_is_taken_without_a_restart(authority: Authority, plain: RedisServer) -> None:
    with Relay(plain.port, tls=authority.expired()) as endpoint:
        sidecar = SidecarProcess(by_tls(endpoint.port, authority.ca))
        sidecar.start("listening")
        with sidecar, calling(sidecar) as caller:
            until(lambda: health(sidecar) == (True, False, False), 3, "it refuses the expired one")
            endpoint.use_certificate(authority.server())
            until(lambda: health(sidecar) == (True, True, True), 5, "it takes the new one")
            assert caller.publish(durability=PRIMARY).outcome == STORED
