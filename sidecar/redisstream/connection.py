"""The sidecar's way to Redis: modelready.redis, with its faults as QueueErrors and counted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from modelready.credentials import CredentialSource
from modelready.redis.cluster import Server
from modelready.redis.faults import Kind, RedisError, checked, fault
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
        self.pool = Pool(server, settings.pool_size, self._failure)
        """Its `run` raises QueueErrors; an ambiguous Unavailable where the script may have run."""

    async def warm(self) -> None:
        """Open all connections. Raises QueueErrors."""
        await asyncio.gather(*(self.execute("PING") for _ in range(self._size)))

    async def close(self) -> None:
        """Close all connections."""
        await self.pool.close()

    async def reauthenticate(self) -> None:
        """Log in again on every connection, without an error to anyone: idle ones now, the others when free."""
        await self.pool.renew()

    async def execute(self, *command: Any) -> Any:
        """One command, see `pipeline`."""
        return (await self.pipeline([command]))[0]

    async def pipeline(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send commands to the queue's node on one connection and return their replies. Raises QueueErrors."""
        try:
            return [checked(reply) for reply in await self.pool.call(*commands)]
        except RedisError as error:
            raise self._failure(error, sent=False) from error

    async def script(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """The script's reply. Raises QueueErrors; an ambiguous Unavailable where it may have run."""
        return (await self.pool.run(script, keys, arguments))[0]

    def wait(self, replicas: int) -> tuple[str, str, str]:
        """The command that counts the replicas which confirm the last write of its own connection.

        So it must go right behind that write, and it must answer before the call's time is up.
        """
        return "WAIT", str(replicas), str(int(self._timeout * 800))

    def _failure(self, error: RedisError, sent: bool) -> QueueError:  # noqa: FBT001 - as Pool calls it
        failure = translate(error, sent=sent)
        if isinstance(failure, AuthFailed):
            self._metrics.auth_failures.inc()
        elif isinstance(failure, Unavailable):
            self._metrics.connection_failures.inc()
        return failure


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
