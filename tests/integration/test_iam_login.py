"""ElastiCache's IAM authentication, against a server that checks each token and ends connections when they are old."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from modelready.redis.aws.iam import IamCredentials
from modelready.redis.settings import RedisSettings
from sidecar.errors import AuthFailed, QueueError
from sidecar.metrics import Metrics
from sidecar.redisstream.connection import RedisConnection
from tests.harness.certificates import Authority
from tests.harness.iam_gate import IamGate, Signer
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until
from tests.integration.calls import DEFAULT, KEYS, PRIMARY, STORED, Load, calling, health, queued_ids

SECRET = "not-a-real-key"
SIGNER = Signer("registry", "model-ready", "eu-west-1", "AKIDEXAMPLE", SECRET)
AWS = {
    "AWS_REGION": SIGNER.region,
    "AWS_ACCESS_KEY_ID": SIGNER.key_id,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer(password="nobody knows it") as server:
        yield server


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def by_iam(gate: IamGate, ca: Path, **env: str) -> dict[str, str]:
    address = {"REDIS_HOST": gate.host, "REDIS_PORT": str(gate.port), "REDIS_TLS": "true", "REDIS_TLS_CA_FILE": str(ca)}
    return address | {"REDIS_USERNAME": SIGNER.user, "REDIS_IAM_CLUSTER": "Model-Ready"} | AWS | env


def test_every_connection_logs_in_with_a_new_token_that_the_server_finds_good(
    server: RedisServer, authority: Authority
) -> None:
    with (
        IamGate(server, authority.server(), SIGNER) as gate,
        SidecarProcess(by_iam(gate, authority.ca, LOG_LEVEL="debug")) as sidecar,
        calling(sidecar) as caller,
    ):
        until(lambda: health(sidecar) == (True, True, True), 5, "it serves")
        assert caller.publish(durability=PRIMARY).outcome == STORED
        first, second = list(gate.tokens), int(time.time())
        until(lambda: time.time() > second + 1, 2, "a token of now is another")
        with Load(sidecar, [DEFAULT] * 4) as load:
            until(lambda: len(load.acked) > 20, 5, "it publishes")
            gate.cut()
            until(lambda: len(gate.tokens) > len(first), 5, "it logs in again")
            before = len(load.acked)
            until(lambda: len(load.acked) > before + 20, 5, "it goes on")
        assert load.errors == [], sidecar.logs()
        assert not set(first) & set(gate.tokens[len(first) :]), "no token is used a second time"
        assert gate.objections == []
        shown = sidecar.logs() + sidecar.get("/readyz")[1] + sidecar.get("/metrics")[1]
        assert "X-Amz-Signature" not in shown
        assert SECRET not in shown
        until(lambda: sidecar.metrics()["modelready_spool_events"] == 0, 5, "the spool is empty")
        assert set(load.acked) <= set(queued_ids(server))


@pytest.mark.parametrize("renewed", [True, False], ids=["before that age", "control: not renewed"])
async def test_connections_are_replaced_before_the_server_ends_them(
    renewed: bool, server: RedisServer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The 11 of 12 hours, as 0.3 of 1 second; by callers who are always busy, and by one who comes now and then."""
    for name, value in AWS.items():
        monkeypatch.setenv(name, value)
    source = IamCredentials(SIGNER.user, SIGNER.cluster, region=SIGNER.region)
    source.max_connection_seconds = 0.3 if renewed else None
    with IamGate(server, authority.server(), SIGNER, most_seconds=3.0) as gate:
        settings = RedisSettings(host=gate.host, port=gate.port, tls=True, tls_ca_file=authority.ca, pool_size=4)
        connection = RedisConnection(settings, source, Metrics(), KEYS.events)
        await connection.warm()
        failures = await asyncio.gather(*(use(connection, 4.2, pause) for pause in (0.003, 0.003, 0.01, 0.4)))
        await connection.close()
    assert gate.objections == []
    if renewed:
        assert sum(failures) == gate.cut_short == 0
        assert len(gate.tokens) >= 8
    else:
        assert gate.cut_short > 0


async def use(connection: RedisConnection, seconds: float, pause: float) -> int:
    """How many uses failed."""
    failures, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            await connection.execute("PING")
        except QueueError:
            failures += 1
        await asyncio.sleep(pause)
    return failures


@pytest.mark.parametrize("wrong", ["key", "cluster", "user", "region"])
async def test_a_token_that_is_signed_otherwise_is_refused(
    wrong: str, server: RedisServer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the server above would prove nothing."""
    for name, value in AWS.items():
        monkeypatch.setenv(name, value)
    changes = {
        "key": {"secret": "another"}, "cluster": {"cluster": "b"}, "user": {"user": "b"}, "region": {"region": "b"},
    }  # fmt: skip
    with IamGate(server, authority.server(), replace(SIGNER, **changes[wrong])) as gate:
        settings = RedisSettings(host=gate.host, port=gate.port, tls=True, tls_ca_file=authority.ca)
        source = IamCredentials(SIGNER.user, SIGNER.cluster, region=SIGNER.region)
        connection = RedisConnection(settings, source, Metrics(), KEYS.events)
        with pytest.raises(AuthFailed):
            await connection.execute("PING")
        await connection.close()
        assert gate.objections == ["the signature is wrong" if wrong == "key" else "it is for something else"]


async def test_a_token_is_good_for_a_quarter_of_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in AWS.items():
        monkeypatch.setenv(name, value)
    _, token = await IamCredentials(SIGNER.user, SIGNER.cluster, region=SIGNER.region).current()
    now = datetime.now(UTC)
    objections = [SIGNER.objection(SIGNER.user, token or "", now + timedelta(seconds=late)) for late in (0, 890, 901)]
    assert objections == ["", "", "it has expired"]
