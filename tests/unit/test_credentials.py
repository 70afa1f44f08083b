"""Credentials: what redis-py gets of them, and that no text shows a token."""

import asyncio
import logging
import subprocess
import sys

import pytest
from redis import exceptions

from modelready.credentials import Credentials, CredentialSource, NoCredentials, StaticCredentials, credential_source
from modelready.redis.aws.iam import IamCredentials
from modelready.redis.aws.secrets_manager import SecretsManagerCredentials
from modelready.redis.connection import Endpoint, NodeConnection, pack
from modelready.redis.faults import Kind, fault
from modelready.redis.settings import RedisSettings
from modelready.redis.sockets import Resolver

TOKEN = "correct-horse-battery"


class Unlucky(StaticCredentials):
    async def current(self) -> Credentials:
        raise NoCredentials("the secret cannot be read")


async def login_of(source: CredentialSource) -> bytes:
    """What is sent to log in."""
    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.set_result(await reader.readuntil(b"SETNAME"))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        node = Endpoint("127.0.0.1", server.sockets[0].getsockname()[1])
        with pytest.raises(exceptions.ConnectionError):
            await NodeConnection(node, source, Resolver(), timeout=2, client_name="test", db=0).open()
    return await got


@pytest.mark.parametrize(
    ("username", "token", "arguments"),
    [
        ("registry", TOKEN, ["AUTH", "registry", TOKEN]),
        (None, TOKEN, ["AUTH", "default", TOKEN]),
        ("", TOKEN, ["AUTH", "default", TOKEN]),
        ("registry", None, ["AUTH", "registry", ""]),
        (None, None, []),
        ("", "", []),
    ],
)
async def test_a_login_is_one_hello(username: str | None, token: str | None, arguments: list[str]) -> None:
    sent = await login_of(StaticCredentials(username, token))
    assert sent.startswith(pack([("HELLO", "3", *arguments)]) + b"*3\r\n$6\r\nCLIENT")


async def test_a_source_without_credentials_is_refused_credentials() -> None:
    with pytest.raises(exceptions.AuthenticationError, match="the secret cannot be read") as raised:
        await NodeConnection(Endpoint("::1", 1), Unlucky(), Resolver(), timeout=2, client_name="test", db=0).open()
    assert isinstance(raised.value.__cause__, NoCredentials)
    assert fault(raised.value) == (
        Kind.AUTH,
        "there are no credentials for Redis: the secret cannot be read",
        "",
        False,
    )


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
    texts = [f"{credentials} {credentials!r}", repr([credentials]), caplog.text, repr([source])]
    assert "registry" in texts[0]
    assert not [text for text in texts if TOKEN in text]


async def test_a_login_that_is_cancelled_leaves_no_open_connection() -> None:
    closed = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        closed.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        node = Endpoint("127.0.0.1", server.sockets[0].getsockname()[1])
        connection = NodeConnection(node, StaticCredentials(), Resolver(), timeout=2, client_name="test", db=0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await connection.open()
        assert not connection.is_usable()
        async with asyncio.timeout(5):
            await closed.wait()


async def test_a_token_that_was_made_from_a_file_ends_without_its_newline() -> None:
    source = credential_source(RedisSettings(host="redis", auth_token=f"{TOKEN}\r\n"))
    assert (await source.current()).token == TOKEN


def test_what_needs_aws_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ValueError, match=r"^REDIS_AUTH_SECRET_ID needs boto3"):
        SecretsManagerCredentials("token")
    with pytest.raises(ValueError, match=r"^REDIS_IAM_CLUSTER needs boto3"):
        IamCredentials("registry", "cache")


def test_aws_is_imported_only_when_it_is_asked() -> None:
    code = (
        "import sys; from modelready.redis.aws import iam, secrets_manager\n"
        "iam.IamCredentials('user', 'cache'); secrets_manager.SecretsManagerCredentials('token')\n"
        "print({name.partition('.')[0] for name in sys.modules} & {'boto3', 'botocore'})"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
