"""A start: it fails at once and says why in one line, or it serves, soon, in little memory, whether Redis is there."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.cli.main import main
from sidecar.settings import misspelt
from tests.harness.ports import LOOPBACK
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import patience, until
from tests.integration.calls import TO_DISK, calling, health, model_event, queued_ids, to_redis

SECRET = "a-secret-that-nobody-may-see"

# Each variable with a wrong value, and what the line must say of it.
WRONG = [
    ("REDIS_HOST", "", "is not set"),
    ("REDIS_HOST", "redis:6379", "without scheme and port"),
    ("REDIS_HOST", " redis", "without scheme and port"),
    ("AWS_ENDPOINT_URL", "moto:5000", "http:// or https://"),
    ("REDIS_PORT", "0", "from 1 to 65535"),
    ("REDIS_PORT", "6379a", "a whole number"),
    ("REDIS_PORT", "6379.5", "a whole number"),
    ("REDIS_DB", "-1", "from 0 to 65535"),
    ("REDIS_USERNAME", "registry", "REDIS_AUTH_TOKEN is empty"),
    ("REDIS_IAM_SERVERLESS", "perhaps", "true or false"),
    ("REDIS_TLS", "tls", "true or false"),
    ("REDIS_TLS_CA_FILE", "/none/ca.pem", "a file that can be read (No such file or directory)"),
    ("REDIS_TLS_CERT_FILE", "/none/cert.pem", "a file that can be read"),
    ("REDIS_TLS_CERT_FILE", __file__, "set together"),
    ("REDIS_TLS_KEY_FILE", "/", "a file that can be read (Is a directory)"),
    ("REDIS_CLUSTER", "2", "true or false"),
    ("REDIS_POOL_SIZE", "1", "from 2 to 256"),
    ("REDIS_TIMEOUT_SECONDS", "0", "from 0.05 to 60"),
    ("REDIS_TIMEOUT_SECONDS", "nan", "a number"),
    ("REDIS_TIMEOUT_SECONDS", "inf", "a number"),
    ("REDIS_MIN_REPLICAS", "6", "from 1 to 5"),
    ("QUEUE_NAME", "a{b}c", "of the characters"),
    ("QUEUE_NAME", "-q", "of the characters"),
    ("QUEUE_ENCODING", "avro", "one of protobuf, json"),
    ("QUEUE_DEDUP_SECONDS", "1", "from 60 to"),
    ("QUEUE_LIST", "{model-ready}:events", "the queue's own"),
    ("QUEUE_LIST", "a=xml", "name=envelope or name=payload"),
    ("QUEUE_LIST", "a,", "with a comma between several"),
    ("QUEUE_LIST", "a, a=payload", "'a' is there twice"),
    ("QUEUE_LIST_FORMAT", "xml", "one of envelope, payload"),
    ("QUEUE_LIST_LABELS", "team,,token_symbol", "label, or list=label"),
    ("QUEUE_LIST_LABELS", "deployments=team", "a list of QUEUE_LIST"),
    ("PUBLISH_DURABILITY", "memory", "one of spooled, primary, replicated"),
    ("PUBLISH_TIMEOUT_SECONDS", "-5", "from 0.1 to 300"),
    ("SPOOL_MAX_BYTES", "1GiB", "a whole number"),
    ("SPOOL_MAX_AGE_SECONDS", "0", "from 1 to"),
    ("RETRY_BASE_SECONDS", "5", "must not be below RETRY_BASE_SECONDS"),
    ("RETRY_MAX_SECONDS", "x", "a number"),
    ("SIDECAR_LISTEN", "50051", "host:port or unix:/absolute/path"),
    ("SIDECAR_LISTEN", "127.0.0.1:99999", "host:port or unix:/absolute/path"),
    ("SIDECAR_LISTEN", "unix:relative.sock", "host:port or unix:/absolute/path"),
    ("SIDECAR_LISTEN", "127.0.0.1:0,", "host:port or unix:/absolute/path"),
    ("SIDECAR_LISTEN", "unix:/tmp/liv%65", "unix:/absolute/path without %"),
    ("SIDECAR_LISTEN", f"unix:/tmp/{'x' * 103}", "a path of more than 107 bytes"),
    ("SIDECAR_LISTEN", f"unix:/tmp/{'x' * 5000}", "a path of more than 107 bytes"),
    ("SIDECAR_LISTEN", "unix:/none/sidecar.sock", "its directory does not exist"),
    ("SIDECAR_LISTEN", f"unix:{__file__}/sidecar.sock", "its directory does not exist"),
    ("SIDECAR_SOCKET_MODE", "rw-rw----", "octal mode from 0600 to 0777"),
    ("SIDECAR_SOCKET_MODE", "0060", "begins with 06 or 07"),
    ("SIDECAR_SOCKET_MODE", "4660", "octal mode from 0600 to 0777"),
    ("SIDECAR_LISTEN", "no.such.host.invalid:50051", "cannot bind"),
    ("SIDECAR_TLS_KEY_FILE", __file__, "set together"),
    ("SIDECAR_TLS_CLIENT_CA_FILE", __file__, "needs SIDECAR_TLS_CERT_FILE"),
    ("SIDECAR_HTTP_LISTEN", "unix:/tmp/http.sock", "host:port"),
    ("SIDECAR_HTTP_LISTEN", "no.such.host.invalid:1", "SIDECAR_HTTP_LISTEN"),
    ("SIDECAR_SHUTDOWN_SECONDS", "0", "from 0.5 to 600"),
    ("SIDECAR_MAX_PENDING", "0", "from 1 to 1000000"),
    ("LOG_LEVEL", "loud", "one of debug, info, warning, error"),
    ("LOG_FORMAT", "xml", "one of json, text"),
    ("METRICS_EMF", "cloudwatch", "true or false"),
]


@pytest.fixture
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """The environment of this process, as a container has it."""
    for name in [name for name in os.environ if name.startswith(("REDIS_", "QUEUE_", "SPOOL_", "SIDECAR_", "AWS_"))]:
        monkeypatch.delenv(name)
    for name, value in {
        "REDIS_HOST": LOOPBACK, "REDIS_PORT": "1", "SPOOL_DIR": str(tmp_path / "spool"), "SIDECAR_API_TOKEN": SECRET,
        "SIDECAR_LISTEN": f"{LOOPBACK}:0", "SIDECAR_HTTP_LISTEN": f"{LOOPBACK}:0",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # a start that gets far enough sets its own
    monkeypatch.setattr(logging.getLogger(), "level", logging.WARNING)
    return monkeypatch


def the_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What a start that fails says: one line, no traceback, no secret."""
    captured = capsys.readouterr()
    said = [line for line in captured.err.splitlines() if '"level": "info"' not in line]
    assert len(said) == 1, captured.err
    assert said[0].startswith("modelready-sidecar: ")
    assert SECRET not in captured.err + captured.out
    return said[0]


@pytest.mark.parametrize(("name", "value", "expected"), WRONG, ids=[f"{name}={value}" for name, value, _ in WRONG])
def test_a_wrong_value_ends_the_start_with_one_line(
    name: str, value: str, expected: str, surroundings: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    surroundings.setenv(name, value)
    assert main(["serve"]) == 2
    line = the_line(capsys)
    assert name in line
    assert expected in line
    assert not value or value.split(",", maxsplit=1)[0] in line or "set together" in expected or "needs" in expected


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("QUEUE_DEDUP_SECOND", "QUEUE_DEDUP_SECONDS"),
        ("SIDECAR_LITSEN", "SIDECAR_LISTEN"),
        ("REDIS_AUTH_TOKEN_FILE", "REDIS_AUTH_TOKEN"),
        ("SIDECAR_TOKEN", "SIDECAR_API_TOKEN"),
        ("redis_host", "REDIS_HOST"),
        ("REDIS_SERVICE_HOST", ""),  # as Kubernetes names its own
        ("REDIS_PORT_6379_TCP_PROTO", ""),
        ("AWS_ENDPOINT_URLS", ""),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", ""),
        ("SIDECAR_IMAGE", ""),
    ],
)
def test_a_variable_that_nothing_reads_is_reported_if_it_resembles_one(name: str, meant: str) -> None:
    expected = [f"nothing reads {name!r}: is {meant} meant?"] if meant else []
    assert misspelt({name: SECRET, "REDIS_HOST": LOOPBACK}) == expected


def test_it_serves_and_stops_with_its_standard_streams_closed(server: RedisServer) -> None:
    command = ("sh", "-c", f"exec {sys.executable} -m sidecar serve <&- >&-")
    with SidecarProcess(to_redis(server, METRICS_EMF="true"), command=command) as sidecar:
        with calling(sidecar) as caller:
            caller.publish(model_event(1))
        assert sidecar.terminate() == 0


def test_it_is_logged_at_the_start(server: RedisServer) -> None:
    with SidecarProcess(to_redis(server, QUEUE_DEDUP_SECOND=SECRET)) as sidecar:
        (line,) = [line for line in sidecar.logs().splitlines() if '"warning"' in line]
    assert "nothing reads 'QUEUE_DEDUP_SECOND': is QUEUE_DEDUP_SECONDS meant?" in line
    assert SECRET not in line


def test_a_wrong_port_ends_the_start_of_an_embedded_server_too(
    surroundings: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    surroundings.setenv("REDIS_PORT", "6379a")
    assert main(["serve", "--embedded"]) == 2
    assert "REDIS_PORT is '6379a': it must be a whole number" in the_line(capsys)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"REDIS_AUTH_TOKEN": SECRET, "REDIS_AUTH_SECRET_ID": "name"}, "only one of them may be"),
        ({"REDIS_AUTH_TOKEN": SECRET, "REDIS_IAM_CLUSTER": "name"}, "only one of them may be"),
        ({"REDIS_IAM_CLUSTER": "name"}, "needs REDIS_USERNAME"),
        ({"REDIS_CLUSTER": "true", "REDIS_DB": "1"}, "REDIS_DB is 1"),
        ({"REDIS_CLUSTER": "true", "QUEUE_LIST": "deployments"}, "hash tag {model-ready}"),
        ({"REDIS_CLUSTER": "true", "QUEUE_LIST": "{other}:{model-ready}"}, "hash tag {model-ready}"),
        ({"REDIS_CLUSTER": "true", "QUEUE_LIST": "x{}{model-ready}"}, "hash tag {model-ready}"),
        (
            {"REDIS_CLUSTER": "true", "QUEUE_LIST": "{model-ready}:a", "QUEUE_LIST_PROCESSING": "busy"},
            "QUEUE_LIST_PROCESSING makes 'busy' a list: with REDIS_CLUSTER=true it must carry",
        ),
        ({"QUEUE_LIST": "a,b", "QUEUE_LIST_PROCESSING": "busy"}, "QUEUE_LIST_PROCESSING is 'busy': with several lists"),
        ({"QUEUE_LIST": "a", "QUEUE_LIST_DEAD_LETTERS": "{list}"}, "QUEUE_LIST_DEAD_LETTERS is '{list}': it must not"),
        (
            {"QUEUE_LIST": "a", "QUEUE_LIST_DEAD_LETTERS": "{model-ready}:dead-letters"},
            "QUEUE_LIST_DEAD_LETTERS makes '{model-ready}:dead-letters' a list: it must not be the queue's own key",
        ),
        ({"REDIS_AUTH_TOKEN": SECRET, "REDIS_PORT": "x"}, "REDIS_PORT is 'x'"),
        ({"REDIS_HOST": f"redis://user:{SECRET}/x@redis"}, "REDIS_HOST is '***@redis': it must be a host name"),
        ({"REDIS_HOST": f"user:{SECRET}@redis"}, "REDIS_HOST is '***@redis': it must be a host name"),
        ({"AWS_ENDPOINT_URL": f"http://user:{SECRET}@aws"}, "AWS_ENDPOINT_URL is '***@aws': it must be a URL"),
        ({"QUEUE_LIST": "\udcff"}, r"QUEUE_LIST is '\udcff': it must be UTF-8"),
        ({"REDIS_AUTH_TOKEN": f"{SECRET}\udcff"}, "REDIS_AUTH_TOKEN is ***: it must be UTF-8"),
        ({"REDIS_TLS": "true", "REDIS_TLS_CA_FILE": __file__}, "REDIS_TLS_CA_FILE"),
        ({"REDIS_TLS": "true", "REDIS_TLS_CERT_FILE": __file__, "REDIS_TLS_KEY_FILE": __file__}, "REDIS_TLS_CERT_FILE"),
        (
            {"REDIS_TLS": "true", "REDIS_TLS_CERT_FILE": __file__, "REDIS_TLS_KEY_FILE": __file__},
            "REDIS_TLS_KEY_FILE its private key",
        ),
        ({"SIDECAR_TLS_CERT_FILE": __file__, "SIDECAR_TLS_KEY_FILE": __file__}, "SIDECAR_TLS_CERT_FILE"),
        ({"SIDECAR_API_TOKEN": f"{SECRET}\n"}, "SIDECAR_API_TOKEN is ***: it must be printable ASCII"),
        ({"SIDECAR_ADMIN_TOKEN": f"naïve-{SECRET}"}, "SIDECAR_ADMIN_TOKEN is ***: it must be printable ASCII"),
    ],
)
def test_values_that_do_not_fit_together(
    values: dict[str, str], expected: str, surroundings: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in values.items():
        surroundings.setenv(name, value)
    assert main(["serve"]) == 2
    assert expected in the_line(capsys)


def ends(env: dict[str, str], *arguments: str) -> tuple[int, list[str]]:
    """The exit code of a start in a process of its own, and the lines that it said but for the log's."""
    inherited = {"PATH": os.environ["PATH"], "SIDECAR_HTTP_LISTEN": f"{LOOPBACK}:0", "SIDECAR_LISTEN": f"{LOOPBACK}:0"}
    command = [sys.executable, "-m", "sidecar", "serve", *arguments]
    ended = subprocess.run(command, env=inherited | env, capture_output=True, text=True, timeout=20, check=False)
    said = [line for line in ended.stderr.splitlines() if '"level": "info"' not in line]
    return ended.returncode, said


def test_a_process_without_redis_host_ends_with_2(tmp_path: Path) -> None:
    code, said = ends({"SPOOL_DIR": str(tmp_path)})
    assert code == 2
    assert said == [
        "modelready-sidecar: REDIS_HOST is not set: it must name the Redis host (or start with serve --embedded)"
    ]


def test_a_certificate_file_that_would_block_ends_the_start_with_2(tmp_path: Path) -> None:
    path = tmp_path / "tls.crt"
    os.mkfifo(path)
    for name in ("SIDECAR_TLS_CERT_FILE", "REDIS_TLS_CA_FILE"):
        code, said = ends({"REDIS_HOST": LOOPBACK, name: str(path)})
        assert code == 2
        assert said == [f"modelready-sidecar: {name} is '{path}': it must be a file that can be read (is no file)"]


def test_a_spool_dir_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a regular file")
    for directory in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/none")):
        code, said = ends({"REDIS_HOST": LOOPBACK, "SPOOL_DIR": str(directory)})
        assert code == 2
        assert len(said) == 1
        assert "SPOOL_DIR" in said[0]
        assert str(directory) in said[0]


def test_a_second_sidecar_in_the_same_spool_dir_ends_with_2(server: RedisServer) -> None:
    with SidecarProcess(to_redis(server)) as first:
        code, said = ends(to_redis(server, SPOOL_DIR=str(first.spool_dir)))
        assert code == 2
        assert said == [f"modelready-sidecar: SPOOL_DIR {first.spool_dir} is in use by another sidecar"]
        assert health(first) == (True, True, True)


@pytest.mark.parametrize("name", ["SIDECAR_LISTEN", "SIDECAR_HTTP_LISTEN"])
def test_a_busy_port_ends_the_start_with_2(name: str, server: RedisServer, tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        address = f"{LOOPBACK}:{taken.getsockname()[1]}"
        code, said = ends(to_redis(server, SPOOL_DIR=str(tmp_path), **{name: address}))
        assert code == 2
        assert len(said) == 1
        assert name in said[0]
        assert address in said[0]


def test_a_start_while_redis_is_away() -> None:
    server = RedisServer()
    try:
        with SidecarProcess(to_redis(server)) as sidecar, calling(sidecar) as caller:
            assert health(sidecar)[0]
            receipt = caller.publish()
            assert receipt.outcome == TO_DISK
            until(lambda: health(sidecar) == (True, True, False), 3, "it can accept events")
            assert sidecar.get("/readyz")[0] == 200
            server.start()
            until(lambda: queued_ids(server) == [receipt.event_id], 5, "it is delivered")
    finally:
        server.close()


def test_a_start_is_quick_and_small(server: RedisServer, record_property: Callable[[str, object], None]) -> None:
    """Under a second, in a crowd twice that and more; 70 MB while idle, and 85 once an event was judged (ADR 0012).

    Of a library's file the system counts between a half and all, 4 MB in sum, by how the file came into its cache.
    """
    installed = str(Path(sys.executable).with_name("modelready-sidecar"))  # no fork, which shares its memory
    took, cpu, idle_sizes, sizes = [], [], [], []
    for _ in range(3):
        sidecar = SidecarProcess(to_redis(server), command=(installed, "serve"))
        began = time.monotonic()
        with sidecar:
            took.append(time.monotonic() - began)
            cpu.append(sidecar.cpu_seconds())
            idle_sizes.append(sidecar.rss_bytes() / 1e6)
            with calling(sidecar) as caller:
                caller.publish(model_event(1))
            time.sleep(0.5)
            sizes.append(sidecar.rss_bytes() / 1e6)
            idle = sidecar.cpu_seconds()
            time.sleep(1)
            idle = sidecar.cpu_seconds() - idle
    rss = min(idle_sizes), min(sizes)
    figures = f"start {min(took):.2f} s, {min(cpu):.2f} s of CPU; RSS {rss} MB; idle {idle:.3f} s of CPU a second"
    record_property("figures", figures)
    print(figures)
    assert min(took) < patience(1), figures
    assert min(cpu) < 1, figures
    assert rss[0] < 70, figures
    assert rss[1] < 85, figures
    assert idle < 0.1, figures
