"""How the consumers reach Redis: settings from the environment, one connection at a time, and which faults pass.

redis-py's own retry is off: after a lost reply it would read or write twice, and the consumer repeats what may be
repeated. So are its maintenance notifications, which fail every connection once after a restart of the server, and its
CLIENT SETINFO, which a user with the least rights may not send.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.resources
import ipaddress
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from modelready._slots import Endpoint, read_slots
from modelready.credentials import CredentialSource, StaticCredentials, credential_source

try:
    from redis import exceptions
    from redis.asyncio.connection import Connection, SSLConnection
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.crc import key_slot
    from redis.maint_notifications import MaintNotificationsConfig

    from modelready._login import Provider, log_in
except ImportError as missing:  # pragma: no cover - tested in an environment of its own
    raise ImportError("the consumer needs redis: pip install 'modelready[consumer]'") from missing

try:
    import hiredis  # several times as fast
except ImportError:  # pragma: no cover - redis-py does without it, too
    hiredis = None  # type: ignore[assignment]

RedisError = exceptions.RedisError
AuthenticationError = exceptions.AuthenticationError

_TIMEOUT = 5.0
_READ_BYTES = 1 << 18
_TRANSIENT = frozenset(
    (
        "ASK",
        "BUSY",
        "CLUSTERDOWN",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "MOVED",
        "NOREPLICAS",
        "OOM",
        "READONLY",
        "TRYAGAIN",
        "UNBLOCKED",
    )
)
# Redis 6.2 wraps what a script met: "ERR Error running script (call to f_...): @user_script:9: -OOM command not ..."
_IN_SCRIPT = re.compile(r"@user_script: ?\d+: -?([A-Z]+) ")
_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def is_transient(error: RedisError) -> bool:
    """Whether a later attempt may succeed with nobody's help."""
    if isinstance(error, (exceptions.AuthenticationError, exceptions.AuthorizationError)):
        return False
    if isinstance(error, (exceptions.ConnectionError, exceptions.TimeoutError)):
        return "CERTIFICATE_VERIFY_FAILED" not in str(error)
    return _code(error) in _TRANSIENT or "max number of clients" in str(error)


def is_no_group(error: RedisError) -> bool:
    """The group, or the stream with it, is gone."""
    return _code(error) == "NOGROUP"


def is_group_there(error: RedisError) -> bool:
    """The group that was to be made exists."""
    return _code(error) == "BUSYGROUP"


def _code(error: RedisError) -> str:
    inner = _IN_SCRIPT.search(str(error))
    if inner:
        return inner[1]
    code = getattr(error, "status_code", None)
    return code or (str(error).split(maxsplit=1) or [""])[0]


class Script:
    """A Lua script of this package, called by its digest, and by its text where the server does not know it."""

    def __init__(self, name: str) -> None:
        self._text = (importlib.resources.files("modelready") / "lua" / name).read_bytes()
        self._digest = hashlib.sha1(self._text, usedforsecurity=False).hexdigest()

    def command(self, keys: Sequence[str], *arguments: Any, by_text: bool = False) -> tuple[Any, ...]:
        """The script as a command."""
        start = ("EVAL", self._text) if by_text else ("EVALSHA", self._digest)
        return (*start, len(keys), *keys, *arguments)


class _Connection(Connection):
    """Reads a batch at once."""

    def _connection_arguments(self) -> dict[str, Any]:
        return {**super()._connection_arguments(), "limit": _READ_BYTES}


class _TLSConnection(SSLConnection):
    """The same with TLS."""

    def _connection_arguments(self) -> dict[str, Any]:
        return {**super()._connection_arguments(), "limit": _READ_BYTES}


class Server:
    """The Redis of a queue: who we are to it and, in a cluster, which of its nodes owns the queue."""

    def __init__(
        self, seed: Endpoint, options: Mapping[str, Any], credentials: CredentialSource, *, cluster: bool, key: str
    ) -> None:
        """`options` are those of a redis-py connection; `key` is any key of the queue."""
        self.credentials = credentials
        self.generation = 0
        """Connections of an earlier one are replaced before their next use."""
        self._seed = seed
        self._options = dict(options)
        self._slot = key_slot(key.encode()) if cluster else None
        self._nodes: list[Endpoint] = []
        self._owner: Endpoint | None = None if cluster else seed

    @property
    def fixed_credentials(self) -> bool:
        """Whether they stay what they are until a person changes them."""
        return isinstance(self.credentials, StaticCredentials)

    def renew(self) -> None:
        """Every connection is replaced before its next use: there are new credentials, or another owner."""
        self.generation += 1

    def forget_owner(self) -> None:
        """In a cluster the next connection asks for the owner."""
        if self._slot is not None:
            self._owner = None

    async def connect(self) -> Connection:
        """A connection to the owner, logged in. Raises RedisErrors."""
        if self._owner is None:
            self._owner = await self._find_owner()
        return await self._open(self._owner)

    async def _open(self, node: Endpoint) -> Connection:
        kind = _TLSConnection if "ssl_ca_certs" in self._options else _Connection
        connection = kind(
            host=node.host,
            port=node.port,
            credential_provider=Provider(self.credentials),
            redis_connect_func=log_in,
            client_name="modelready-consumer",
            socket_connect_timeout=_TIMEOUT,
            socket_timeout=None,  # every call has a timeout of its own
            socket_keepalive=True,
            socket_read_size=_READ_BYTES,
            retry=Retry(NoBackoff(), 0),
            driver_info=None,
            protocol=3,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
            **self._options,
        )
        await connection.connect()  # type: ignore[no-untyped-call]
        return connection

    async def _find_owner(self) -> Endpoint:
        """Ask the seed, or another node that is known, who owns the slot."""
        problem: RedisError = exceptions.ClusterDownError("CLUSTERDOWN no node serves the queue's slot")
        for node in dict.fromkeys([self._seed, *self._nodes]):
            try:
                connection = await self._open(node)
                try:
                    await connection.send_command("CLUSTER", "SLOTS")
                    slots = await asyncio.wait_for(connection.read_response(), _TIMEOUT)
                finally:
                    await connection.disconnect(nowait=True)
            except asyncio.TimeoutError:
                problem = exceptions.TimeoutError("CLUSTER SLOTS was not answered")
                continue
            except RedisError as error:
                problem = error
                continue
            owner, self._nodes = read_slots(slots, self._slot or 0, node, by_name="ssl_ca_certs" in self._options)
            if owner is not None:
                return owner
        raise problem


class Link:
    """One connection to the owner of the queue, opened when it is needed; for one task."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection: Connection | None = None
        self._generation = 0
        self._opened_at = 0.0
        self.ever_connected = False

    async def call(
        self,
        *commands: tuple[Any, ...],
        timeout: float = _TIMEOUT,
        sent: Callable[[], object] | None = None,
        first: Callable[[Any], object] | None = None,
    ) -> list[Any]:
        """The replies, in order; what the server refused is a ResponseError in its place. Raises RedisErrors.

        `sent` is called when the commands are on their way, `first` with the first reply as soon as it is there.
        """
        timer = None
        try:
            connection = self._connection
            if connection is None or self._is_stale():
                connection = await asyncio.wait_for(self._reconnect(), timeout)
            # asyncio.wait_for would make a task of every call
            timer = asyncio.get_running_loop().call_later(timeout, self._abort, connection)
            packed = b"".join([_pack(connection, command) for command in commands])
            await connection.send_packed_command(packed, check_health=False)
            if sent is not None:
                sent()
            return await self._replies(connection, len(commands), first)
        except asyncio.TimeoutError:
            await self.close()
            raise exceptions.TimeoutError("Redis did not answer in time") from None
        except (RuntimeError, OSError) as error:  # RuntimeError: uvloop's, for a write after the peer's reset
            await self.close()
            raise exceptions.ConnectionError(str(error)) from error
        except BaseException:
            await self.close()
            raise
        finally:
            if timer is not None:
                timer.cancel()

    async def one(self, *command: Any, timeout: float = _TIMEOUT) -> Any:
        """The reply to one command. Raises RedisErrors."""
        return checked((await self.call(command, timeout=timeout))[0])

    async def script(self, script: Script, keys: Sequence[str], *arguments: Any) -> Any:
        """What the script returns. Raises RedisErrors."""
        try:
            return await self.one(*script.command(keys, *arguments))
        except exceptions.NoScriptError:
            return await self.one(*script.command(keys, *arguments, by_text=True))

    async def close(self) -> None:
        """Close the connection; the next call opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def _replies(self, connection: Connection, count: int, first: Callable[[Any], object] | None) -> list[Any]:
        replies: list[Any] = []
        for _ in range(count):
            try:
                reply = await connection.read_response()
            except exceptions.MovedError:
                raise
            except exceptions.ResponseError as error:
                reply = error
            if first is not None and not replies:
                first(reply)
            replies.append(reply)
        return replies

    def _abort(self, connection: Connection) -> None:
        """Ends a call that takes too long: the read that waits raises a ConnectionError."""
        writer = connection._writer  # noqa: SLF001 - redis-py has no way to end a read from outside
        if writer is not None:
            writer.transport.abort()

    def _is_stale(self) -> bool:
        most = self._server.credentials.max_connection_seconds
        too_old = most is not None and time.monotonic() - self._opened_at > most
        return too_old or self._generation != self._server.generation

    async def _reconnect(self) -> Connection:
        await self.close()
        self._generation = self._server.generation
        self._connection = await self._server.connect()
        self._opened_at = time.monotonic()
        self.ever_connected = True
        return self._connection


def _pack(connection: Connection, command: tuple[Any, ...]) -> bytes:
    return hiredis.pack_command(command) if hiredis else b"".join(connection.pack_command(*command))


def checked(reply: Any) -> Any:
    """The reply. Raises it where it is an error."""
    if isinstance(reply, RedisError):
        raise reply
    return reply


def server_from_env(environ: Mapping[str, str], key: str) -> Server:
    """The Redis that the REDIS_... variables name. Raises ValueError, which names the variable."""
    host = environ.get("REDIS_HOST")
    if not host:
        raise ValueError("REDIS_HOST is not set")
    cluster = _switch(environ, "REDIS_CLUSTER", default=False)
    tls = _switch(environ, "REDIS_TLS", default=not _is_loopback(host))
    options: dict[str, Any] = {"db": _integer(environ, "REDIS_DB", 0)}
    if cluster and options["db"]:
        raise ValueError(f"REDIS_DB is {options['db']}: it must be 0 with REDIS_CLUSTER=true")
    if tls:
        for option, variable in (("ca_certs", "CA_FILE"), ("certfile", "CERT_FILE"), ("keyfile", "KEY_FILE")):
            options[f"ssl_{option}"] = environ.get(f"REDIS_TLS_{variable}") or None
    seed = Endpoint(host, _integer(environ, "REDIS_PORT", 6379))
    return Server(seed, options, _credentials(environ, tls=tls), cluster=cluster, key=key)


def _credentials(environ: Mapping[str, str], *, tls: bool) -> CredentialSource:
    names = [name for name in ("REDIS_AUTH_TOKEN", "REDIS_AUTH_SECRET_ID", "REDIS_IAM_CLUSTER") if environ.get(name)]
    if len(names) > 1:
        raise ValueError(f"{' and '.join(names)} are set: only one of them may be")
    if "REDIS_IAM_CLUSTER" in names and not (tls and environ.get("REDIS_USERNAME")):
        raise ValueError("REDIS_IAM_CLUSTER needs REDIS_USERNAME (the IAM user's name) and REDIS_TLS=true")
    return credential_source(
        username=environ.get("REDIS_USERNAME", ""),
        token=environ.get("REDIS_AUTH_TOKEN", ""),
        secret_id=environ.get("REDIS_AUTH_SECRET_ID", ""),
        secret_key=environ.get("REDIS_AUTH_SECRET_KEY") or "password",
        iam_cluster=environ.get("REDIS_IAM_CLUSTER", ""),
        iam_serverless=_switch(environ, "REDIS_IAM_SERVERLESS", default=False),
        region=environ.get("AWS_REGION", ""),
        endpoint_url=environ.get("AWS_ENDPOINT_URL", ""),
    )


def _integer(environ: Mapping[str, str], name: str, default: int) -> int:
    value = environ.get(name) or str(default)
    if not value.isdecimal():
        raise ValueError(f"{name} is {value!r}; it must be a whole number")
    return int(value)


def _switch(environ: Mapping[str, str], name: str, *, default: bool) -> bool:
    value = environ.get(name)
    if not value:
        return default
    if value.lower() not in _SWITCH:
        raise ValueError(f"{name} is {value!r}; it may be true or false")
    return _SWITCH[value.lower()]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
