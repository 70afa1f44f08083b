"""The token from Secrets Manager: a real server of its API (moto), and a real Valkey that asks for the token."""

import asyncio
import json
import logging
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import ClientError
from redis import exceptions

from modelready.credentials import Credentials, CredentialSource, NoCredentials
from modelready.redis.aws.secrets_manager import SecretsManagerCredentials
from modelready.redis.cluster import Server
from modelready.redis.connection import NodeConnection
from modelready.redis.pool import Pool
from modelready.redis.settings import read_settings
from tests.harness.aws_api import log_in_by_environment, start_moto
from tests.harness.ports import LOOPBACK, PortLease
from tests.harness.redis_server import RedisServer
from tests.harness.waiting import patience

REGION = "eu-west-1"
OLD, NEW = "the-old-token-0000", "the-new-token-1111"
SPACING = 0.2


class Aws:
    """A moto server that can go away and come back; it keeps what it holds."""

    def __init__(self) -> None:
        self._lease = PortLease()
        self.url = f"http://{LOOPBACK}:{self._lease.port}"
        self._server: Any = None

    def start(self) -> None:
        self._server = start_moto(port=self._lease.port)

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    @cached_property
    def client(self) -> Any:
        return boto3.client("secretsmanager", region_name=REGION, endpoint_url=self.url)

    def put(self, value: str) -> str:
        name = f"redis/{uuid4()}"
        self.client.create_secret(Name=name, SecretString=value)
        return name

    def rotate(self, name: str, value: str, stage: str = "AWSCURRENT") -> None:
        self.client.put_secret_value(SecretId=name, SecretString=value, VersionStages=[stage])

    def source(self, name: str, **options: Any) -> SecretsManagerCredentials:
        defaults: dict[str, Any] = {"region": REGION, "endpoint_url": self.url, "spacing_seconds": SPACING}
        return SecretsManagerCredentials(name, **(defaults | options))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log_in_by_environment(monkeypatch, tmp_path / "none", "session/token+of=a task role")


@pytest.fixture
def away() -> Iterator[Aws]:
    aws = Aws()
    yield aws
    aws.stop()


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    aws = Aws()
    aws.start()
    yield aws
    aws.stop()


@pytest.fixture
def redis_port() -> Iterator[int]:
    """A server whose token is OLD."""
    with RedisServer(password=OLD) as server:
        yield server.port


@pytest.mark.parametrize(
    ("value", "options", "expected"),
    [
        (OLD, {}, Credentials(None, OLD)),
        (OLD + "\n", {"username": "registry"}, Credentials("registry", OLD)),
        ("1234567890123456", {}, Credentials(None, "1234567890123456")),
        (json.dumps({"password": OLD}), {}, Credentials(None, OLD)),
        (json.dumps({"username": "rotated", "password": OLD}), {}, Credentials("rotated", OLD)),
        (json.dumps({"username": "rotated", "password": OLD}), {"username": "set"}, Credentials("set", OLD)),
        ("\ufeff" + json.dumps({"password": OLD}), {}, Credentials(None, OLD)),
        ("\ufeff" + OLD, {}, Credentials(None, OLD)),
        (json.dumps({"password": OLD + "\r\n"}), {}, Credentials(None, OLD)),
        ('{"note": "two\nlines", "password": "' + OLD + '\n"}', {}, Credentials(None, OLD)),
        (json.dumps({"password": "another", "authToken": OLD}), {"key": "authToken"}, Credentials(None, OLD)),
    ],
)
async def test_the_secret_is_the_token_or_json(
    aws: Aws, value: str, options: dict[str, Any], expected: Credentials
) -> None:
    assert await aws.source(aws.put(value), **options).current() == expected


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (json.dumps({"token": OLD}), "its key 'password' (REDIS_AUTH_SECRET_KEY) is missing, empty or no text"),
        (json.dumps({"password": ""}), "its key 'password' (REDIS_AUTH_SECRET_KEY) is missing, empty or no text"),
        (json.dumps({"password": [OLD]}), "its key 'password' (REDIS_AUTH_SECRET_KEY) is missing, empty or no text"),
        ('{"password": ' + OLD, "it starts as JSON does but is none"),
        ('{"password": "\\ud800abc"}', "its key 'password' (REDIS_AUTH_SECRET_KEY) is missing, empty or no text"),
        (json.dumps({"password": OLD, "username": 7}), "its key 'username' is no text"),
        ('{"password": "' + OLD + '", "username": "\\ud800"}', "its key 'username' is no text"),
        ('{"password": ' + "[" * 20_000 + "]" * 20_000 + "}", "it starts as JSON does but is none"),
        ("\n", "its value is missing, empty or no text"),
        (None, "ResourceNotFoundException: Secrets Manager can't find the specified secret."),
    ],
)
async def test_an_unusable_secret_is_named_with_the_reason_and_without_its_value(
    aws: Aws, value: str | None, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = aws.put(value) if value else "redis/none"
    with pytest.raises(NoCredentials) as raised:
        await aws.source(name).current()
    assert str(raised.value) == f"the secret {name} (REDIS_AUTH_SECRET_ID) cannot be read: {why}"
    assert OLD not in caplog.text


async def test_what_aws_quotes_of_the_request_is_cut(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signature that it finds wrong, as with a clock that is off: its answer has the session's token."""

    def refuse(**_: Any) -> None:
        said = f"The request signature does not match.\n\nThe Canonical String was\n'x-amz-security-token:{OLD}'"
        raise ClientError({"Error": {"Code": "SignatureDoesNotMatch", "Message": said}}, "GetSecretValue")

    source = aws.source(aws.put(OLD))
    client = aws.client
    monkeypatch.setattr(client, "get_secret_value", refuse)
    source._secret._client = client
    with pytest.raises(NoCredentials) as raised:
        await source.current()
    assert str(raised.value).endswith("SignatureDoesNotMatch: The request signature does not match.")
    assert OLD not in "".join(traceback.format_exception(raised.value))


async def test_a_binary_secret_is_refused(aws: Aws) -> None:
    aws.client.create_secret(Name="redis/binary", SecretBinary=OLD.encode())
    with pytest.raises(NoCredentials, match="binary"):
        await aws.source("redis/binary").current()


async def test_an_arn_says_its_region(aws: Aws) -> None:
    arn = aws.client.describe_secret(SecretId=aws.put(OLD))["ARN"]
    assert (await aws.source(arn, region="us-east-1").current()).token == OLD


async def test_a_wrong_endpoint_is_an_error_like_any_other() -> None:
    with pytest.raises(NoCredentials, match=r"cannot be read: ValueError$"):
        await SecretsManagerCredentials("redis/token", region=REGION, endpoint_url="nowhere").current()


async def test_without_a_region_the_error_says_so(aws: Aws) -> None:
    with pytest.raises(NoCredentials, match="NoRegionError: You must specify a region"):
        await aws.source("redis/token", region="").current()


async def test_a_refused_token_is_replaced_by_the_rotated_one(aws: Aws) -> None:
    name = aws.put(OLD)
    source = aws.source(name)
    assert (await source.current()).token == OLD
    aws.rotate(name, NEW)
    assert (await source.current()).token == OLD  # a connection costs no call of the API
    await asyncio.sleep(SPACING)
    assert await source.refused()
    assert (await source.current()).token == NEW


async def test_a_staged_token_is_tried_and_then_the_current_one_again(aws: Aws) -> None:
    name = aws.put(OLD)
    source = aws.source(name)
    await source.current()
    aws.rotate(name, NEW, "AWSPENDING")
    tokens = []
    for _ in range(3):
        await asyncio.sleep(SPACING)
        assert await source.refused()
        tokens.append((await source.current()).token)
    assert tokens == [NEW, OLD, NEW]


async def test_a_staged_token_that_works_stays_when_the_rotation_ends(aws: Aws) -> None:
    name = aws.put(OLD)
    source = aws.source(name, refresh_seconds=SPACING + 0.1)
    await source.current()
    aws.rotate(name, NEW, "AWSPENDING")
    await asyncio.sleep(SPACING)
    assert await source.refused()
    async with watching(source) as changes:
        await asyncio.sleep(3 * SPACING)  # AWSCURRENT is the old one still
        assert (await source.current()).token == NEW
        aws.rotate(name, NEW)
        await asyncio.sleep(3 * SPACING)
        assert (await source.current()).token == NEW
    assert changes == []


async def test_a_wrong_token_does_not_hammer_the_api(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    source = aws.source(aws.put(OLD), spacing_seconds=60)
    reads = count_reads(source, monkeypatch)
    await asyncio.gather(*(source.current() for _ in range(50)))
    assert [await source.refused() for _ in range(50)] == [False] * 50
    assert reads == ["AWSCURRENT"]


async def test_many_refusals_at_once_are_one_read_and_all_learn_of_the_change(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = aws.put(OLD)
    source = aws.source(name)
    await source.current()
    aws.rotate(name, NEW)
    await asyncio.sleep(SPACING)
    reads = count_reads(source, monkeypatch)
    assert all(await asyncio.gather(*(source.refused() for _ in range(50))))
    assert await source.refused()  # one that comes late
    assert reads == ["AWSCURRENT"]


async def test_a_caller_that_gives_up_leaves_the_read_to_the_others(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    source = aws.source(aws.put(OLD))
    reads = count_reads(source, monkeypatch, seconds=0.3)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await source.current()
    assert (await source.current()).token == OLD
    assert reads == ["AWSCURRENT"]


async def test_the_event_loop_runs_while_aws_is_slow(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    source = aws.source(aws.put(OLD))
    await source.current()  # the import holds Python's lock for a while in any thread
    await asyncio.sleep(SPACING)
    count_reads(source, monkeypatch, seconds=1.5)
    looking = asyncio.create_task(source.refused())
    longest, last = 0.0, time.monotonic()
    while not looking.done():
        await asyncio.sleep(0.005)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    assert longest < 1.5, "it stood still for as long as the read"


async def test_aws_away_at_the_start_is_an_error_until_it_is_back(away: Aws) -> None:
    source = away.source("redis/late")
    with pytest.raises(NoCredentials, match=r"redis/late .*EndpointConnectionError"):
        await source.current()
    away.start()
    away.client.create_secret(Name="redis/late", SecretString=OLD)
    await asyncio.sleep(SPACING)
    assert (await source.current()).token == OLD


async def test_aws_away_later_keeps_the_last_token_and_warns_once(away: Aws, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "modelready")
    away.start()
    name = away.put(OLD)
    source = away.source(name, refresh_seconds=SPACING + 0.05)
    await source.current()
    away.stop()
    async with watching(source) as changes:
        await until(lambda: "cannot be read" in caplog.text)
        for _ in range(2):
            await asyncio.sleep(SPACING)
            assert not await source.refused()
        assert (await source.current()).token == OLD
        away.start()
        away.rotate(name, NEW)
        await until(lambda: bool(changes))
    assert (await source.current()).token == NEW
    records = [record for record in caplog.records if record.name == "modelready.redis.aws.secrets_manager"]
    assert [(record.levelname, record.getMessage().partition(": ")[0]) for record in records] == [
        ("WARNING", f"the secret {name} cannot be read"),
        ("INFO", f"the secret {name} can be read again"),
        ("INFO", f"the secret {name} gave new credentials"),
    ]
    assert NEW not in caplog.text
    assert OLD not in caplog.text


async def test_a_pool_logs_in_with_the_secret_and_follows_its_rotation(aws: Aws, redis_port: int) -> None:
    name = aws.put(json.dumps({"username": "default", "password": OLD}))
    async with pool(redis_port, aws.source(name)) as redis:
        await redis.one("PING")
        await redis.one("CONFIG", "SET", "requirepass", NEW)
        await redis.one("PING")  # a live connection stays
        await redis.close()
        with pytest.raises(exceptions.AuthenticationError):
            await redis.one("PING")
        aws.rotate(name, json.dumps({"username": "default", "password": NEW}))
        await asyncio.sleep(SPACING)
        assert await redis.one("PING") == b"PONG"


async def test_a_login_without_a_secret_opens_no_connection(
    away: Aws, redis_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = away.source("redis/none")
    monkeypatch.setattr(NodeConnection, "_open_streams", None)
    async with pool(redis_port, source) as redis:
        with pytest.raises(exceptions.AuthenticationError, match="redis/none"):
            await redis.one("PING")
        await asyncio.sleep(SPACING)  # then AWS is asked again, and the caller does not wait for it
        count_reads(source, monkeypatch, seconds=0.5)
        with pytest.raises(exceptions.TimeoutError, match="in time"):
            await redis.one("PING", timeout=0.05)


def count_reads(source: SecretsManagerCredentials, monkeypatch: pytest.MonkeyPatch, seconds: float = 0) -> list[str]:
    """The stages that are read from now on, each `seconds` slower than it is."""
    reads: list[str] = []
    real = source._secret.read

    def read(stage: str) -> Credentials:
        reads.append(stage)
        time.sleep(seconds)
        return real(stage)

    monkeypatch.setattr(source._secret, "read", read)
    return reads


@asynccontextmanager
async def watching(source: CredentialSource) -> AsyncIterator[list[None]]:
    """`watch` runs; an entry for each change."""
    changes: list[None] = []

    async def changed() -> None:
        changes.append(None)

    watch = asyncio.create_task(source.watch(changed))
    try:
        yield changes
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch


@asynccontextmanager
async def pool(port: int, source: CredentialSource) -> AsyncIterator[Pool]:
    settings = read_settings({"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(port), "REDIS_TIMEOUT_SECONDS": "5"})
    connections = Pool(Server(settings, source, key="any", client_name="test"))
    yield connections
    await connections.close()


async def until(true: Callable[[], bool], seconds: float = 15) -> None:
    async with asyncio.timeout(patience(seconds)):
        while not true():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.02)
