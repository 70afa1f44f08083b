"""The connections of one process to the owner of its queue, and calls through them.

redis-py's own pool costs more than the command that it is for: 45 of 75 µs of CPU for a PING (8.1, on uvloop), and its
blocking one is unfair.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from redis import exceptions

from modelready.redis.cluster import Server
from modelready.redis.connection import NodeConnection, pack, time_limit
from modelready.redis.faults import NOT_THE_OWNER, AuthenticationError, RedisError, checked, code
from modelready.redis.script import Script


class Pool:
    """Up to `size` connections, each opened when it is needed; waiters get one in turn. For one event loop.

    The connection that was used last is used next, so that the others age and are known to be idle.
    """

    def __init__(
        self, server: Server, size: int = 1, failure: Callable[[RedisError, bool], Exception] | None = None
    ) -> None:
        """`failure`: what `run` raises in the place of an error; whether the script was sent is its second argument."""
        self.ever_connected = False
        self._failure = failure
        self._server = server
        self._idle: list[NodeConnection] = []
        self._turn = asyncio.Semaphore(size)

    async def call(
        self,
        *commands: tuple[Any, ...],
        timeout: float | None = None,
        sent: Callable[[], object] | None = None,
        first: Callable[[Any], object] | None = None,
    ) -> list[Any]:
        """The replies, in order; what the server refused is a RedisError in its place. Raises RedisErrors.

        All within `timeout` seconds, the server's where it is None. `sent` is called when the commands are on their
        way: an error before that has no effect on Redis. `first` is called with the first reply as soon as it is there.
        """
        deadline = time.monotonic() + (timeout or self._server.timeout)
        packed = pack(commands)
        try:
            return await self._attempt(packed, len(commands), deadline, sent, first)
        except AuthenticationError:
            # Nothing was carried out. A rotated token is no reason to bother the caller.
            if not await self._changed_credentials(deadline):
                raise
            await self.renew()
            return await self._attempt(packed, len(commands), deadline, sent, first)

    async def one(self, *command: Any, timeout: float | None = None) -> Any:
        """The reply to one command. Raises RedisErrors."""
        return checked((await self.call(command, timeout=timeout))[0])

    async def script(self, script: Script, keys: Sequence[str], *arguments: Any) -> Any:
        """What the script returns. Raises RedisErrors."""
        return (await self.run(script, keys, arguments))[0]

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[Any],
        *after: tuple[Any, ...],
    ) -> list[Any]:
        """The script's reply and those of the commands `after` it, on one connection. Raises RedisErrors."""
        deadline = time.monotonic() + self._server.timeout
        call = (str(len(keys)), *keys, *arguments)
        was_sent = False

        def note() -> None:
            nonlocal was_sent
            was_sent = True

        try:
            replies = await self.call((*script.by_digest, *call), *after, sent=note)
            if isinstance(replies[0], exceptions.NoScriptError):
                left = max(deadline - time.monotonic(), 0.001)
                replies = await self.call((*script.by_text, *call), *after, timeout=left, sent=note)
            for reply in replies:
                if isinstance(reply, RedisError):
                    raise reply
        except RedisError as error:
            if self._failure is None:
                raise
            raise self._failure(error, was_sent) from error
        return replies

    async def renew(self) -> None:
        """Log in again on every connection: close those that are idle, and the others when they are given back."""
        self._server.renew()
        await self.close()

    async def close(self) -> None:
        """Close all that are idle; a later call opens others."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.drop()

    async def _changed_credentials(self, deadline: float) -> bool:
        """Whether there are others to try; the look-up goes on where it takes longer."""
        with suppress(asyncio.TimeoutError):
            async with time_limit(max(deadline - time.monotonic(), 0)):
                return await self._server.credentials.refused()
        return False

    async def _attempt(
        self,
        packed: bytes,
        count: int,
        deadline: float,
        sent: Callable[[], object] | None,
        first: Callable[[Any], object] | None,
    ) -> list[Any]:
        try:
            async with time_limit(max(deadline - time.monotonic(), 0.001)), self._turn:
                connection = await self._take()
                clean = False
                try:
                    connection.write(packed)
                    if sent is not None:
                        sent()
                    replies = await self._replies(connection, count, first)
                    clean = True
                finally:
                    self._give_back(connection, clean=clean)
        except asyncio.TimeoutError:
            self._server.forget_owner()
            raise exceptions.TimeoutError("Redis did not answer in time") from None
        except RedisError as error:
            if not isinstance(error, AuthenticationError):
                self._server.forget_owner()
            raise
        return replies

    async def _take(self) -> NodeConnection:
        """One that is logged in, and not for longer than its credentials allow."""
        if not self._server.is_owner_known:
            await self._server.find_owner()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable() and self._is_fresh(connection):
                return connection
            connection.drop()
        connection = await self._server.connect()
        self.ever_connected = True
        return connection

    def _give_back(self, connection: NodeConnection, *, clean: bool) -> None:
        """`clean`: every reply was read."""
        if clean and connection.generation == self._server.generation:
            self._idle.append(connection)
        else:
            connection.drop()

    def _is_fresh(self, connection: NodeConnection) -> bool:
        most = self._server.credentials.max_connection_seconds
        is_young = most is None or time.monotonic() - connection.born <= most
        return is_young and connection.generation == self._server.generation

    async def _replies(
        self, connection: NodeConnection, count: int, first: Callable[[Any], object] | None
    ) -> list[Any]:
        replies: list[Any] = []
        for _ in range(count):
            reply = await connection.read()
            if isinstance(reply, RedisError):
                reply = await self._after(reply)
                if str(reply).startswith("Protocol error"):  # the server reads no further, and closes
                    connection.drop()
                    return [*replies, *[reply] * (count - len(replies))]
            if first is not None and not replies:
                first(reply)
            replies.append(reply)
        return replies

    async def _after(self, error: RedisError) -> RedisError:
        """Do what lets the next attempt succeed, and return what the error is."""
        if isinstance(error, exceptions.MovedError):
            if not self._server.is_cluster:
                return exceptions.ClusterError("Redis is a cluster: set REDIS_CLUSTER=true")
            self._server.forget_owner((error.host, error.port))
        elif code(error) in NOT_THE_OWNER:
            # The sockets stay with a demoted node for ever, while the name already leads to the new one.
            self._server.forget_owner()
            await self.renew()
        return error
