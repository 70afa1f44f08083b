"""IAM tokens for ElastiCache: each signature is computed again here, by hand."""

import asyncio
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from modelready.credentials import NoCredentials
from modelready.redis.aws.iam import IamCredentials
from modelready.redis.aws.secrets_manager import SecretsManagerCredentials
from tests.harness.aws_api import log_in_by_environment
from tests.harness.iam_gate import sigv4

REGION = "eu-west-1"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log_in_by_environment(monkeypatch, tmp_path / "none", "session/token+of=a task role")


@pytest.mark.parametrize("serverless", [False, True])
async def test_an_iam_token_is_the_signed_request_that_elasticache_checks(serverless: bool) -> None:
    source = IamCredentials("registry-user", "Model-Ready", serverless=serverless, region=REGION)
    username, token = await source.current()
    assert username == "registry-user"
    assert token is not None
    assert token.startswith("model-ready/?Action=connect&User=registry-user&")
    query = dict(parse_qsl(urlsplit("//" + token).query, strict_parsing=True))
    signature = query.pop("X-Amz-Signature")
    when = query["X-Amz-Date"]
    assert abs(datetime.now(UTC) - datetime.strptime(when, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)).total_seconds() < 60
    expected = {
        "Action": "connect",
        "User": "registry-user",
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"AKIDEXAMPLE/{when[:8]}/{REGION}/elasticache/aws4_request",
        "X-Amz-Date": when,
        "X-Amz-Expires": "900",
        "X-Amz-Security-Token": "session/token+of=a task role",
        "X-Amz-SignedHeaders": "host",
    } | ({"ResourceType": "ServerlessCache"} if serverless else {})
    assert query == expected
    assert signature == sigv4(query, host="model-ready", when=when, secret="not-a-real-key", region=REGION)
    assert source.max_connection_seconds == 11 * 3600
    assert not await source.refused()


async def test_iam_takes_the_region_of_the_environment_and_signs_in_parallel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-south-1")
    source = IamCredentials("registry-user", "model-ready")
    tokens = [found.token or "" for found in await asyncio.gather(*(source.current() for _ in range(20)))]
    assert all("%2Fap-south-1%2Felasticache%2F" in token for token in tokens)


async def test_iam_without_a_region_or_credentials_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoCredentials, match="set AWS_REGION"):
        await IamCredentials("registry-user", "model-ready").current()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    with pytest.raises(NoCredentials, match="no AWS credentials"):
        await IamCredentials("registry-user", "model-ready", region=REGION).current()
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/credentials")
    with pytest.raises(NoCredentials, match="no AWS credentials"):
        await IamCredentials("registry-user", "model-ready", region=REGION).current()


async def test_where_the_role_s_endpoint_hangs_there_is_one_fetch_however_many_connect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, answers, asked = IamCredentials("registry-user", "model-ready", region=REGION), threading.Event(), []
    fetch = source._fetch

    def slow() -> Any:
        asked.append(1)
        answers.wait(10)
        return fetch()

    monkeypatch.setattr(source, "_fetch", slow)
    for _ in range(5):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await source.current()
    assert asked == [1]
    answers.set()
    assert (await source.current()).token


async def test_a_thread_that_cannot_be_started_is_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    iam, secret = IamCredentials("registry-user", "model-ready", region=REGION), SecretsManagerCredentials("redis")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for source in (iam, secret):
            with pytest.raises(NoCredentials, match="can't start new thread"):
                await source.current()
    assert (await iam.current()).token
