"""doctor, below Redis's protocol: settings, names, connections and TLS that are wrong, each for real."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sidecar.cli.doctor.findings import CHECKS
from sidecar.cli.main import main
from tests.harness.certificates import Authority, TLSFiles
from tests.harness.names import dead_addresses, own_names
from tests.harness.ports import LOOPBACK, PortLease
from tests.harness.redis_server import RedisServer, available_binaries, supports_tls
from tests.harness.relay import Relay
from tests.integration.doctor_run import TOKEN, behind_tls, examined, status_of, the_finding, to_port

TLS_SERVERS = [
    pytest.param(binary, id=name) for name, binary in available_binaries().items() if supports_tls(binary)
] or [pytest.param("", marks=pytest.mark.skip(reason="no server here was built with TLS"))]
QUICK = {"REDIS_TIMEOUT_SECONDS": "0.4"}


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer(password=TOKEN) as server:
        yield server


@pytest.fixture
def here(server: RedisServer, tmp_path: Path) -> dict[str, str]:
    """An environment in which all is well."""
    return to_port(server.port, SPOOL_DIR=str(tmp_path))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of a plain TCP listener that does this with each connection, one after the other."""
    with socket.create_server((LOOPBACK, 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    serve(connection)

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def hang_up(connection: socket.socket) -> None:
    with connection:
        connection.recv(1)


class Web(BaseHTTPRequestHandler):
    """A server of another protocol."""

    def log_message(self, *_: object) -> None:
        pass


# -- the command


def test_all_is_well(server: RedisServer, tmp_path: Path) -> None:
    """Every check is made, in order, and the two forms say the same."""
    report = examined(to_port(server.port), tmp_path / "spool")
    assert [line.check for line in report.lines] == list(CHECKS)
    assert {line.status for line in report.lines} == {"ok"}, report.as_text()
    assert report.exit_code == 0
    assert report.as_text().endswith("all is well")
    document = json.loads(report.as_json())
    assert document["exit_code"] == 0
    assert [check["check"] for check in document["checks"]] == list(CHECKS)
    assert all(check["found"] in report.as_text() for check in document["checks"])
    assert not (tmp_path / "spool").exists()


def test_variables_are_shown_with_their_source_and_without_secrets(server: RedisServer, tmp_path: Path) -> None:
    env = to_port(server.port, SIDECAR_API_TOKEN=TOKEN, QUEUE_NAME="deploys")
    shown = {name: (value, source) for name, value, source in examined(env, tmp_path).variables}
    assert shown["QUEUE_NAME"] == ("deploys", "environment")
    assert shown["QUEUE_DEDUP_SECONDS"] == ("86400", "default")
    assert shown["REDIS_AUTH_TOKEN"] == shown["SIDECAR_API_TOKEN"] == ("***", "environment")
    assert shown["REDIS_TLS"] == ("false", "default")


@pytest.mark.parametrize(("env", "code"), [({}, 0), ({"REDIS_AUTH_TOKEN": "wrong"}, 1), ({"REDIS_PORT": "x"}, 2)])
def test_the_exit_code(
    env: dict[str, str],
    code: int,
    here: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in (here | env).items():
        monkeypatch.setenv(name, value)
    assert main(["doctor", "--json"]) == code
    printed = capsys.readouterr()
    assert json.loads(printed.out)["exit_code"] == code
    assert printed.err == ""
    assert main(["doctor"]) == code
    assert "\x1b" not in capsys.readouterr().out


def test_colour_on_a_terminal(here: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    env = {"PATH": os.environ["PATH"], **here}
    ended = subprocess.run([sys.executable, "-m", "sidecar", "doctor"], env=env, stdout=theirs, timeout=20, check=False)
    os.close(theirs)
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        shown = terminal.read(4096)
    assert ended.returncode == 0
    assert b"\x1b[32mok" in shown


# -- settings


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"REDIS_PORT": "6379a"}, "REDIS_PORT is '6379a': it must be a whole number from 1 to 65535"),
        (
            {"REDIS_HOST": f"redis://:{TOKEN}@{LOOPBACK}"},
            "REDIS_HOST is '***@127.0.0.1': it must",
        ),
        ({"REDIS_AUTH_TOKEN": "", "REDIS_USERNAME": "registry"}, "REDIS_AUTH_TOKEN is empty"),
        ({"REDIS_TLS": "true", "REDIS_TLS_CA_FILE": __file__}, "it must hold certificates, PEM"),
        ({"REDIS_IAM_CLUSTER": "cache"}, "only one of them may be"),
    ],
)
def test_wrong_settings_end_it_with_2_and_their_own_line(env: dict[str, str], said: str, tmp_path: Path) -> None:
    report = examined(to_port(1, **env), tmp_path)
    assert said in the_finding(report, "settings-wrong").found
    assert {line.status for line in report.lines[1:]} == {"skipped"}
    assert report.lines[1].found == "not tried: settings failed"


def test_a_variable_that_nothing_reads(tmp_path: Path) -> None:
    with RedisServer(password=TOKEN) as server:
        report = examined(to_port(server.port, QUEUE_DEDUP_SECOND="60"), tmp_path)
    found = the_finding(report, "settings-unread").found
    assert found == "nothing reads 'QUEUE_DEDUP_SECOND': is QUEUE_DEDUP_SECONDS meant?"


# -- the name and the connection


def test_a_host_without_an_address(tmp_path: Path) -> None:
    report = examined(to_port(6379, REDIS_HOST="no-such-host.invalid", REDIS_TLS="false"), tmp_path)
    assert "does not resolve" in the_finding(report, "dns-unresolved").found
    assert status_of(report, "tcp") == status_of(report, "probe") == "skipped"
    assert status_of(report, "spool") == "ok"


@pytest.mark.parametrize(
    ("env", "place", "said"),
    [
        ({"REDIS_HOST": "no-such-service"}, "Compose", "See that the container is running"),
        ({"REDIS_HOST": "no-such-service", "ECS_CONTAINER_METADATA_URI_V4": "http://x/v4"}, "AWS", "the VPC's DNS"),
        (
            {"REDIS_HOST": "no-such.invalid", "KUBERNETES_SERVICE_HOST": "10.0.0.1"},
            "Kubernetes",
            "See that a Service has",
        ),
    ],
)
def test_what_to_do_is_about_where_it_runs(env: dict[str, str], place: str, said: str, tmp_path: Path) -> None:
    report = examined(to_port(6379, REDIS_TLS="false", **env), tmp_path)
    assert said in the_finding(report, "dns-unresolved", place=place).todo


def test_a_port_that_nothing_listens_on(tmp_path: Path) -> None:
    lease = PortLease()
    report = examined(to_port(lease.port), tmp_path)
    lease.release()
    assert str(lease.port) in the_finding(report, "tcp-refused").found


def test_a_connection_that_never_opens(tmp_path: Path) -> None:
    """As behind a security group: the listener's queue is full, and the kernel drops what comes."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((LOOPBACK, 0), backlog=0))
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        report = examined(to_port(listener.getsockname()[1], **QUICK), tmp_path)
    assert "within 0.4 s" in the_finding(report, "tcp-timeout").found


def test_a_dead_address_among_others_is_named(
    server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dead_addresses(server.port) as nowhere:
        own_names(monkeypatch)["cache.test"] = [*nowhere, LOOPBACK]
        report = examined(to_port(server.port, REDIS_HOST="cache.test", REDIS_TLS="false", **QUICK), tmp_path)
    found = the_finding(report, "tcp-address-dead").found
    assert f"at {LOOPBACK}, but {nowhere[0]} does not answer within 0.4 s" in found
    assert status_of(report, "auth") == status_of(report, "probe") == "ok"


def test_an_address_without_a_route(tmp_path: Path) -> None:
    report = examined(to_port(6379, REDIS_HOST="255.255.255.255", REDIS_TLS="false"), tmp_path)
    assert "cannot be reached" in the_finding(report, "tcp-unreachable").found


# -- TLS


@pytest.mark.parametrize("tls", ["true", "false"])
def test_a_listener_that_never_answers(tls: str, tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        report = examined(to_port(listener.getsockname()[1], REDIS_TLS=tls, **QUICK), tmp_path)
    assert "no answer" in the_finding(report, "tls-no-answer").found


def test_a_server_of_another_protocol(tmp_path: Path, authority: Authority) -> None:
    web = ThreadingHTTPServer((LOOPBACK, 0), Web)
    threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True).start()
    certificate = authority.server()
    try:
        report = examined(to_port(web.server_port), tmp_path)
        assert "HTML" in the_finding(report, "tls-no-redis").found
        with Relay(web.server_port, tls=certificate) as endpoint:
            env = to_port(endpoint.port, REDIS_TLS="true", REDIS_TLS_CA_FILE=str(certificate.ca))
            the_finding(examined(env, tmp_path), "tls-no-redis")
    finally:
        web.shutdown()
        web.server_close()


def test_tls_on_where_the_server_speaks_plain(server: RedisServer, tmp_path: Path) -> None:
    the_finding(examined(to_port(server.port, REDIS_TLS="true", **QUICK), tmp_path), "tls-server-plain")


@pytest.mark.parametrize("binary", TLS_SERVERS)
def test_tls_off_where_the_server_speaks_tls(binary: str, authority: Authority, tmp_path: Path) -> None:
    with RedisServer(binary=binary, password=TOKEN, tls=authority.server()) as server:
        the_finding(examined(to_port(server.port, REDIS_TLS="false"), tmp_path), "tls-server-tls")


def test_a_server_that_ends_the_handshake(tmp_path: Path) -> None:
    with listening(hang_up) as port:
        the_finding(examined(to_port(port, REDIS_TLS="true"), tmp_path), "tls-handshake")
        assert "closes" in the_finding(examined(to_port(port), tmp_path), "tls-no-redis").found


def issued(authority: Authority, begins: timedelta, ends: timedelta) -> TLSFiles:
    now = datetime.now(UTC)
    return authority._issue((LOOPBACK,), now + begins, now + ends)


@pytest.mark.parametrize(
    ("finding", "certificate"),
    [
        ("tls-name", Authority.wrong_name),
        ("tls-expired", Authority.expired),
        ("tls-not-yet-valid", lambda authority: issued(authority, timedelta(days=1), timedelta(days=90))),
    ],
)
def test_a_certificate_that_is_not_accepted(
    finding: str,
    certificate: Callable[[Authority], TLSFiles],
    server: RedisServer,
    authority: Authority,
    tmp_path: Path,
) -> None:
    with behind_tls(server, certificate(authority)) as env:
        line = the_finding(examined(env, tmp_path), finding)
    assert finding != "tls-name" or "elsewhere.invalid" in line.found


def test_a_certificate_of_an_authority_that_is_not_trusted(
    server: RedisServer, authority: Authority, tmp_path: Path
) -> None:
    with behind_tls(server, Authority(tmp_path, "stranger").server()) as env:
        the_finding(examined({**env, "REDIS_TLS_CA_FILE": str(authority.ca)}, tmp_path), "tls-untrusted")
        the_finding(examined({**env, "REDIS_TLS_CA_FILE": ""}, tmp_path), "tls-untrusted")


def test_a_certificate_that_expires_soon_is_a_warning(
    server: RedisServer, authority: Authority, tmp_path: Path
) -> None:
    with behind_tls(server, issued(authority, timedelta(days=-1), timedelta(days=10))) as env:
        report = examined(env, tmp_path)
    assert "10 more days" in the_finding(report, "tls-expires-soon").found
    assert status_of(report, "probe") == "ok"


@pytest.mark.parametrize("kind", ["missing", "another authority's", "right"])
@pytest.mark.parametrize("binary", TLS_SERVERS)
def test_a_client_certificate_that_the_server_wants(
    binary: str, kind: str, authority: Authority, tmp_path: Path
) -> None:
    mine = authority.client() if kind == "right" else Authority(tmp_path, "stranger").client()
    with RedisServer(binary=binary, password=TOKEN, tls=authority.server()) as server:
        server.execute("CONFIG", "SET", "tls-auth-clients", "yes")
        env = to_port(server.port, REDIS_TLS="true", REDIS_TLS_CA_FILE=str(authority.ca))
        if kind != "missing":
            env |= {"REDIS_TLS_CERT_FILE": str(mine.cert), "REDIS_TLS_KEY_FILE": str(mine.key)}
        report = examined(env, tmp_path)
    if kind == "right":
        assert report.exit_code == 0, report.as_text()
    else:
        the_finding(report, "tls-client-certificate")


def test_a_missing_client_certificate_that_any_tls_server_wants(
    server: RedisServer, authority: Authority, tmp_path: Path
) -> None:
    with behind_tls(server, authority.server(), client_ca=authority.ca) as env:
        the_finding(examined(env, tmp_path), "tls-client-certificate")
