"""The asyncio twin of `modelready.testing.FakeQueue`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from modelready._consumer.base import ConsumerBase
from modelready.testing.queue import Delivered, QueueBase, QueueOptions
from modelready.v1.event_pb2 import ModelReadyToDeploy

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["FakeQueue"]


class _Consumer(ConsumerBase):
    def _is_cancelled(self, error: BaseException) -> bool:
        """Where the test's task is cancelled: a CancelledError that the handler raised by itself is its failure."""
        task: Any = asyncio.current_task()
        return isinstance(error, asyncio.CancelledError) and (not hasattr(task, "cancelling") or task.cancelling() > 0)


class FakeQueue(QueueBase):
    """Same parameters and promises as `modelready.testing.FakeQueue`; `handler` is a coroutine function."""

    def __init__(
        self, handler: Callable[[Any], Awaitable[object]], *, batches: bool = False, **options: Unpack[QueueOptions]
    ) -> None:
        super().__init__(_Consumer, batches=batches, options=options)
        self._handler = handler

    async def deliver(self, *events: ModelReadyToDeploy, begun_before: int = 0) -> Delivered:
        """Same as `modelready.testing.FakeQueue.deliver`."""
        delivered = self._put(events, begun_before)
        while entries := await self._next():
            with self._call(entries) as argument:
                await self._handler(argument)
        return delivered
