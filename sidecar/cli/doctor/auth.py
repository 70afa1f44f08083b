"""The check of the credentials: whether there are any, and whether the server takes them."""

from __future__ import annotations

import http.client
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from modelready.credentials import Credentials, CredentialSource, NoCredentials
from modelready.redis.settings import RedisSettings
from sidecar.cli.doctor.findings import CLOCK_SKEW_SECONDS
from sidecar.cli.doctor.report import Report
from sidecar.errors import AuthFailed, QueueError
from sidecar.metrics import Metrics
from sidecar.redisstream.connection import RedisConnection

_MISSING = ("ResourceNotFoundException",)
_DENIED = (
    "AccessDenied", "UnrecognizedClient", "InvalidClientTokenId", "InvalidSignature", "SignatureDoesNotMatch",
    "ExpiredToken", "RequestExpired", "DecryptionFailure", "KMS",
)  # fmt: skip
_UNREACHABLE = ("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError")
_AWS_SECONDS = 3.0
_CONTENT = ("missing, empty or no text", "starts as JSON", "it is binary")


class Hello(NamedTuple):
    """What a server says of itself."""

    server: str
    version: str
    mode: str
    """standalone or cluster; or sentinel, which cannot hold a queue."""
    role: str
    """master or replica."""


class LoggedIn(NamedTuple):
    """A connection to REDIS_HOST itself, also in a cluster, and its user."""

    connection: RedisConnection
    user: str
    hello: Hello | None
    """None: the credentials were taken, but the user may not name its connection, so that none is usable."""


@asynccontextmanager
async def connected(
    redis: RedisSettings, credentials: CredentialSource, key: str, *, cluster: bool
) -> AsyncIterator[RedisConnection]:
    """The sidecar's own kind of connection: to the owner of the queue's slot, or to REDIS_HOST."""
    settings = replace(redis, cluster=cluster, pool_size=2)
    connection = RedisConnection(settings, credentials, Metrics(), key)
    try:
        yield connection
    finally:
        await connection.close()


async def greet(connection: RedisConnection) -> Hello:
    """Ask a server what it is. Raises QueueErrors."""
    reply = await connection.execute("HELLO")
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    said: dict[Any, Any] = dict(pairs)
    return Hello(*(said[name].decode() for name in (b"server", b"version", b"mode", b"role")))


async def check_auth(
    report: Report, redis: RedisSettings, source: CredentialSource, connection: RedisConnection, greeting: bytes
) -> LoggedIn | None:
    """Log in as the sidecar does. `greeting`: what the server said to a PING without a login."""
    try:
        credentials = await source.current()
    except NoCredentials as error:
        await _explain_source(report, redis, str(error))
        return None
    user = credentials.username or "default"
    try:
        hello = await greet(connection)
    except AuthFailed as error:
        _explain_refusal(report, redis, credentials, str(error))
        return None
    except QueueError as error:
        if error.reason == "REDIS_NO_PERMISSION":
            report.ok("auth", f"the credentials of {user} are accepted")
            return LoggedIn(connection, user, None)
        if "unknown command" in str(error) and "HELLO" in str(error).upper():
            report.add("version-old", f"the server does not know HELLO, so it is older than Redis 6.0: {error}")
        else:
            report.add("auth-login", f"the login of {user} failed: {error}")
        return None
    if greeting.startswith(b"+") and credentials.token:
        report.add("auth-not-asked", "a token is set, but the server answers without one")
    elif greeting.startswith(b"+"):
        report.ok("auth", "no token is set, and the server asks for none")
    else:
        report.ok("auth", f"logged in as {user}")
    return LoggedIn(connection, user, hello)


async def _explain_source(report: Report, redis: RedisSettings, said: str) -> None:
    """There are no credentials; `said` is why."""
    kinds = {
        "auth-secret-missing": _MISSING,
        "auth-secret-denied": _DENIED,
        "auth-secret-unreachable": _UNREACHABLE,
        "auth-secret-content": _CONTENT,
    }
    finding = next((finding for finding, marks in kinds.items() if any(mark in said for mark in marks)), "")
    if redis.iam_cluster:
        report.add("auth-iam-unsigned", said)
    elif finding == "auth-secret-denied":
        _add_unless_clock(report, redis, finding, said)
    else:
        report.add(finding or "auth-secret-unreadable", said)


def _explain_refusal(report: Report, redis: RedisSettings, credentials: Credentials, said: str) -> None:
    """The server refused the credentials."""
    if redis.iam_cluster:
        _add_unless_clock(report, redis, "auth-iam-refused", f"the token of {credentials.username}: {said}")
    elif not credentials.token:
        report.add("auth-token-missing", f"no token is set: {said}")
    elif credentials.username:
        report.add("auth-user-refused", f"the user {credentials.username}: {said}")
    else:
        report.add("auth-token-refused", f"the token without a user: {said}")


def _add_unless_clock(report: Report, redis: RedisSettings, finding: str, said: str) -> None:
    """AWS refused a signature: the clock, or what `finding` says."""
    skew = _clock_skew(redis)
    if skew is not None and abs(skew) > CLOCK_SKEW_SECONDS:
        way = "ahead of" if skew > 0 else "behind"
        report.add("auth-clock", f"this machine's clock is {abs(skew) / 60:.0f} minutes {way} AWS's: {said}")
    else:
        known = "AWS's clock could not be asked" if skew is None else "the clock is right"
        report.add(finding, f"{said.rstrip('.')}; {known}")


def _clock_skew(redis: RedisSettings) -> float | None:
    """How many seconds this machine's clock is ahead of AWS's, to a second or two. None where AWS does not answer.

    It is the Date header of any answer: nothing is signed, and a refusal has the header as well.
    """
    url = urlsplit(redis.aws_endpoint_url or f"https://sts.{redis.aws_region or 'us-east-1'}.amazonaws.com")
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    try:
        with closing(kind(url.hostname or "", url.port, timeout=_AWS_SECONDS)) as connection:
            connection.request("HEAD", "/")
            date = connection.getresponse().headers["Date"]
        return time.time() - parsedate_to_datetime(date).timestamp()
    except (OSError, http.client.HTTPException, ValueError, TypeError):
        return None
