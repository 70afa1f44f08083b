"""The connections to Redis: authenticated, verified, bounded, fair, and soon back after a failover.

One queue lives in one slot, so that even a cluster is reached through plain connections to one node: the owner of the
slot is looked up, and looked up again when a node answers MOVED or does not answer (docs/adr/0004).

redis-py's own retry is off: after a lost reply it would write twice. So are its maintenance notifications, which fail
every pooled connection once after a restart of the server, and its CLIENT SETINFO, which a least-privilege user may
not send (redis-py 8.1, measured).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import hiredis
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.maint_notifications import MaintNotificationsConfig

from modelready._login import Provider, log_in
from modelready._slots import Endpoint, read_slots
from modelready.credentials import CredentialSource
from sidecar.certificates import CertificateFiles, Contents, load_pair
from sidecar.errors import AuthFailed, QueueError, SettingsError, SetupFault, Unavailable
from sidecar.metrics import Metrics
from sidecar.settings import RedisSettings
from sidecar.storage.pool import NodeConnection, Pool, TLSNodeConnection
from sidecar.storage.redis_errors import translate

log = logging.getLogger(__name__)

_CA, _CERT, _KEY = "REDIS_TLS_CA_FILE", "REDIS_TLS_CERT_FILE", "REDIS_TLS_KEY_FILE"
_DEMOTED = ("REDIS_READONLY", "REDIS_MASTERDOWN", "REDIS_UNBLOCKED")


class RedisConnection:
    """A bounded pool of connections to the node that owns the queue."""

    def __init__(self, settings: RedisSettings, credentials: CredentialSource, metrics: Metrics, key: str) -> None:
        """`key`: any key of the queue; in a cluster it decides the node."""
        self._settings = settings
        self._credentials = credentials
        self._metrics = metrics
        self._slot = key_slot(key.encode())
        self._seed = Endpoint(settings.host, settings.port)
        self._nodes: list[Endpoint] = []  # other nodes of the cluster, for the time when the seed is away
        self._owner: Endpoint | None = None if settings.cluster else self._seed
        self.tls = tls_files(settings) if settings.tls else None
        """None: plain TCP."""
        self._pool = self._make_pool(self._owner or self._seed)
        self._turn = asyncio.Semaphore(settings.pool_size)

    @property
    def timeout(self) -> float:
        """The longest that a command may take, in seconds."""
        return self._settings.timeout

    async def warm(self) -> None:
        """Open all connections. Raises QueueErrors."""
        await asyncio.gather(*(self.execute("PING") for _ in range(self._settings.pool_size)))

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.renew()

    async def reauthenticate(self) -> None:
        """Log in anew on every connection, without an error to anyone: idle ones now, the others when they are free."""
        await self._pool.renew()

    async def execute(self, *command: Any, timeout: float | None = None, write: bool = False) -> Any:
        """One command, see `pipeline`."""
        return (await self.pipeline([command], timeout=timeout, write=write))[0]

    async def pipeline(
        self, commands: Sequence[tuple[Any, ...]], *, timeout: float | None = None, write: bool = False
    ) -> list[Any]:
        """Send commands to the queue's node on one connection and return their replies; NOSCRIPT raises NoScriptError.

        Seconds in `timeout`; the settings' own where it is None or more. Raises QueueErrors; an Unavailable is
        ambiguous only where `write` is set and the commands may have reached Redis.
        """
        limit = min(timeout or self._settings.timeout, self._settings.timeout)
        packed = b"".join([hiredis.pack_command(command) for command in commands])
        deadline = time.monotonic() + limit
        try:
            return await self._attempt(packed, len(commands), limit, write=write)
        except AuthFailed:
            # Nothing was sent. A rotated token is no reason to bother the caller.
            if not await self._changed_credentials(deadline - time.monotonic()):
                raise
            await self.reauthenticate()
            return await self._attempt(packed, len(commands), max(deadline - time.monotonic(), 0.001), write=write)

    async def _changed_credentials(self, patience: float) -> bool:
        """Whether there are others to try; the look-up goes on where it takes longer than `patience` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(patience, 0)):
                return await self._credentials.refused()
        return False

    async def _attempt(self, packed: bytes, count: int, limit: float, *, write: bool) -> list[Any]:
        sent = clean = False
        try:
            async with asyncio.timeout(limit), self._turn:
                if self._owner is None:
                    await self._find_owner(limit)
                pool = self._pool
                connection = await pool.take(self._credentials.max_connection_seconds)
                try:
                    sent = True
                    await connection.send_packed_command(packed, check_health=False)
                    replies = await _read(connection, count)
                except exceptions.ResponseError:
                    clean = True
                    raise
                else:
                    clean = True
                    return replies
                finally:
                    await pool.give_back(connection, clean=clean)
        except exceptions.NoScriptError:
            raise
        except (exceptions.RedisError, OSError, TimeoutError) as error:
            raise await self._after(error, translate(error, sent=sent and write)) from error

    async def _after(self, error: BaseException, failure: QueueError) -> QueueError:
        """Do what lets the next attempt succeed, and return what the failure is."""
        if isinstance(failure, AuthFailed):
            self._metrics.auth_failures.inc()
        elif isinstance(failure, Unavailable):
            self._metrics.connection_failures.inc()
            if isinstance(error, exceptions.MovedError):
                if not self._settings.cluster:
                    return SetupFault("Redis is a cluster: set REDIS_CLUSTER=true", reason="REDIS_CLUSTER_MODE")
                await self._move_to(Endpoint(error.host or self._seed.host, error.port))
            elif failure.reason in _DEMOTED:
                # The sockets stay with a demoted node for ever, while the name already leads to the new one.
                await self._pool.renew()
                self._forget_owner()
            elif not isinstance(error, exceptions.ResponseError):
                self._forget_owner()
        return failure

    # -- the owner of the queue's slot, in a cluster

    def _forget_owner(self) -> None:
        if self._settings.cluster:
            self._owner = None

    async def _move_to(self, owner: Endpoint) -> None:
        if owner != self._owner:
            log.info("the queue's slot is on another node now", extra={"node": f"{owner.host}:{owner.port}"})
            before, self._owner, self._pool = self._pool, owner, self._make_pool(owner)
            await before.renew()

    async def _find_owner(self, limit: float) -> None:
        """Ask the seed, or another node that is known, who owns the slot."""
        problem: BaseException | None = None
        asked = list(dict.fromkeys([self._seed, *self._nodes]))
        for node in asked:
            connection = self._make_connection(node)
            try:
                async with asyncio.timeout(limit / len(asked)):
                    await connection.connect()  # type: ignore[no-untyped-call]
                    await connection.send_command("CLUSTER", "SLOTS")
                    slots = await connection.read_response()
            except (exceptions.RedisError, OSError, TimeoutError) as error:
                problem = problem or error
                continue
            finally:
                await connection.disconnect(nowait=True)
            if self._owner is not None:  # another task was quicker
                return
            owner, self._nodes = read_slots(slots, self._slot, node, by_name=self.tls is not None)
            if owner is not None:
                await self._move_to(owner)
                return
        if problem is not None:
            raise problem
        raise Unavailable("no node of the cluster serves the queue's slot", reason="REDIS_CLUSTERDOWN")

    def _make_pool(self, node: Endpoint) -> Pool:
        return Pool(lambda: self._make_connection(node))

    def _make_connection(self, node: Endpoint) -> NodeConnection:
        settings = self._settings
        arguments: dict[str, Any] = {
            "host": node.host,
            "port": node.port,
            "db": settings.db,
            "client_name": "modelready-sidecar",
            "credential_provider": Provider(self._credentials),
            "redis_connect_func": log_in,
            "socket_connect_timeout": settings.timeout,
            "socket_timeout": None,  # every use has a timeout of its own
            "socket_keepalive": True,
            "retry": Retry(NoBackoff(), 0),
            "driver_info": None,
            "protocol": 3,
            "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        }
        if self.tls is None:
            return NodeConnection(**arguments)
        return TLSNodeConnection(tls=self.tls, **arguments)


async def _read(connection: NodeConnection, count: int) -> list[Any]:
    """All replies, so that the connection is clean even where one of them is an error; then raise the first error."""
    replies: list[Any] = []
    first_error: exceptions.ResponseError | None = None
    for _ in range(count):
        try:
            replies.append(await connection.read_response())
        except exceptions.ResponseError as error:
            first_error = first_error or error
            if str(error).startswith("Protocol error"):  # the server reads no further, and closes
                await connection.disconnect(nowait=True)
                break
    if first_error is not None:
        raise first_error
    return replies


def tls_files(settings: RedisSettings) -> CertificateFiles[ssl.SSLContext]:
    """What verifies the server's certificate and name, from TLS 1.2 on, and shows ours. Raises SettingsError."""
    cert, key, authority = settings.tls_cert_file, settings.tls_key_file, settings.tls_ca_file

    def load(_: Contents) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=authority)
        except OSError:
            raise SettingsError(f"{_CA} is {str(authority)!r}: it must hold certificates, PEM") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if cert and key:
            load_pair(context, (_CERT, cert), (_KEY, key))
        return context

    return CertificateFiles({_CA: authority, _CERT: cert, _KEY: key}, load)
