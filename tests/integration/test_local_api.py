"""The local API: where it listens, who may call, and the health command of the container."""

from __future__ import annotations

import os
import resource
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed448
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from modelready.v1 import queue_service_pb2
from modelready.v1.queue_service_pb2_grpc import QueueServiceStub
from tests.harness.certificates import Authority, TLSFiles
from tests.harness.ports import LOOPBACK, PortLease
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SERVING, SidecarProcess
from tests.harness.waiting import patience, until
from tests.integration.calls import PUBLISHER, STORED, Caller, Code, calling, queued_ids, refusal_of, to_redis
from tests.integration.strangers import (
    DATA,
    GOAWAY,
    HEADERS,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    frame,
    header,
    read_frame,
)

TOKEN = "a token with spaces, and more: 'q\"%"


def command(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *arguments],
        env={"PATH": os.environ["PATH"]} | env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_a_token_guards_every_call_but_health(server: RedisServer) -> None:
    with SidecarProcess(to_redis(server, SIDECAR_API_TOKEN=TOKEN)) as sidecar:
        before = len(queued_ids(server))
        with calling(sidecar) as nobody, calling(sidecar, "wrong") as stranger, calling(sidecar, TOKEN) as friend:
            for caller, reason in ((nobody, "TOKEN_MISSING"), (stranger, "TOKEN_WRONG")):
                calls: list[Callable[[], object]] = [
                    caller.publish, caller.status, caller.services, partial(caller.batch, []),
                    partial(list, caller.stream(iter([]))),
                ]  # fmt: skip
                for call in calls:
                    refusal = refusal_of(call)
                    assert (refusal.code, refusal.reason) == (Code.UNAUTHENTICATED, reason)
                    assert TOKEN not in refusal.text
            assert len(queued_ids(server)) == before
            assert friend.publish().outcome == STORED
            assert friend.status().redis_up
            assert PUBLISHER in friend.services()
        assert sidecar.health() == sidecar.health(PUBLISHER) == SERVING
        assert command("health", "--timeout", "10", SIDECAR_LISTEN=sidecar.address).returncode == 0
        assert command("status", SIDECAR_LISTEN=sidecar.address).returncode == 1
        assert command("status", SIDECAR_LISTEN=sidecar.address, SIDECAR_API_TOKEN=TOKEN).returncode == 0
        assert TOKEN not in sidecar.logs() + str(sidecar.metrics())


def test_what_is_nearly_the_token_is_not_the_token(server: RedisServer) -> None:
    """Among them what no client of grpc would send; and where several are sent, the last one counts."""
    right, wrong = f"Bearer {TOKEN}".encode(), b"Bearer wrong"
    near = [b"Bearer ", b"Bearer", b" ", TOKEN.encode(), right[:-1], right + b"x", right + b"\xff", right.upper(),
            right.replace(b"Bearer", b"Basic"), right.replace(b" ", b"  ")]  # fmt: skip
    with SidecarProcess(to_redis(server, SIDECAR_API_TOKEN=TOKEN)) as sidecar:
        for values in ([], [b""], *([value] for value in near), [right, wrong], [right, b""]):
            assert not may_call(sidecar, values), values
        for scheme in (b"Bearer", b"bearer", b"BEARER"):
            assert may_call(sidecar, [scheme + b" " + TOKEN.encode()]), scheme
        assert may_call(sidecar, [wrong, right])
        assert "Traceback" not in sidecar.logs()
        assert TOKEN not in sidecar.logs()


def may_call(sidecar: SidecarProcess, authorization: list[bytes]) -> bool:
    """Asks for the queue's status over a bare socket, with that metadata as it is."""
    host, _, port = sidecar.address.rpartition(":")
    headers = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"localhost"), (b"te", b"trailers")]
    headers += [(b":path", b"/modelready.v1.QueueService/GetQueueStatus"), (b"content-type", b"application/grpc")]
    headers.sort(key=lambda field: not field[0].startswith(b":"))
    headers += [(b"authorization", value) for value in authorization]
    block = b"".join(header(*field) for field in headers)
    with socket.create_connection((host, int(port)), 5) as connection:
        connection.sendall(PREFACE + frame(SETTINGS, 0, 0, b"") + frame(HEADERS, 4, 1, block))
        connection.sendall(frame(DATA, 1, 1, bytes(5)))
        with connection.makefile("rb") as stream:
            while True:
                kind, flags, payload = read_frame(stream)
                if kind == DATA and payload:
                    return True
                if kind in (RST_STREAM, GOAWAY) or (kind == HEADERS and flags & 1):  # which end the stream
                    return False


def test_tls_and_client_certificates(server: RedisServer, tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    own, mine, foreign = authority.server(), authority.client(), stranger.client()
    env = {"SIDECAR_TLS_CERT_FILE": str(own.cert), "SIDECAR_TLS_KEY_FILE": str(own.key)}
    with SidecarProcess(to_redis(server, **env), tls=own) as sidecar:
        assert Caller(secure(sidecar, authority.ca)).publish().outcome == STORED  # needs no certificate of its own
        assert no_connection(grpc.insecure_channel(sidecar.address))
        assert no_connection(secure(sidecar, stranger.ca))
        assert command("health", "--timeout", "10", SIDECAR_LISTEN=sidecar.address, **env).returncode == 0
        assert command("health", "--timeout", "10", SIDECAR_LISTEN=sidecar.address).returncode == 1
    env["SIDECAR_TLS_CLIENT_CA_FILE"] = str(authority.ca)
    lease, path = PortLease(), tmp_path / "sidecar.sock"
    env["SIDECAR_LISTEN"] = f"{LOOPBACK}:{lease.port},unix:{path}"
    with SidecarProcess(to_redis(server, **env), tls=mine) as sidecar:
        assert command("health", **env).returncode == 0  # on the unix socket
        assert Caller(secure(sidecar, authority.ca, mine)).publish().outcome == STORED
        assert no_connection(secure(sidecar, authority.ca))
        assert no_connection(secure(sidecar, authority.ca, foreign))
    lease.release()


def test_a_certificate_that_grpc_does_not_know_is_said_to_be_so(server: RedisServer, tmp_path: Path) -> None:
    key, path = ed448.Ed448PrivateKey.generate(), tmp_path / "tls.pem"
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")]), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now).not_valid_after(now + timedelta(days=1)).sign(key, None)
    )  # fmt: skip
    pkcs8 = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(certificate.public_bytes(Encoding.PEM) + pkcs8)
    env = {"SIDECAR_TLS_CERT_FILE": str(path), "SIDECAR_TLS_KEY_FILE": str(path), "SIDECAR_LISTEN": f"{LOOPBACK}:0"}
    ended = command("serve", **to_redis(server, SPOOL_DIR=str(tmp_path / "spool"), **env))
    assert ended.returncode == 2
    assert "SIDECAR_TLS_CERT_FILE holds a certificate of a kind that gRPC does not know" in ended.stderr


def secure(sidecar: SidecarProcess, ca: Path, mine: TLSFiles | None = None) -> grpc.Channel:
    pair = (mine.key.read_bytes(), mine.cert.read_bytes()) if mine else (None, None)
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.secure_channel(sidecar.address, grpc.ssl_channel_credentials(ca.read_bytes(), *pair), options)


def no_connection(channel: grpc.Channel) -> bool:
    with channel:
        return refusal_of(lambda: Caller(channel).publish(timeout=20)).code is Code.UNAVAILABLE


def test_two_addresses_and_a_unix_socket(server: RedisServer, tmp_path: Path) -> None:
    first, second, path = PortLease(), PortLease(), tmp_path / "sidecar.sock"
    listen = f"{LOOPBACK}:{first.port}, {LOOPBACK}:{second.port},unix:{path}"
    with SidecarProcess(to_redis(server, SIDECAR_LISTEN=listen)):
        for address in listen.split(","):
            with grpc.insecure_channel(address.strip()) as channel:
                assert Caller(channel).publish().outcome == STORED
            assert command("health", "--address", address.strip()).stdout == "SERVING\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
    first.release()
    second.release()


def test_a_live_socket_is_not_stolen_and_a_stale_one_is_replaced(server: RedisServer, tmp_path: Path) -> None:
    path = tmp_path / "sidecar.sock"
    env = to_redis(server, SIDECAR_LISTEN=f"unix:{path}")
    with SidecarProcess(env) as first:
        second = SidecarProcess(env)
        second.start(None)
        assert second.wait() == 2
        assert f"SIDECAR_LISTEN has 'unix:{path}': another process listens there" in second.logs()
        second.close()
        assert first.health() == SERVING
        first.kill()
        assert path.exists()
        first.start()
        with calling(first) as caller:
            assert caller.publish().outcome == STORED
    path.unlink(missing_ok=True)
    path.write_text("somebody's notes")
    third = SidecarProcess(env)
    third.start(None)
    assert third.wait() == 2
    assert "a file of another kind" in third.logs()
    assert path.read_text() == "somebody's notes"
    third.close()


def test_the_health_command_says_it_by_its_exit_code(server: RedisServer) -> None:
    with SidecarProcess(to_redis(server)) as sidecar:
        for name, code in (("", 0), (PUBLISHER, 0), ("redis", 0), ("nobody", 1)):
            assert (
                command("health", "--timeout", "10", "--service", name, SIDECAR_LISTEN=sidecar.address).returncode
                == code
            )
        server.execute("CLIENT", "KILL", "TYPE", "normal")
        sidecar.freeze()
        began = time.monotonic()
        frozen = command("health", "--timeout", "0.5", SIDECAR_LISTEN=sidecar.address)
        assert frozen.returncode == 1
        assert "not healthy" in frozen.stderr
        assert time.monotonic() - began < patience(15)
        sidecar.thaw()
        until(lambda: sidecar.health() == SERVING, 15, "it serves")
        sidecar.terminate()
        assert command("health", "--timeout", "10", SIDECAR_LISTEN=sidecar.address).returncode == 1
    with socket.create_server((LOOPBACK, 0)) as mute:
        assert command("health", "--timeout", "0.2", "--address", f"{LOOPBACK}:{mute.getsockname()[1]}").returncode == 1
    assert command("health", "--address", "no address").returncode == 1


def test_the_health_command_costs_little(server: RedisServer) -> None:
    """It runs every few seconds, on a fraction of a CPU."""
    with SidecarProcess(to_redis(server)) as sidecar:
        env = {"SIDECAR_LISTEN": sidecar.address, "SIDECAR_HTTP_LISTEN": sidecar.http}
        command("health", "--timeout", "10", **env)
        costs = []
        for _ in range(5):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            assert command("health", "--timeout", "10", **env).returncode == 0
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            costs.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    print(f"health command: {min(costs) * 1000:.0f} ms of CPU")
    assert min(costs) < 0.15


def test_embedded_works_and_what_a_kill_left_behind_is_taken_over() -> None:
    sidecar = SidecarProcess(command=(sys.executable, "-m", "sidecar", "serve", "--embedded"))
    with sidecar, calling(sidecar) as caller:
        ids = {caller.publish().event_id for _ in range(20)}
        sidecar.kill()
        sidecar.start()
        with calling(sidecar) as again:
            ids.add(again.publish().event_id)
            assert again.status().stream_length == len(ids)
            assert sidecar.terminate() == 0
        sidecar.start()  # its own server was stopped with it, and has kept all
        with sidecar.channel() as channel:
            status = QueueServiceStub(channel).GetQueueStatus(queue_service_pb2.GetQueueStatusRequest())
            assert status.stream_length == len(ids)
        assert sidecar.terminate() == 0
