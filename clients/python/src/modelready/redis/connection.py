"""One connection to one node: opened, logged in, written to and read from.

redis-py gives the parser, its errors and the settings of the socket. Its own retry is off: after a lost reply it would
write twice. So are its maintenance notifications, which fail every connection once after a restart of the server, and
its CLIENT SETINFO, which a least-privilege user may not send (redis-py 8.1, measured).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from redis import exceptions
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from modelready.credentials import Credentials, CredentialSource, NoCredentials
from modelready.redis.faults import AuthenticationError, Kind, RedisError, cleaned, fault
from modelready.redis.sockets import Resolver

if sys.version_info >= (3, 11):
    time_limit = asyncio.timeout
else:  # pragma: no cover - redis-py requires it there
    import async_timeout

    time_limit = async_timeout.timeout

_READ_BYTES = 1 << 18


class Endpoint(NamedTuple):
    """A node's address."""

    host: str
    port: int


class NodeConnection(Connection):
    """Opened once, and then used until it fails."""

    def __init__(
        self,
        node: Endpoint,
        credentials: CredentialSource,
        resolver: Resolver,
        *,
        timeout: float,
        client_name: str,
        db: int,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        """`timeout`: in how many seconds each address of the host has its turn.

        `tls` gives the context for a new connection: redis-py would build one for each, 19 ms of CPU.
        """
        super().__init__(
            host=node.host,
            port=node.port,
            db=db,
            client_name=client_name,
            socket_timeout=None,  # every use has a timeout of its own
            socket_read_size=_READ_BYTES,
            retry=Retry(NoBackoff(), 0),
            driver_info=None,
            protocol=3,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
        self._credentials = credentials
        self._resolver = resolver
        self._timeout = timeout
        self._tls = tls
        self._secret = ""
        self.born = time.monotonic()
        self.generation = 0
        """The server's when it was opened: it is replaced when that is another."""

    async def open(self) -> None:
        """Connect and log in. Raises RedisErrors, whatever failed, and leaves nothing open then."""
        try:
            who = await self._credentials.current()  # first, so that no open connection waits for a slow secret
            await self._open_streams()
            await self._log_in(who)
        except NoCredentials as error:
            raise AuthenticationError(str(error)) from error
        except BaseException as error:
            self.drop()
            if isinstance(error, RedisError) or not isinstance(error, Exception):
                raise
            raise exceptions.ConnectionError(f"{self.host}:{self.port}: {_words(error)}") from error

    async def _open_streams(self) -> None:
        # A name may end with a dot, which no certificate has.
        tls: dict[str, Any] = {"ssl": self._tls(), "server_hostname": self.host.removesuffix(".")} if self._tls else {}
        sock = await self._resolver.connect(self.host, self.port, self._timeout)
        with suppress(OSError):  # one that is reset already: the login says so
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            options: dict[int, int] = self.socket_keepalive_options  # type: ignore[assignment]
            for option, value in options.items():
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
        self._reader, self._writer = await asyncio.open_connection(sock=sock, limit=_READ_BYTES, **tls)

    async def _log_in(self, who: Credentials) -> None:
        self._parser.on_connect(self)  # type: ignore[no-untyped-call]
        self._secret = who.token or ""
        login = ("AUTH", who.username or "default", who.token or "") if who.username or who.token else ()
        commands: list[tuple[Any, ...]] = [("HELLO", "3", *login), ("CLIENT", "SETNAME", self.client_name)]
        if self.db:
            commands.append(("SELECT", str(self.db)))
        self.write(pack(commands))
        for number in range(len(commands)):
            reply = await self.read()
            if isinstance(reply, RedisError):
                if fault(reply).kind is Kind.AUTH:
                    raise AuthenticationError(str(reply)) from None
                raise reply
            if number == 0 and not isinstance(reply, dict):
                raise exceptions.InvalidResponse("its answer to HELLO is no map")

    def write(self, packed: bytes) -> None:
        """Send without waiting until all is written. Raises ConnectionError, and then nothing was sent.

        A server that refuses a command for its size answers so and closes the connection. A caller that waited for the
        write would see only the close, take it for an outage, and try again for ever.
        """
        writer = self._writer
        try:
            if writer is None or writer.transport.is_closing():
                raise exceptions.ConnectionError("connection closed while it was idle")
            writer.write(packed)
        except (OSError, RuntimeError) as error:  # RuntimeError: uvloop's, after the peer's reset
            raise exceptions.ConnectionError("connection reset while it was idle") from error

    async def read(self) -> Any:
        """One reply; what the server refused is a ResponseError, not raised. Raises RedisErrors."""
        try:
            reply = await self._parser.read_response()  # type: ignore[attr-defined]
        except RedisError as error:
            raise cleaned(error, self._secret) from None
        except Exception as error:
            raise exceptions.ConnectionError(_words(error)) from error
        return cleaned(reply, self._secret) if isinstance(reply, RedisError) else reply

    def is_usable(self) -> bool:
        """Whether it is open, and nothing came while it was idle: an end, or a reply that nobody waits for."""
        reader, writer = self._reader, self._writer
        if reader is None or writer is None or writer.transport.is_closing():
            return False
        return not reader.at_eof() and not reader._buffer  # type: ignore[attr-defined]  # noqa: SLF001 - there is no other way to see it without a read

    def drop(self) -> None:
        """Close it, without waiting."""
        writer, self._writer, self._reader = self._writer, None, None
        self._parser.on_disconnect()  # type: ignore[no-untyped-call]
        if writer is not None:
            try:
                writer.close()
            except (OSError, RuntimeError):
                writer.transport.abort()


def pack(commands: Iterable[tuple[Any, ...]]) -> bytes:
    """The commands as bytes. Raises DataError for what cannot be sent, such as half a character."""
    try:
        return b"".join([_pack_command(command) for command in commands])
    except (UnicodeError, TypeError) as error:
        raise exceptions.DataError(f"an argument cannot be encoded ({type(error).__name__})") from None


def _pack_in_python(command: tuple[Any, ...]) -> bytes:
    if not all(isinstance(argument, (bytes, str, int, float)) for argument in command):
        raise TypeError
    parts = [argument if isinstance(argument, bytes) else str(argument).encode() for argument in command]
    return b"*%d\r\n" % len(parts) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


try:
    from hiredis import pack_command as _pack_command  # several times as fast
except ImportError:  # pragma: no cover - redis-py does without it, too
    _pack_command = _pack_in_python  # type: ignore[assignment]


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
