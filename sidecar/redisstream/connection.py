"""The sidecar's way to Redis: modelready.redis, with its faults as QueueErrors and counted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from modelready.credentials import CredentialSource
from modelready.redis.cluster import Server
from modelready.redis.faults import Kind, RedisError, fault
from modelready.redis.pool import Pool
from modelready.redis.script import Script
from modelready.redis.settings import RedisSettings
from sidecar.errors import AuthFailed, QueueError, Refused, SetupFault, Unavailable
from sidecar.metrics import Metrics


class RedisConnection:
    """A bounded pool of connections to the node that owns the queue."""

    def __init__(self, settings: RedisSettings, credentials: CredentialSource, metrics: Metrics, key: str) -> None:
        """`key`: any key of the queue; in a cluster it decides the node."""
        self._size = settings.pool_size
        self._timeout = settings.timeout
        self._metrics = metrics
        server = Server(settings, credentials, key=key, client_name="modelready-sidecar")
        self.tls = server.tls
        """None: plain TCP."""
        self._pool = Pool(server, settings.pool_size)

    async def warm(self) -> None:
        """Open all connections. Raises QueueErrors."""
        await asyncio.gather(*(self.execute("PING") for _ in range(self._size)))

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close()

    async def reauthenticate(self) -> None:
        """Log in again on every connection, without an error to anyone: idle ones now, the others when free."""
        await self._pool.renew()

    async def execute(self, *command: Any) -> Any:
        """One command, see `pipeline`."""
        return (await self.pipeline([command]))[0]

    async def pipeline(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send commands to the queue's node on one connection and return their replies. Raises QueueErrors."""
        return await self._translated(partial(self._pool.call, *commands), write=False)

    async def script(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """The script's reply, see `script_and_wait`."""
        return (await self.script_and_wait(script, keys, arguments))[0]

    async def script_and_wait(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Any], *, replicas: int = 0
    ) -> tuple[Any, int]:
        """The script's reply, and how many replicas confirmed what it wrote; they are asked if `replicas` is not 0.

        Raises QueueErrors; an ambiguous Unavailable where it may have run.
        """
        # WAIT counts from the last write of its own connection, so it goes right behind the script. It must answer
        # before this call's time is up.
        wait = [("WAIT", str(replicas), str(int(self._timeout * 800)))] if replicas else []
        reply, *confirmed = await self._translated(partial(self._pool.run, script, keys, arguments, *wait), write=True)
        return reply, confirmed[0] if confirmed else 0

    async def _translated(self, call: Callable[..., Awaitable[list[Any]]], *, write: bool) -> list[Any]:
        sent = False

        def note() -> None:
            nonlocal sent
            sent = True

        try:
            replies = await call(sent=note)
            for reply in replies:
                if isinstance(reply, RedisError):
                    raise reply
        except RedisError as error:
            failure = translate(error, sent=sent and write)
            if isinstance(failure, AuthFailed):
                self._metrics.auth_failures.inc()
            elif isinstance(failure, Unavailable):
                self._metrics.connection_failures.inc()
            raise failure from error
        return replies


def translate(error: BaseException, *, sent: bool) -> QueueError:
    """The error as the sidecar's own. `sent`: a write may have reached Redis before it."""
    found = fault(error)
    match found.kind:
        case Kind.AUTH:
            return AuthFailed(found.text)
        case Kind.TRANSIENT:
            return Unavailable(found.text, ambiguous=sent and not found.answered, reason=found.reason)
        case Kind.SETUP:
            return SetupFault(found.text, reason=found.reason)
        case Kind.PERMANENT:
            return Refused(found.text)
