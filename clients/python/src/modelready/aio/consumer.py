"""The asyncio consumer, the twin of `modelready.consumer.Consumer`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from modelready._consumer import ConsumerBase, stopped_by_sigterm
from modelready._redis import RedisError, is_group_there, is_no_group, is_transient, redis
from modelready._retries import backoff
from modelready.v1.event_pb2 import ModelReadyToDeploy

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Delivery:
    """Same as `modelready.consumer.Delivery`."""

    def __init__(self, entry_id: str, event: ModelReadyToDeploy, ack: Callable[[str], Awaitable[None]]) -> None:
        self.entry_id = entry_id
        self.event = event
        self._ack = ack

    async def ack(self) -> None:
        """Same as `modelready.consumer.Delivery.ack`."""
        await self._ack(self.entry_id)

    async def __aenter__(self) -> ModelReadyToDeploy:
        return self.event

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.ack()


class Consumer(ConsumerBase[redis.asyncio.Redis]):
    """Same parameters and promises as `modelready.consumer.Consumer`."""

    @staticmethod
    def _connect(options: dict[str, Any]) -> redis.asyncio.Redis:
        return redis.asyncio.Redis(retry=redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 0), **options)

    async def run(self, handler: Callable[[ModelReadyToDeploy], Awaitable[object]]) -> None:
        """Same as `modelready.consumer.Consumer.run`."""
        loop = asyncio.get_running_loop()
        with stopped_by_sigterm(lambda: loop.call_soon_threadsafe(self.stop)):
            async for delivery in self:
                if await _handled(handler, delivery):
                    await delivery.ack()

    async def close(self) -> None:
        """Closes the client's connections."""
        await self._client.aclose()

    async def __aiter__(self) -> AsyncIterator[Delivery]:
        self._group.rewind()
        await self._patiently(self._create_group)
        while not self._stopping:
            reply = await self._patiently(self._read) or ()
            for entry_id, event in self._group.received(reply, time.monotonic()):
                if self._stopping:
                    return
                yield Delivery(entry_id, event, self._ack)

    async def _create_group(self, *, again: bool = False) -> None:
        try:
            await self._client.xgroup_create(**self._group.create(again=again))
        except RedisError as error:
            if not is_group_there(error):
                raise

    async def _read(self) -> Any:
        try:
            return await self._client.xreadgroup(**self._group.read(time.monotonic()))
        except RedisError as error:
            self._group.rewind()
            if not is_no_group(error):
                raise
        return await self._create_group(again=True)

    async def _ack(self, entry_id: str) -> None:
        async def ack() -> None:
            await self._client.xack(self._group.stream, self._group.name, entry_id)

        await self._patiently(ack)

    async def _patiently(self, command: Callable[[], Awaitable[T]]) -> T | None:
        """What the command returns, as soon as Redis answers; None when this is stopped before."""
        attempt = 0
        while True:
            try:
                return await command()
            except RedisError as error:
                if not is_transient(error):
                    raise
                if attempt == 0:
                    logger.warning("waiting for Redis: %s", error)
                await self._client.connection_pool.disconnect(inuse_connections=False)
            if self._stopping:
                return None
            await asyncio.sleep(backoff(attempt))
            attempt += 1

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def _handled(handler: Callable[[ModelReadyToDeploy], Awaitable[object]], delivery: Delivery) -> bool:
    try:
        await handler(delivery.event)
    except Exception:
        logger.exception("entry %s stays pending: its handler raised", delivery.entry_id)
        return False
    return True
