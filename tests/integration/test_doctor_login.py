"""doctor, the credentials: tokens and users that are wrong, Secrets Manager and IAM. Real Valkey, real moto."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest

from tests.harness.aws_api import aws_api
from tests.harness.certificates import Authority
from tests.harness.ports import LOOPBACK, PortLease
from tests.harness.redis_server import RedisServer
from tests.integration.doctor_run import TOKEN, behind_tls, examined, status_of, the_finding, to_port

REGION = "eu-west-1"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "not-a-real-key"}


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """The default user has the token; so has the user `registry`, and `open` needs none."""
    users = [f"user registry on >{TOKEN} ~* &* +@all", "user open on nopass ~* &* +@all"]
    with RedisServer(password=TOKEN, acl=users) as server:
        yield server


@pytest.fixture(autouse=True)
def role(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """What a task role gives: keys, and no region."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    nowhere = {"AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}
    for name, value in (KEYS | nowhere | {"AWS_EC2_METADATA_DISABLED": "true"}).items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    """The URL of a real Secrets Manager API."""
    with aws_api() as port:
        yield f"http://{LOOPBACK}:{port}"


@contextmanager
def denying(aws: str) -> Iterator[None]:
    """Inside, AWS asks whose the keys are and what they may do."""

    def ask_after(calls: bytes) -> None:
        plain = {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(f"{aws}/moto-api/reset-auth", calls, plain)).close()

    ask_after(b"0")
    try:
        yield
    finally:
        ask_after(b"inf")


def secret(aws: str, value: str) -> str:
    name = f"redis/{uuid4()}"
    client = boto3.client("secretsmanager", region_name=REGION, endpoint_url=aws)
    client.create_secret(Name=name, SecretString=value)
    return name


def from_secret(server: RedisServer, aws: str, name: str, **env: str) -> dict[str, str]:
    by_aws = {"REDIS_AUTH_SECRET_ID": name, "AWS_REGION": REGION, "AWS_ENDPOINT_URL": aws}
    return to_port(server.port, REDIS_AUTH_TOKEN="") | by_aws | env


@contextmanager
def clock_of(date: str) -> Iterator[str]:
    """The URL of an AWS whose time is this, and that refuses every signature."""

    class Late(BaseHTTPRequestHandler):
        def date_time_string(self, timestamp: float | None = None) -> str:
            return date

        def do_POST(self) -> None:
            body = json.dumps({"__type": "InvalidSignatureException", "message": "Signature expired"}).encode()
            self.send_response(400)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    endpoint = ThreadingHTTPServer((LOOPBACK, 0), Late)
    threading.Thread(target=endpoint.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://{LOOPBACK}:{endpoint.server_port}"
    endpoint.shutdown()
    endpoint.server_close()


# -- tokens and users


@pytest.mark.parametrize(
    ("finding", "env"),
    [
        ("auth-token-refused", {"REDIS_AUTH_TOKEN": "another token"}),
        ("auth-token-missing", {"REDIS_AUTH_TOKEN": ""}),
        ("auth-user-refused", {"REDIS_USERNAME": "nobody"}),
        ("auth-user-refused", {"REDIS_USERNAME": "registry", "REDIS_AUTH_TOKEN": "another token"}),
        ("auth-login", {"REDIS_DB": "99"}),
    ],
)
def test_a_login_that_is_refused(finding: str, env: dict[str, str], server: RedisServer, tmp_path: Path) -> None:
    report = examined(to_port(server.port, **env), tmp_path)
    line = the_finding(report, finding)
    assert env.get("REDIS_USERNAME", "") in line.found
    assert status_of(report, "tls") == "ok"
    assert status_of(report, "probe") == "skipped"


def test_a_named_user(server: RedisServer, tmp_path: Path) -> None:
    report = examined(to_port(server.port, REDIS_USERNAME="registry"), tmp_path)
    assert report.exit_code == 0
    assert "logged in as registry" in report.as_text()


@pytest.mark.parametrize("token", ["", TOKEN])
def test_a_server_that_asks_for_no_token(token: str, tmp_path: Path) -> None:
    with RedisServer() as server:
        report = examined(to_port(server.port, REDIS_AUTH_TOKEN=token), tmp_path)
    if token:
        the_finding(report, "auth-not-asked")
    else:
        assert status_of(report, "auth") == "ok"
    assert status_of(report, "probe") == "ok"


# -- Secrets Manager


def test_a_token_of_secrets_manager(server: RedisServer, aws: str, tmp_path: Path) -> None:
    name = secret(aws, json.dumps({"username": "registry", "password": TOKEN}))
    report = examined(from_secret(server, aws, name), tmp_path)
    assert report.exit_code == 0, report.as_text()
    assert "logged in as registry" in report.as_text()
    assert ("REDIS_AUTH_TOKEN", "***", f"Secrets Manager, the secret {name}") in report.variables


def test_a_secret_that_is_not_there(server: RedisServer, aws: str, tmp_path: Path) -> None:
    line = the_finding(examined(from_secret(server, aws, "redis/none"), tmp_path), "auth-secret-missing")
    assert "redis/none" in line.found


def test_a_secret_that_the_task_role_may_not_read(server: RedisServer, aws: str, tmp_path: Path) -> None:
    env = from_secret(server, aws, secret(aws, TOKEN))
    with denying(aws):
        line = the_finding(examined(env, tmp_path), "auth-secret-denied")
    assert "the clock is right" in line.found


def test_a_user_of_aws_without_the_right(
    server: RedisServer, aws: str, tmp_path: Path, role: pytest.MonkeyPatch
) -> None:
    iam: Any = boto3.client("iam", region_name=REGION, endpoint_url=aws)
    iam.create_user(UserName="task")
    key = iam.create_access_key(UserName="task")["AccessKey"]
    env = from_secret(server, aws, secret(aws, TOKEN))
    role.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    role.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    with denying(aws):
        assert "AccessDenied" in the_finding(examined(env, tmp_path), "auth-secret-denied").found


def test_secrets_manager_out_of_reach(server: RedisServer, tmp_path: Path) -> None:
    lease = PortLease()
    env = from_secret(server, f"http://{LOOPBACK}:{lease.port}", "redis/token")
    the_finding(examined(env, tmp_path), "auth-secret-unreachable")
    lease.release()


@pytest.mark.parametrize("value", ['{"password": ', '{"token": "x"}', " {}"])
def test_a_secret_without_a_token(value: str, server: RedisServer, aws: str, tmp_path: Path) -> None:
    the_finding(examined(from_secret(server, aws, secret(aws, value)), tmp_path), "auth-secret-content")


def test_a_task_without_a_role(server: RedisServer, aws: str, tmp_path: Path, role: pytest.MonkeyPatch) -> None:
    env = from_secret(server, aws, secret(aws, TOKEN))
    for name in KEYS:
        role.delenv(name)
    assert "NoCredentials" in the_finding(examined(env, tmp_path), "auth-secret-unreadable").found


# -- IAM


@contextmanager
def by_iam(server: RedisServer, tmp_path: Path, user: str, **env: str) -> Iterator[dict[str, str]]:
    with behind_tls(server, Authority(tmp_path).server()) as tls:
        iam = {"REDIS_AUTH_TOKEN": "", "REDIS_USERNAME": user, "REDIS_IAM_CLUSTER": "cache", "AWS_REGION": REGION}
        yield tls | iam | env


def test_a_signed_token_that_is_accepted(server: RedisServer, tmp_path: Path) -> None:
    """By a user who may log in with any: only ElastiCache can verify one."""
    with by_iam(server, tmp_path, "open") as env:
        report = examined(env, tmp_path)
    assert report.exit_code == 0, report.as_text()
    assert ("REDIS_AUTH_TOKEN", "***", "IAM, signed for cache") in report.variables


def test_a_signed_token_that_is_refused(server: RedisServer, aws: str, tmp_path: Path) -> None:
    with by_iam(server, tmp_path, "registry", AWS_ENDPOINT_URL=aws) as env:
        assert "the clock is right" in the_finding(examined(env, tmp_path), "auth-iam-refused").found


def test_a_clock_that_cannot_be_compared(server: RedisServer, tmp_path: Path) -> None:
    lease = PortLease()
    with by_iam(server, tmp_path, "registry", AWS_ENDPOINT_URL=f"http://{LOOPBACK}:{lease.port}") as env:
        assert "could not be asked" in the_finding(examined(env, tmp_path), "auth-iam-refused").found
    lease.release()


@pytest.mark.parametrize("what", ["keys", "region"])
def test_a_token_that_cannot_be_signed(
    what: str, server: RedisServer, tmp_path: Path, role: pytest.MonkeyPatch
) -> None:
    for name in KEYS if what == "keys" else ():
        role.delenv(name)
    with by_iam(server, tmp_path, "registry", **({} if what == "keys" else {"AWS_REGION": ""})) as env:
        said = the_finding(examined(env, tmp_path), "auth-iam-unsigned").found
    assert ("no AWS credentials" if what == "keys" else "no AWS region") in said


def test_a_clock_that_is_wrong(server: RedisServer, tmp_path: Path) -> None:
    with clock_of("Sun, 01 Jan 2023 00:00:00 GMT") as late:
        with by_iam(server, tmp_path, "registry", AWS_ENDPOINT_URL=late) as env:
            assert "ahead of AWS's" in the_finding(examined(env, tmp_path), "auth-clock").found
        env = from_secret(server, late, "redis/token")
        assert "Signature expired" in the_finding(examined(env, tmp_path), "auth-clock").found
