"""What both consumers of a mirror list share: how a message is taken, held, and given back."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from modelready._consumer.list_message import ListMessage, UndecodableMessage, read_message
from modelready._consumer.reconnect import prepare_retry
from modelready._retry import backoff
from modelready.redis.cluster import Server, server_from_env
from modelready.redis.env import SettingsError, read
from modelready.redis.faults import RedisError
from modelready.redis.lists import ListSettings, MirrorList
from modelready.redis.pool import Pool
from modelready.redis.script import Script

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

logger = logging.getLogger(__name__)

MAX_RECOVERED = 1000


class ListConsumerBase:
    """A consumer of a list, but for how it waits and calls a handler."""

    def __init__(self, reader: ListReader) -> None:
        """Use `from_env`."""
        self._reader = reader

    @classmethod
    def from_env(
        cls, list_name: str | None = None, *, environ: Mapping[str, str] | None = None, **options: Any
    ) -> Self:
        """A consumer of QUEUE_LIST, or of the list named, in the Redis that the REDIS_... variables name.

        Raises ValueError, which names the variable. `options`: `max_retries` 3, `retry_seconds` 1.0, `block_seconds`
        2.0, `lease_seconds` 30.0, `recover_seconds` 60.0 or None.
        """
        return cls(ListReader.from_env(list_name, environ, **options))

    def stop(self) -> None:
        """Ends `run` after the message in flight; for any thread or a signal handler. It is final."""
        self._reader.stop()


class ListReader:
    """One consumer of the list. Each message that `next` returns is answered with `done` or `failed`."""

    def __init__(
        self,
        server: Server,
        mirror: MirrorList,
        *,
        max_retries: int = 3,
        retry_seconds: float = 1.0,
        block_seconds: float = 2.0,
        lease_seconds: float = 30.0,
        recover_seconds: float | None = 60.0,
    ) -> None:
        if block_seconds <= 0 or lease_seconds <= 0:
            raise ValueError("block_seconds and lease_seconds must be above 0")
        self._server = server
        self._link = Pool(server)
        self._lease_link = Pool(server)  # else a read that blocks would hold it up
        self._mirror = mirror
        self._list, self._processing, self._dead_letters = mirror.name, mirror.processing, mirror.dead_letters
        self._max_retries = max_retries
        self._retry_seconds = retry_seconds
        self._block_seconds = block_seconds
        self._lease_seconds = lease_seconds
        self._recover_seconds = recover_seconds
        self._hold_script = Script("modelready._consumer", "lua/list_hold.lua")
        self._move_script = Script("modelready._consumer", "lua/list_move.lua")
        self._token = uuid.uuid4().hex
        self._keeping: asyncio.Task[None] | None = None
        self._again: ListMessage | None = None
        self._left: dict[bytes, float] = {}
        self._look_at = 0.0
        self._stopping = False

    @classmethod
    def from_env(cls, list_name: str | None, environ: Mapping[str, str] | None = None, **options: Any) -> Self:
        """For QUEUE_LIST, or the list named. Raises ValueError, which names the variable."""
        environ = os.environ if environ is None else environ
        mirror = _mirror_from_env(list_name, environ)
        return cls(server_from_env(environ, mirror.name), mirror, **options)

    async def next(self) -> ListMessage | None:
        """The next message, in flight from now on; None when this is stopped. Waits while Redis is away."""
        message, self._again = self._again, None
        if message is not None and await self._rested(message):
            return message
        while not self._stopping:
            await self._patiently(self._recover)
            raw = await self._patiently(self._take)
            if raw is not None and (message := await self._opened(raw)):
                return message
        return None

    async def done(self, message: ListMessage) -> None:
        """It was handled."""
        await self._let_go()
        await self._move(message.raw)

    async def failed(self, message: ListMessage, error: Exception) -> None:
        """Its handler raised: `next` returns it again after a pause, or it becomes a dead letter."""
        logger.error("message %s: its handler raised", message.label, exc_info=error)
        await self._let_go()
        failed = message.failed()
        if failed.retry_count >= failed.max_retries:
            logger.error("message %s goes to the dead letters after %d tries", failed.label, failed.retry_count)
            await self._move(message.raw, "LPUSH", self._dead_letters, failed.raw)
            return
        if failed.raw != message.raw:
            await self._move(message.raw, "LPUSH", self._processing, failed.raw)
        self._again = failed

    def stop(self) -> None:
        """`next` returns None from now on. For any thread or a signal handler."""
        self._stopping = True

    async def close(self) -> None:
        """Close the connections. A message in flight stays until its lease runs out."""
        await self._let_go()
        await self._link.close()

    async def _take(self) -> bytes | None:
        """The oldest message, now in `<list>:processing`. Where its reply is lost, it is recovered from there."""
        command = ("BLMOVE", self._list, self._processing, "RIGHT", "LEFT", self._block_seconds)
        taken: bytes | None = await self._link.one(*command, timeout=self._block_seconds + 5)
        return taken

    async def _opened(self, raw: bytes) -> ListMessage | None:
        try:
            message = read_message(raw, self._max_retries)
        except UndecodableMessage as error:
            logger.error("a message of %s goes to the dead letters: %s", self._list, error)  # noqa: TRY400
            await self._move(raw, "LPUSH", self._dead_letters, raw)
            return None
        return message if await self._held(message) else None

    async def _rested(self, message: ListMessage) -> bool:
        """Whether it is to be tried again now, after a pause that is twice as long each time."""
        if not await self._held(message):
            return False
        end = time.monotonic() + self._retry_seconds * 2.0 ** (message.retry_count - 1)
        while not self._stopping and (left := end - time.monotonic()) > 0:  # noqa: ASYNC110 - a signal handler sets it
            await asyncio.sleep(min(left, 0.1))
        if self._stopping:
            await self._let_go()
            await self._move(message.raw, "RPUSH", self._list, message.raw)
        return not self._stopping

    async def _held(self, message: ListMessage) -> bool:
        """Whether this consumer has it, until `_let_go`. Equal messages are one: the holder of the other handles it."""
        if not await self._patiently(partial(self._hold, self._link, message.raw)):
            return False
        self._keeping = asyncio.create_task(self._keep(message))
        return True

    async def _keep(self, message: ListMessage) -> None:
        """Extends the lease until `_let_go`. While Redis is away it may run out, and is then taken again."""
        this = asyncio.current_task()
        while self._keeping is this:  # before Python 3.12 a cancellation may be lost in wait_for
            await asyncio.sleep(self._lease_seconds / 3)
            try:
                if not await self._hold(self._lease_link, message.raw):
                    logger.warning("the lease of message %s ran out, and another consumer has it", message.label)
                    return
            except RedisError as error:
                logger.warning("the lease of message %s could not be extended: %s", message.label, error)

    async def _let_go(self) -> None:
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
            await asyncio.wait([keeping])
            await self._lease_link.close()

    async def _hold(self, link: Pool, raw: bytes) -> bool:
        keys = (self._processing, self._mirror.lease(_digest(raw)))
        return bool(await link.script(self._hold_script, keys, raw, self._token, int(self._lease_seconds * 1000)))

    async def _move(self, raw: bytes, *push: Any) -> None:
        """Take it out of `<list>:processing` and, with a command, a list and a message, push that. Waits for Redis."""
        if await self._patiently(partial(self._moved, raw, self._token, *push)) is False:
            logger.warning("a message of %s was no longer in flight: another consumer may handle it again", self._list)

    async def _moved(self, raw: bytes, token: str, command: str = "", target: str = "", becomes: bytes = b"") -> bool:
        keys = [self._processing, self._mirror.lease(_digest(raw)), *([target] if target else [])]
        return bool(await self._link.script(self._move_script, keys, raw, token, command, becomes))

    async def _recover(self) -> None:
        """Put back what has been without a lease for long enough; the oldest is the next to be taken."""
        now = time.monotonic()
        if self._recover_seconds is None or now < self._look_at:
            return
        there = await self._link.one("LRANGE", self._processing, -MAX_RECOVERED, -1)
        leases = [self._mirror.lease(_digest(raw)) for raw in there]
        holders = await self._link.one("MGET", *leases) if there else []
        left = [raw for raw, holder in zip(there, holders, strict=True) if holder is None]
        self._left = {raw: self._left.get(raw, now) for raw in left}
        for raw in left:
            if now - self._left[raw] >= self._recover_seconds and await self._moved(raw, "", "RPUSH", self._list, raw):
                logger.warning("a message that a dead consumer left is back in %s", self._list)
        self._look_at = now + self._recover_seconds / 4

    async def _patiently(self, command: Callable[[], Awaitable[T]]) -> T | None:
        """Repeat the command until Redis answers, and return its result; None when this is stopped before."""
        attempt = 0
        while True:
            try:
                return await command()
            except RedisError as error:
                await prepare_retry(error, self._server, self._link)
                if attempt == 0:
                    logger.warning("waiting for Redis: %s", error)
            if self._stopping:
                return None
            await asyncio.sleep(backoff(attempt))
            attempt += 1


def _mirror_from_env(list_name: str | None, environ: Mapping[str, str]) -> MirrorList:
    settings = read(ListSettings, environ)
    if list_name:
        return settings.mirror(list_name, settings.list_format, None)
    if not settings.lists:
        raise SettingsError("QUEUE_LIST is not set")
    mirror, *others = settings.lists
    if others:
        raise SettingsError(f"QUEUE_LIST is {settings.list_names!r}: it names several lists, say which of them to read")
    return mirror


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:32]
