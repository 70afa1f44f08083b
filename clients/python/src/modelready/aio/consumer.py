"""The asyncio consumer, the twin of `modelready.consumer.Consumer`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from types import TracebackType
from typing import TYPE_CHECKING

from modelready._consumer import ConsumerBase, DeliveryBase, describe, stopped_by_sigterm
from modelready._core import Core
from modelready._hand import Entry, Hand
from modelready.v1.event_pb2 import ModelReadyToDeploy

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

Handle = Callable[[Hand, list[Entry]], Awaitable[None]]


class Delivery(DeliveryBase):
    """Same as `modelready.consumer.Delivery`."""

    async def ack(self) -> None:
        """Same as `modelready.consumer.Delivery.ack`."""
        self._done()

    async def __aenter__(self) -> ModelReadyToDeploy:
        return self._entered()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left(kind, error, trace)


class Consumer(ConsumerBase):
    """Same parameters and promises as `modelready.consumer.Consumer`; handlers are coroutine functions.

    A handler that blocks the event loop for longer than `claim_seconds` loses its claim: give such work to a thread.
    """

    _work: _Work | None = None

    async def run(self, handler: Callable[[ModelReadyToDeploy], Awaitable[object]]) -> None:
        """Same as `modelready.consumer.Consumer.run`."""

        async def handle(hand: Hand, entries: list[Entry]) -> None:
            traced = self._spans.wanted
            with closing(hand.each(entries)) as each:
                for entry in each:
                    try:
                        if traced:
                            with self._spans.of(entry):
                                await handler(entry.event)
                        else:
                            await handler(entry.event)
                    except Exception as error:  # noqa: PERF203 - one of them must not end the others
                        logger.warning("the handler of entry %s raised", entry.id, exc_info=True)
                        entry.trouble = describe(error)
                    else:
                        hand.finished.append(entry)

        # With one worker those taken together wait for nobody else.
        await self._run(handle, self._options.batch if self._options.concurrency == 1 else 1)

    async def run_batches(
        self, handler: Callable[[list[ModelReadyToDeploy]], Awaitable[object]], most: int | None = None
    ) -> None:
        """Same as `modelready.consumer.Consumer.run_batches`."""

        async def handle(hand: Hand, entries: list[Entry]) -> None:
            hand.begin(entries)
            try:
                with self._spans.of_batch(entries):
                    await handler([entry.event for entry in entries])
            except Exception as error:
                logger.warning(
                    "the handler of %d entries from %s on raised", len(entries), entries[0].id, exc_info=True
                )
                if len(entries) == 1:
                    hand.failed(entries[0], describe(error))
                else:
                    hand.scatter(entries)
            except BaseException:
                hand.put_back(entries)
                raise
            else:
                hand.done(*entries)

        await self._run(handle, most or self._options.batch)

    def stop(self) -> None:
        """Same as `modelready.consumer.Consumer.stop`."""
        self._stopping = True
        if self._work is not None:
            self._work.stop()

    async def close(self) -> None:
        """Same as `modelready.consumer.Consumer.close`."""
        self._stopping = True
        if self._work is not None:
            await self._work.close()

    async def __aiter__(self) -> AsyncIterator[Delivery]:
        """Same as `modelready.consumer.Consumer.__iter__`; a loop that is left early ends when it is closed."""
        async with self._working(by_hand=True) as work:
            while taken := await work.take(1):
                try:
                    yield Delivery(work.core.hand, taken[0], self._spans)
                finally:
                    work.core.hand.let_go(taken[0])

    @asynccontextmanager
    async def _working(self, *, by_hand: bool) -> AsyncIterator[_Work]:
        work = self._work = _Work(self, by_hand=by_hand)
        try:
            async with work:
                if self._stopping:
                    work.stop()
                yield work
        finally:
            self._work = None

    async def _run(self, handle: Handle, most: int) -> None:
        with stopped_by_sigterm(self.stop):
            async with self._working(by_hand=False) as work:
                tasks = [asyncio.create_task(work.handle(handle, most)) for _ in range(self._options.concurrency)]
                try:
                    await asyncio.gather(*tasks)
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class _Work:
    """The core in a task of its own. A context manager."""

    def __init__(self, consumer: ConsumerBase, *, by_hand: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self.core = Core(consumer._server, consumer._options, self._changed.set, self._wake)  # noqa: SLF001 - its other half
        self._by_hand = by_hand
        self._task: asyncio.Task[None] | None = None

    async def take(self, most: int) -> list[Entry]:
        """The next entries; none at the end."""
        hand = self.core.hand
        while True:
            self._changed.clear()
            if (taken := hand.take(most)) or hand.stopping:
                return taken
            await self._changed.wait()

    async def handle(self, handle: Handle, most: int) -> None:
        """Handle entries until the end."""
        while taken := await self.take(most):
            await handle(self.core.hand, taken)

    def stop(self) -> None:
        """Begin no more, from this moment on; for any thread."""
        self.core.hand.stopping = True
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self.core.stop)

    async def close(self) -> None:
        """Stop, and wait for the end; a loop by hand does not hold it up."""
        self.core.stop(forced=self._by_hand)
        if self._task is not None:
            await asyncio.wait({self._task})

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.core.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.core.stop()
        if self._task is not None:
            await self._task

    def _wake(self) -> None:
        self.core.changed()
