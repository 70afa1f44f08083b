"""Who the sidecar is to Redis: tokens that rotate and tokens that are wrong. A real Valkey and a real moto server."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest

from modelready.credentials import Credentials, StaticCredentials
from modelready.redis.aws.secrets_manager import SecretsManagerCredentials
from modelready.redis.settings import RedisSettings
from sidecar.app import running
from sidecar.metrics import Metrics
from sidecar.redisstream.connection import RedisConnection
from sidecar.settings import Settings
from tests.harness.aws_api import aws_api, start_moto
from tests.harness.certificates import Authority
from tests.harness.ports import LOOPBACK, PortLease
from tests.harness.redis_server import RedisServer
from tests.harness.relay import Relay
from tests.harness.secrecy import keep
from tests.harness.sidecar_process import SERVING, SidecarProcess
from tests.harness.waiting import auntil, patience, until
from tests.integration.calls import (  # fmt: skip
    DEFAULT,
    DUPLICATE,
    PRIMARY,
    STORED,
    TO_DISK,
    Code,
    Load,
    calling,
    health,
    model_event,
    queued_ids,
    to_redis,
)

REGION = "eu-west-1"
OLD, NEW = "the-old-token-0000 'q\"%s{}", "the-new-token-1111/+=&"
AWS = {
    "AWS_REGION": REGION,
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "not-a-real-aws-key",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="module")
def aws() -> Iterator[Any]:
    """A client of a real Secrets Manager API."""
    with aws_api() as port:
        yield boto3.client(
            "secretsmanager",
            region_name=REGION,
            endpoint_url=f"http://{LOOPBACK}:{port}",
            aws_access_key_id=AWS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=AWS["AWS_SECRET_ACCESS_KEY"],
        )


def from_secret(server: RedisServer, aws: Any, value: str, **env: str) -> tuple[str, dict[str, str]]:
    """A new secret's name, and the environment of a sidecar that reads it."""
    name = f"redis/{uuid4()}"
    keep(OLD, NEW)
    aws.create_secret(Name=name, SecretString=value)
    secret = {"REDIS_AUTH_SECRET_ID": name, "AWS_ENDPOINT_URL": aws.meta.endpoint_url}
    return name, {"REDIS_HOST": server.host, "REDIS_PORT": str(server.port)} | AWS | secret | env


def published_by(sidecar: SidecarProcess) -> str:
    """All that the process ever shows to anyone who looks."""
    pages = [sidecar.get(path)[1] for path in ("/metrics", "/readyz", "/healthz", "/none")]
    return "\n".join([sidecar.logs(), *pages])


def connected(server: RedisServer) -> set[str]:
    """The connections that sidecars have to it."""
    clients = server.execute("CLIENT", "LIST").decode().splitlines()
    return {line.split()[0] for line in clients if "name=modelready-sidecar" in line}


def settled(sidecar: SidecarProcess, server: RedisServer, acked: list[str]) -> None:
    """Every acknowledged event is in the stream, once, when the spool is empty."""
    until(lambda: sidecar.metrics()["modelready_spool_events"] == 0, 10, "the spool is empty")
    stored = queued_ids(server)
    assert len(stored) == len(set(stored))
    assert set(acked) <= set(stored)


def test_a_rotation_under_load_is_noticed_by_nobody(aws: Any) -> None:
    """Eight callers who insist on Redis; the server ends their connections when the old token is gone."""
    with RedisServer(password=OLD) as server:
        name, env = from_secret(server, aws, json.dumps({"password": OLD}), LOG_LEVEL="debug")
        with SidecarProcess(env) as sidecar, Load(sidecar, [PRIMARY] * 4 + [DEFAULT] * 4) as load:
            until(lambda: len(load.acked) > 500, 10, "it publishes")
            server.execute("ACL", "SETUSER", "default", f">{NEW}")
            aws.put_secret_value(SecretId=name, SecretString=json.dumps({"password": NEW}))
            server.execute("ACL", "SETUSER", "default", f"<{OLD}")
            before = len(load.acked)
            assert server.execute("CLIENT", "KILL", "TYPE", "normal") >= 4
            until(lambda: "gave new credentials" in sidecar.logs(), 10, "the new token is in use")
            until(lambda: len(load.acked) > before + 500, 10, "it publishes again")
            load.__exit__()
            assert load.errors == [], sidecar.logs()
            settled(sidecar, server, load.acked)
            assert load.outcomes[STORED] > 500
            shown = published_by(sidecar)
    assert not [secret for secret in (OLD, NEW, AWS["AWS_SECRET_ACCESS_KEY"]) if secret in shown]


def test_a_rotation_that_leaves_the_connections_open_is_not_even_slow(aws: Any) -> None:
    """As ElastiCache does it: the old token is gone, those who are logged in stay."""
    with RedisServer(password=OLD) as server:
        name, env = from_secret(server, aws, OLD)
        with SidecarProcess(env) as sidecar, Load(sidecar, [PRIMARY] * 8) as load:
            until(lambda: len(load.acked) > 200, 10, "it publishes")
            aws.put_secret_value(SecretId=name, SecretString=NEW)
            server.execute("ACL", "SETUSER", "default", "resetpass", f">{NEW}")
            before = len(load.acked)
            until(lambda: len(load.acked) > before + 500, 10, "it goes on")
            load.__exit__()
            assert load.errors == []
            assert set(load.outcomes) == {STORED}
            settled(sidecar, server, load.acked)


def test_a_wrong_token_at_start_is_said_plainly_and_loses_nothing() -> None:
    with RedisServer(password=OLD) as server:
        sidecar = SidecarProcess(to_redis(server, REDIS_AUTH_TOKEN=NEW))
        sidecar.start("listening")
        with sidecar, calling(sidecar) as caller:
            until(lambda: "credentials" in sidecar.get("/readyz")[1], 3, "/readyz says why")
            assert health(sidecar) == (True, True, False)
            status, body = sidecar.get("/readyz")
            assert status == http.client.OK, "its callers are acknowledged by its disk"
            assert "Redis refused the credentials" in json.loads(body)["problem"]
            refusal = caller.refused_as("REDIS_AUTH_FAILED")
            assert (refusal.code, refusal.reason, refusal.retry) == (Code.UNAVAILABLE, "REDIS_AUTH_FAILED", True)
            event = model_event()
            assert caller.publish(event).outcome == TO_DISK
            waiting = caller.refused_as("REDIS_AUTH_FAILED")  # its turn is when the spool is empty
            assert "Redis refused the credentials" in waiting.text
            assert sidecar.metrics()["modelready_redis_auth_failures_total"] >= 1
            status_of_queue = caller.status()
            assert not status_of_queue.redis_up
            assert "credentials" in status_of_queue.redis_error
            shown = published_by(sidecar) + str(status_of_queue) + refusal.text

            server.execute("ACL", "SETUSER", "default", f">{NEW}")  # somebody fixes it
            until(lambda: health(sidecar) == (True, True, True), 5, "it recovers by itself")
            until(lambda: queued_ids(server) == [event.event_id], 5, "the spool drains")
            assert sidecar.get("/readyz")[0] == http.client.OK
            assert caller.publish(event, PRIMARY).outcome == DUPLICATE
            shown += published_by(sidecar)
    assert OLD not in shown
    assert NEW not in shown


def test_while_secrets_manager_is_away_events_are_spooled_and_a_staged_token_ends_it() -> None:
    """Away at the start, and again while the token rotates; back when AWSCURRENT is the old one still."""
    with RedisServer(password=OLD) as server, ExitStack() as stack:
        lease = PortLease()
        stack.callback(lease.release)
        url, name = f"http://{LOOPBACK}:{lease.port}", f"redis/{uuid4()}"
        aws = boto3.client("secretsmanager", REGION, endpoint_url=url, aws_access_key_id="a", aws_secret_access_key="b")

        def back() -> Any:
            moto = start_moto(port=lease.port)
            stack.callback(moto.stop)
            return moto

        address = {"REDIS_HOST": server.host, "REDIS_PORT": str(server.port)}
        sidecar = SidecarProcess(address | AWS | {"REDIS_AUTH_SECRET_ID": name, "AWS_ENDPOINT_URL": url})
        sidecar.start("listening")
        with sidecar, calling(sidecar) as caller:
            said = f"the secret {name} (REDIS_AUTH_SECRET_ID) cannot be read: EndpointConnectionError"
            until(lambda: said in sidecar.get("/readyz")[1], 8, "/readyz says so")
            events = [model_event() for _ in range(2)]
            assert caller.publish(events[0]).outcome == TO_DISK
            moto = back()
            aws.create_secret(Name=name, SecretString=OLD)
            until(lambda: queued_ids(server) == [events[0].event_id], 12, "the spool drains")

            moto.stop()
            server.execute("ACL", "SETUSER", "default", "resetpass", f">{NEW}")
            server.execute("CLIENT", "KILL", "TYPE", "normal")
            until(lambda: caller.publish(events[1]).outcome == TO_DISK, 5, "events are spooled")
            until(lambda: "the last known credentials stay in use" in sidecar.logs(), 5, "the log says so")
            assert sidecar.health() == SERVING, "a restart would not help"
            back()
            aws.put_secret_value(SecretId=name, SecretString=NEW, VersionStages=["AWSPENDING"])
            until(lambda: events[1].event_id in queued_ids(server), 12, "the spool drains")
            until(lambda: health(sidecar) == (True, True, True), 5, "it serves")
            assert len(queued_ids(server)) == len(events)
            assert not [token for token in (OLD, NEW) if token in published_by(sidecar)]


def test_what_is_too_long_for_a_token_is_refused_credentials() -> None:
    """Such as the wrong secret: Redis answers it in other words than a wrong token."""
    with RedisServer(password=OLD) as server:
        sidecar = SidecarProcess(to_redis(server, REDIS_AUTH_TOKEN="x" * 70_000))
        sidecar.start("listening")
        with sidecar, calling(sidecar) as caller:
            caller.refused_as("REDIS_AUTH_FAILED")
            assert caller.publish().outcome == TO_DISK


@pytest.mark.parametrize(
    "login",
    [
        {"REDIS_AUTH_SECRET_ID": "redis", "AWS_ENDPOINT_URL": "{url}", **AWS},
        {"REDIS_IAM_CLUSTER": "redis", "REDIS_USERNAME": "registry", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "{url}"},
    ],
    ids=["Secrets Manager", "the task role's credentials"],
)
def test_a_stop_does_not_wait_for_an_aws_that_hangs(login: dict[str, str], tmp_path: Path) -> None:
    certificate = Authority(tmp_path).server()
    with (
        RedisServer() as server,
        Relay(server.port, tls=certificate) as endpoint,
        socket.create_server((LOOPBACK, 0)) as hanging,
    ):
        hanging.settimeout(10)
        url = f"http://{LOOPBACK}:{hanging.getsockname()[1]}"
        env = {name: value.format(url=url) for name, value in login.items()} | {"AWS_REGION": REGION}
        tls = {"REDIS_TLS": "true", "REDIS_TLS_CA_FILE": str(certificate.ca)}
        sidecar = SidecarProcess({"REDIS_HOST": endpoint.host, "REDIS_PORT": str(endpoint.port), **tls, **env})
        sidecar.start("listening")
        with sidecar, calling(sidecar) as caller, hanging.accept()[0]:
            assert caller.publish().outcome == TO_DISK
            began = time.monotonic()
            assert sidecar.terminate() == 0
            assert time.monotonic() - began < patience(2.5)


async def test_credentials_that_change_are_used_by_live_connections_without_an_error() -> None:
    """What `watch` finds every few minutes, with nobody refused: then the old token may go, and nobody notices."""
    with RedisServer(password=OLD) as server:

        class Found(StaticCredentials):
            async def watch(self, changed: Callable[[], Awaitable[None]]) -> None:
                self._credentials = Credentials(None, NEW)
                await changed()

        source = Found(None, OLD)
        settings = RedisSettings(host=server.host, port=server.port, tls=False, pool_size=4)
        connection = RedisConnection(settings, source, Metrics(), "{model-ready}")
        await connection.warm()
        used, stop = [0] * 8, asyncio.Event()

        async def use(number: int) -> None:
            while not stop.is_set():
                await connection.execute("PING")
                used[number] += 1

        async with asyncio.TaskGroup() as group:
            for number in range(len(used)):
                group.create_task(use(number))
            before = await asyncio.to_thread(connected, server)
            await asyncio.to_thread(server.execute, "ACL", "SETUSER", "default", f">{NEW}")
            await source.watch(connection.reauthenticate)
            await auntil(
                lambda: asyncio.to_thread(lambda: not before & connected(server)), 5, "all have logged in again"
            )
            await asyncio.to_thread(server.execute, "ACL", "SETUSER", "default", f"<{OLD}")
            already = list(used)
            await auntil(lambda: all(now > then + 20 for now, then in zip(used, already, strict=True)), 5, "it goes on")
            stop.set()
        assert len(before) == 4
        await connection.close()


def test_without_aws_boto3_is_neither_imported_nor_needed() -> None:
    loaded = "[name for name, module in sys.modules.items() if name.startswith('boto') and module]"
    absent = "sys.modules.update(boto3=None, botocore=None)"
    command = f"import sys; {absent}; from sidecar.cli.main import main; main(['serve']); print('imported:', {loaded})"
    with RedisServer() as server, SidecarProcess(to_redis(server), command=(sys.executable, "-c", command)) as sidecar:
        with calling(sidecar) as caller:
            assert caller.publish(durability=PRIMARY).outcome == STORED
        assert sidecar.terminate() == 0
        assert "imported: []" in sidecar.logs()


async def test_the_secret_is_read_every_few_minutes_also_while_nobody_is_refused(
    aws: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connections log in again, so that none needs the previous token when it is removed."""
    defaults = SecretsManagerCredentials.__init__.__kwdefaults__
    assert defaults is not None
    assert defaults["refresh_seconds"] == 300
    monkeypatch.setitem(defaults, "refresh_seconds", 0.2)
    monkeypatch.setitem(defaults, "spacing_seconds", 0.05)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", AWS["AWS_ACCESS_KEY_ID"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", AWS["AWS_SECRET_ACCESS_KEY"])
    with RedisServer(password=OLD) as server:
        name, env = from_secret(server, aws, OLD, SPOOL_DIR=str(tmp_path))
        listen = {"SIDECAR_LISTEN": f"{LOOPBACK}:0", "SIDECAR_HTTP_LISTEN": f"{LOOPBACK}:0"}

        async with running(Settings.from_env(env | listen | {"SIDECAR_SHUTDOWN_SECONDS": "2"})) as sidecar:
            before = await auntil(lambda: asyncio.to_thread(connected, server), 30, "it is connected")
            await asyncio.to_thread(server.execute, "ACL", "SETUSER", "default", f">{NEW}")
            await asyncio.to_thread(aws.put_secret_value, SecretId=name, SecretString=NEW)
            await auntil(
                lambda: asyncio.to_thread(lambda: not before & connected(server)), 30, "all have logged in again"
            )
            await asyncio.to_thread(server.execute, "ACL", "SETUSER", "default", f"<{OLD}")
            await asyncio.to_thread(server.execute, "CLIENT", "KILL", "TYPE", "normal")
            await auntil(lambda: asyncio.to_thread(connected, server), 30, "they log in with the new one")
            page = await asyncio.to_thread(metrics_of, sidecar.http_port)
        assert "modelready_redis_auth_failures_total 0.0" in page


def metrics_of(port: int) -> str:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize("protected", [True, False], ids=["named user", "wrong user"])
def test_an_acl_user_with_a_token(protected: bool) -> None:
    acl = [f"user registry on >{NEW} ~* &* +@all", "user default off"]
    with RedisServer(acl=acl) as server:
        user = "registry" if protected else "nobody"
        sidecar = SidecarProcess(to_redis(server, REDIS_USERNAME=user, REDIS_AUTH_TOKEN=NEW))
        sidecar.start("listening")
        with sidecar, calling(sidecar) as caller:
            if protected:
                until(lambda: health(sidecar) == (True, True, True), 3, "it serves")
                assert caller.publish(durability=PRIMARY).outcome == STORED
            else:
                caller.refused_as("REDIS_AUTH_FAILED")
                assert health(sidecar) == (True, True, False)
            assert NEW not in published_by(sidecar)


def test_a_server_that_wants_a_token_which_nobody_set() -> None:
    with RedisServer(password=OLD) as server:
        sidecar = SidecarProcess(to_redis(server, REDIS_AUTH_TOKEN=""))
        sidecar.start("listening")
        with sidecar, calling(sidecar) as caller:
            caller.refused_as("REDIS_AUTH_FAILED")
            until(lambda: "Redis refused the credentials" in sidecar.get("/readyz")[1], 3, "/readyz says why")


@pytest.mark.parametrize("command", [["--help"], ["serve", "--help"], ["serve"], ["serve", "--nonsense"], ["health"]])
def test_no_secret_in_help_or_in_what_a_failing_start_says(command: list[str]) -> None:
    secrets = {name: f"secret-of-{name.lower()}" for name in ("REDIS_AUTH_TOKEN", "SIDECAR_API_TOKEN")}
    env = {"REDIS_HOST": LOOPBACK, "REDIS_PORT": "no number", "SIDECAR_LISTEN": f"{LOOPBACK}:9"} | secrets
    ended = subprocess.run(
        [sys.executable, "-m", "sidecar", *command], env=env, capture_output=True, text=True, timeout=20, check=False
    )
    assert ended.stdout + ended.stderr
    assert "secret-of" not in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
