"""What the tests of doctor share: a run of it in this process, and the one finding that it must have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from sidecar.cli.doctor import examine, findings, server, spool
from sidecar.cli.doctor.report import Line, Report
from tests.harness.certificates import TLSFiles
from tests.harness.ports import LOOPBACK
from tests.harness.redis_server import RedisServer
from tests.harness.relay import Relay
from tests.harness.secrecy import keep_those_of, shown

TOKEN = "a-token-that-nobody-may-see"


def to_port(port: int, **env: str) -> dict[str, str]:
    return {"REDIS_HOST": LOOPBACK, "REDIS_PORT": str(port), "REDIS_AUTH_TOKEN": TOKEN, **env}


@contextmanager
def in_a_crowd() -> Iterator[None]:
    """Inside, no way is slow and no disk: other tests run beside, and neither is what the test is about."""
    with (
        patch.multiple(server, LATENCY_P50_MS=10_000, LATENCY_P99_MS=10_000),
        patch.multiple(spool, FSYNCS_PER_SECOND=0, _MAX_FSYNCS=5),
    ):
        yield


def examined(env: dict[str, str], spool_dir: Path) -> Report:
    """The report for this environment; no secret is in any form of it."""
    keep_those_of(env)
    with in_a_crowd():
        report = examine({"SPOOL_DIR": str(spool_dir), **env})
    shown(report.as_text() + report.as_json(), "doctor's report")
    return report


def the_finding(report: Report, finding: str, check: str = "", place: str = findings.AWS) -> Line:
    """It is there once, and nothing else is wrong; the exit code says so, and what to do stands below it."""
    wrong = [line for line in report.lines if line.finding]
    assert [line.finding for line in wrong] == [finding], report.as_text()
    (line,) = wrong
    assert line.check == (findings.check_of(finding) or check)
    assert (line.status, line.todo) == (findings.status_of(finding), findings.todo(finding, place))
    assert line.found
    assert report.exit_code == (0 if line.status == "warning" else 2 if line.check == "settings" else 1)
    assert f"[{finding}]" in report.as_text()
    return line


def status_of(report: Report, check: str) -> str:
    (line,) = [line for line in report.lines if line.check == check]
    return line.status


@contextmanager
def behind_tls(server: RedisServer, certificate: TLSFiles, client_ca: Path | None = None) -> Iterator[dict[str, str]]:
    """An environment that leads to the server by TLS."""
    with Relay(server.port, tls=certificate, client_ca=client_ca) as endpoint:
        yield to_port(endpoint.port, REDIS_TLS="true", REDIS_TLS_CA_FILE=str(certificate.ca))
