"""Tokens for IAM authentication with ElastiCache and RDS: a signed request that is never sent, as the password."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlencode

from modelready._thread import in_thread
from modelready.credentials import Credentials, NoCredentials
from modelready.redis.env import SettingsError

TOKEN_SECONDS = 900  # the longest that both take; it matters only until the connection has logged in


class IamCredentials:
    """A fresh token for every connection, signed here with the task role's credentials.

    `user` is the ElastiCache user, whose id and name must be the same; `cluster` the replication group's id or the
    serverless cache's name, not a host name. ElastiCache ends a connection 12 hours after it logged in.
    """

    max_connection_seconds: float | None = 11 * 3600.0
    service, variable = "elasticache", "REDIS_IAM_CLUSTER"

    def __init__(self, user: str, cluster: str, *, serverless: bool = False, region: str | None = None) -> None:
        query = {"User": user} | ({"ResourceType": "ServerlessCache"} if serverless else {})
        self._prepare(user, cluster.lower(), query, region)

    def _prepare(self, user: str, host: str, query: dict[str, str], region: str | None) -> None:
        if find_spec("boto3") is None:
            raise SettingsError(f"{self.variable} needs boto3, which the extra 'aws' brings")
        self._url = f"https://{host}/?{urlencode({'Action': 'connect', **query})}"
        self._user = user
        self._region = region
        self._session: Any = None
        self._fetching: asyncio.Task[tuple[Any, str]] | None = None

    async def current(self) -> Credentials:
        """Sign a token, with the task role's credentials, which may have to be fetched. Raises NoCredentials.

        One fetch at a time: if the role's endpoint hangs, a connection gives up before the fetch does.
        """
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(in_thread("IAM credentials", self._fetch))
            self._fetching.add_done_callback(_seen)
        try:
            credentials, region = await asyncio.shield(self._fetching)
        except RuntimeError as error:  # no thread can be started
            raise NoCredentials(f"no AWS credentials to sign an IAM token with: {error}") from error
        return Credentials(self._user, self._sign(credentials, region))

    async def refused(self) -> bool:
        """Nothing else to try: the next connection gets a new token in any case."""
        return False

    async def watch(self, changed: Callable[[], Awaitable[None]]) -> None:  # noqa: ARG002 - see `current`
        """Wait until cancelled."""
        await asyncio.Event().wait()

    def _fetch(self) -> tuple[Any, str]:
        from botocore.session import Session  # noqa: PLC0415 - 100 ms and 30 MB, only when used

        try:
            self._session = self._session or Session()
            credentials = self._session.get_credentials()
            region = self._region or self._session.get_config_variable("region")
            frozen = credentials and credentials.get_frozen_credentials()
        except Exception as error:
            raise NoCredentials(f"no AWS credentials to sign an IAM token with: {error}") from error
        if not frozen:
            raise NoCredentials("no AWS credentials to sign an IAM token with: the task has no task role")
        if not region:
            raise NoCredentials("no AWS region to sign an IAM token for: set AWS_REGION")
        return frozen, region

    def _sign(self, credentials: Any, region: str) -> str:
        from botocore.auth import SigV4QueryAuth  # noqa: PLC0415 - only when used
        from botocore.awsrequest import AWSRequest  # noqa: PLC0415

        request = AWSRequest("GET", self._url)
        SigV4QueryAuth(credentials, self.service, region, expires=TOKEN_SECONDS).add_auth(request)
        return str(request.url).removeprefix("https://")


class RdsCredentials(IamCredentials):
    """The same for a user of a database of RDS or Aurora at `host`, its endpoint's name, and `port`."""

    max_connection_seconds: float | None = None
    service, variable = "rds-db", "OUTBOX_IAM"

    def __init__(self, user: str, host: str, port: int, *, region: str | None = None) -> None:
        self._prepare(user, f"{host}:{port}", {"DBUser": user}, region)


def _seen(task: asyncio.Task[Any]) -> None:
    """Retrieve its error: the waiters that would get it may be gone."""
    if not task.cancelled():
        task.exception()
