"""Who we are to Redis: where a user name and a token come from.

A source is asked once for every new connection, never per command. Those that ask AWS need
boto3, the extra `aws`, and import it when they are asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from modelready.redis.env import SettingsError
from modelready.redis.settings import RedisSettings


class NoCredentials(Exception):
    """There are none now; the text says why, and never what a secret holds."""


class Credentials(NamedTuple):
    """A user name and a token; a token alone is the user `default`'s, and neither means that Redis asks for none."""

    username: str | None
    token: str | None

    def __repr__(self) -> str:
        token = "***" if self.token else "None"
        return f"Credentials(username={self.username!r}, token={token})"


class CredentialSource(Protocol):
    """Where the credentials come from. Nothing here blocks the event loop, and no text here holds a token."""

    @property
    def max_connection_seconds(self) -> float | None:
        """How long Redis keeps a connection that these opened: replace it before that. None: as long as it lives."""

    async def current(self) -> Credentials:
        """The credentials for a new connection. Raises NoCredentials when there are none."""

    async def refused(self) -> bool:
        """Redis refused the credentials: look again. True when it is worth trying once more at once. Never raises.

        It takes as long as AWS does, half a minute at the worst; a caller may give up, and the look goes on.
        """

    async def watch(self, changed: Callable[[], Awaitable[None]]) -> None:
        """Keep them fresh until cancelled, and call `changed` after each change found here, not in `refused`.

        What `changed` raises ends this.
        """


class StaticCredentials:
    """The user name and the token that the settings hold; empty is the same as absent."""

    max_connection_seconds: float | None = None

    def __init__(self, username: str | None = None, token: str | None = None) -> None:
        self._credentials = Credentials(username or None, token or None)

    async def current(self) -> Credentials:
        """Return what was given, whatever it is."""
        return self._credentials

    async def refused(self) -> bool:
        """Nothing else to try: a person must change the settings."""
        return False

    async def watch(self, changed: Callable[[], Awaitable[None]]) -> None:  # noqa: ARG002 - they never change
        """Wait until cancelled."""
        await asyncio.Event().wait()


def credential_source(settings: RedisSettings) -> CredentialSource:
    """The source that the settings name. Raises SettingsError."""
    username, region = settings.username or None, settings.aws_region or None
    if settings.auth_secret_id:
        from modelready.redis.aws.secrets_manager import SecretsManagerCredentials  # noqa: PLC0415 - only when used

        return SecretsManagerCredentials(
            settings.auth_secret_id,
            key=settings.auth_secret_key,
            username=username,
            region=region,
            endpoint_url=settings.aws_endpoint_url or None,
        )
    if settings.iam_cluster:
        from modelready.redis.aws.iam import IamCredentials  # noqa: PLC0415 - only when used

        return IamCredentials(
            settings.username, settings.iam_cluster, serverless=settings.iam_serverless, region=region
        )
    if username and not settings.auth_token:
        raise SettingsError(f"REDIS_USERNAME is {username!r}, but no token is set: REDIS_AUTH_TOKEN is empty")
    # From a file, as Kubernetes takes it, it ends with a newline.
    return StaticCredentials(username, settings.auth_token.rstrip("\r\n"))
