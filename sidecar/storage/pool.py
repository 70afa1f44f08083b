"""The connections to one node that wait for their next use.

redis-py's own pool costs more than the command that it is for: 45 of 75 µs of CPU for a PING (8.1, on uvloop).
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable
from typing import Any

from redis import exceptions
from redis.asyncio.connection import Connection, SSLConnection

from sidecar.certificates import CertificateFiles


class NodeConnection(Connection):
    """Sends without waiting until all is written, and says that it is closed in redis-py's words.

    A server that refuses a command for its size says so and closes; who waits to write learns only of the close, takes
    the refusal for an outage, and tries again for ever. And uvloop raises RuntimeError for a write after the peer's
    reset, which redis-py lets pass: an idle connection that a failover or a load balancer reset would end the task
    that uses it next.
    """

    born = 0.0
    """time.monotonic() of its login."""

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:  # noqa: FBT001, FBT002 - redis-py's
        """As redis-py's, see the class."""
        if not isinstance(command, bytes) or self._writer is None:  # redis-py's own: logging in
            await super().send_packed_command(command, check_health)
            return
        try:
            self._writer.write(command)
        except (OSError, RuntimeError) as error:
            await self.disconnect(nowait=True)
            raise exceptions.ConnectionError("Connection reset while it was idle.") from error

    def is_usable(self) -> bool:
        """Whether it is open, and nothing came while it was idle: an end, or a reply that nobody waits for."""
        reader = self._reader
        return self.is_connected and reader is not None and not reader.at_eof() and not reader._buffer  # type: ignore[attr-defined]  # noqa: SLF001 - there is no other way to see it without a read


class TLSNodeConnection(SSLConnection, NodeConnection):
    """Shares one SSL context while the files are the same: redis-py builds one a connection, 19 ms of CPU each."""

    def __init__(self, *, tls: CertificateFiles[ssl.SSLContext], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._tls = tls

    def _connection_arguments(self) -> dict[str, Any]:
        return {**super(SSLConnection, self)._connection_arguments(), "ssl": self._tls.current()}


class Pool:
    """Reuses the connection that was used last, so that the others age and are known to be idle.

    How many are in use is the caller's to bound.
    """

    def __init__(self, make: Callable[[], NodeConnection]) -> None:
        self._make = make
        self._idle: list[NodeConnection] = []
        self._epoch = time.monotonic()

    async def take(self, most_seconds: float | None) -> NodeConnection:
        """A connection that is logged in, for not more than `most_seconds`. Raises what redis-py does."""
        connection = self._idle.pop() if self._idle else self._make()
        if connection.is_connected and not (connection.is_usable() and self._is_young(connection, most_seconds)):
            await connection.disconnect(nowait=True)
        if not connection.is_connected:
            connection.born = time.monotonic()  # before it logs in: what is renewed meanwhile is too old
            await connection.connect()  # type: ignore[no-untyped-call]
        return connection

    async def give_back(self, connection: NodeConnection, *, clean: bool) -> None:
        """`clean`: every reply was read."""
        if connection.is_connected and not (clean and connection.born >= self._epoch):
            await connection.disconnect(nowait=True)
        self._idle.append(connection)

    async def renew(self) -> None:
        """Log in anew: close those that are idle, and the others when they are given back."""
        self._epoch = time.monotonic()
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.disconnect(nowait=True)

    def _is_young(self, connection: NodeConnection, most_seconds: float | None) -> bool:
        return most_seconds is None or time.monotonic() - connection.born <= most_seconds
