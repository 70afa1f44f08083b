"""Credentials from AWS Secrets Manager, through rotations and while AWS is away."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.util import find_spec

from modelready._thread import in_thread
from modelready.credentials import Credentials, NoCredentials
from modelready.redis.aws.secret_value import SecretValue, Unreadable
from modelready.redis.env import SettingsError

logger = logging.getLogger(__name__)

_READ_SECONDS = 15.0  # an answer that comes byte by byte has no other end


class SecretsManagerCredentials:
    """One secret: the token itself, or JSON with the token under `key` and, unless it is given, the `username`.

    It is read when first needed, every `refresh_seconds` by `watch`, and when the server refused what it held; one read
    at a time, and none sooner than `spacing_seconds` after the last. What was read stays in use while AWS is away.
    """

    max_connection_seconds: float | None = None

    def __init__(
        self,
        secret_id: str,
        *,
        key: str = "password",
        username: str | None = None,
        region: str | None = None,
        endpoint_url: str | None = None,
        refresh_seconds: float = 300.0,
        spacing_seconds: float = 2.0,  # below PUBLISH_TIMEOUT_SECONDS: a rotation right after a read is no error
        variable: str = "REDIS_AUTH_SECRET_ID",
    ) -> None:
        """`variable`: the one that names the secret, for errors."""
        if find_spec("boto3") is None:
            raise SettingsError(f"{variable} needs boto3, which the extra 'aws' brings")
        self._variable = variable
        self._secret = SecretValue(secret_id, key, username, region, endpoint_url)
        self._refresh_seconds = refresh_seconds
        self._spacing_seconds = spacing_seconds
        self._in_use: Credentials | None = None
        self._newest: Credentials | None = None  # the last AWSCURRENT; not in use while AWSPENDING is
        self._failure: Unreadable | None = None
        self._reading: asyncio.Task[None] | None = None
        self._read_at = self._changed_at = float("-inf")

    async def current(self) -> Credentials:
        """Return what is in use. Raises NoCredentials, with the reason, when the secret never was readable."""
        if self._in_use is None:
            await self._look_again(refused=False)
        if self._in_use is None:
            raise NoCredentials(f"the secret {self._secret.id} ({self._variable}) cannot be read: {self._failure}")
        return self._in_use

    async def refused(self) -> bool:
        """Read the secret again; if it is the same, take the one that a rotation has staged as AWSPENDING, if any.

        True for `spacing_seconds` after a change: connections that began with the old one may ask late.
        """
        await self._look_again(refused=True)
        return time.monotonic() - self._changed_at < self._spacing_seconds

    async def watch(self, changed: Callable[[], Awaitable[None]]) -> None:
        """Read the secret every `refresh_seconds`, give or take a tenth, and call `changed` when it is a new one."""
        while True:
            await asyncio.sleep(self._refresh_seconds * random.uniform(0.9, 1.1))  # noqa: S311 - only spreads the load
            before = self._in_use
            await self._look_again(refused=False)
            if self._in_use != before:
                await changed()

    async def _look_again(self, *, refused: bool) -> None:
        if self._reading is None or self._reading.done():
            if time.monotonic() - self._read_at < self._spacing_seconds:
                return
            self._reading = asyncio.create_task(self._read(refused=refused))
        await asyncio.shield(self._reading)  # a caller that gives up leaves it to the others

    async def _read(self, *, refused: bool) -> None:
        try:
            newest = await self._get("AWSCURRENT")
        except Unreadable as failure:
            self._note(failure)
        else:
            self._note(None)
            if refused and newest == self._in_use:
                self._use(await self._staged() or newest)
            elif refused or newest != self._newest:
                self._use(newest)
            self._newest = newest
        finally:
            self._read_at = time.monotonic()

    async def _staged(self) -> Credentials | None:
        try:
            return await self._get("AWSPENDING")
        except Unreadable as reason:
            logger.debug("the secret %s has nothing staged: %s", self._secret.id, reason)
            return None

    async def _get(self, stage: str) -> Credentials:
        try:
            return await asyncio.wait_for(in_thread("secret", partial(self._secret.read, stage)), _READ_SECONDS)
        except asyncio.TimeoutError:
            raise Unreadable("TimeoutError", f"no answer within {_READ_SECONDS:g} s") from None
        except RuntimeError as error:  # no thread can be started
            raise Unreadable("RuntimeError", str(error)) from error

    def _use(self, found: Credentials) -> None:
        if self._in_use not in {None, found}:
            self._changed_at = time.monotonic()
            logger.info("the secret %s gave new credentials", self._secret.id)
        self._in_use = found

    def _note(self, failure: Unreadable | None) -> None:
        """Remember why the secret cannot be read, and log it when that is of another kind than before."""
        before, self._failure = self._failure, failure
        if failure and (before is None or before.kind != failure.kind):
            kept = "; the last known credentials stay in use" if self._in_use else ""
            logger.warning("the secret %s cannot be read: %s%s", self._secret.id, failure, kept)
        elif before and not failure:
            logger.info("the secret %s can be read again", self._secret.id)
