"""Credentials: what redis-py gets of them, and that no text shows a token."""

import asyncio
import logging
import subprocess
import sys

import pytest
from redis.exceptions import AuthenticationError

from modelready._aws.iam import IamCredentials
from modelready._aws.secrets_manager import SecretsManagerCredentials
from modelready._login import Provider, log_in
from modelready.credentials import Credentials, CredentialSource, NoCredentials, StaticCredentials, credential_source

TOKEN = "correct-horse-battery"


class Unlucky(StaticCredentials):
    async def current(self) -> Credentials:
        raise NoCredentials("the secret cannot be read")


@pytest.mark.parametrize(
    ("username", "token", "arguments"),
    [
        ("registry", TOKEN, ("registry", TOKEN)),
        (None, TOKEN, (TOKEN,)),
        ("", TOKEN, (TOKEN,)),
        ("registry", None, ("registry", "")),
        (None, None, ()),
        ("", "", ()),
    ],
)
async def test_redis_py_gets_the_arguments_of_auth(
    username: str | None, token: str | None, arguments: tuple[str, ...]
) -> None:
    assert await Provider(StaticCredentials(username, token)).get_credentials_async() == arguments


async def test_a_source_without_credentials_is_an_authentication_error_to_redis_py() -> None:
    with pytest.raises(AuthenticationError, match="the secret cannot be read") as raised:
        await Provider(Unlucky()).get_credentials_async()
    assert isinstance(raised.value.__cause__, NoCredentials)


def test_the_blocking_twin_is_refused() -> None:
    with pytest.raises(NotImplementedError):
        Provider(StaticCredentials(None, TOKEN)).get_credentials()


def test_static_credentials_have_nothing_else_to_try() -> None:
    source: CredentialSource = StaticCredentials("registry", TOKEN)

    async def watched() -> None:
        assert not await source.refused()
        async with asyncio.timeout(0.05):
            await source.watch(_never)

    assert source.max_connection_seconds is None
    with pytest.raises(TimeoutError):
        asyncio.run(watched())


async def _never() -> None:
    raise AssertionError("nothing changed")


def test_no_text_shows_a_token(caplog: pytest.LogCaptureFixture) -> None:
    credentials = Credentials("registry", TOKEN)
    source = StaticCredentials("registry", TOKEN)
    with caplog.at_level(logging.INFO):
        logging.getLogger("test").info("%s %r", credentials, credentials)
    texts = [f"{credentials} {credentials!r}", repr([credentials]), caplog.text, repr([source, Provider(source)])]
    assert "registry" in texts[0]
    assert not [text for text in texts if TOKEN in text]


async def test_a_login_that_is_cancelled_leaves_no_open_connection() -> None:
    class Connection:
        closed = False

        async def on_connect(self) -> None:
            await asyncio.sleep(60)

        async def disconnect(self, *, nowait: bool) -> None:
            self.closed = nowait

    connection = Connection()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await log_in(connection)  # type: ignore[arg-type]
    assert connection.closed


async def test_a_token_that_was_made_from_a_file_ends_without_its_newline() -> None:
    nothing = dict.fromkeys(("username", "secret_id", "secret_key", "iam_cluster", "region", "endpoint_url"), "")
    source = credential_source(token=f"{TOKEN}\r\n", iam_serverless=False, **nothing)
    assert (await source.current()).token == TOKEN


def test_what_needs_aws_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ValueError, match=r"^REDIS_AUTH_SECRET_ID needs boto3"):
        SecretsManagerCredentials("token")
    with pytest.raises(ValueError, match=r"^REDIS_IAM_CLUSTER needs boto3"):
        IamCredentials("registry", "cache")


def test_aws_is_imported_only_when_it_is_asked() -> None:
    code = (
        "import sys, modelready._login; from modelready._aws import iam, secrets_manager\n"
        "iam.IamCredentials('user', 'cache'); secrets_manager.SecretsManagerCredentials('token')\n"
        "print({name.partition('.')[0] for name in sys.modules} & {'boto3', 'botocore'})"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
