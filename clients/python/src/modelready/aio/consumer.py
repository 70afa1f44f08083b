"""The asyncio consumer, the twin of `modelready.consumer.Consumer`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from modelready._consumer.base import ConsumerBase, DeliveryBase, WorkBase, stopped_by_sigterm
from modelready._consumer.in_flight import Entry, InFlight
from modelready.v1.event_pb2 import ModelReadyToDeploy

if TYPE_CHECKING:
    from typing_extensions import Self

Handle = Callable[[InFlight, list[Entry]], Awaitable[None]]


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

        async def handle(in_flight: InFlight, entries: list[Entry]) -> None:
            with self._settled(in_flight, entries):
                await handler(entries[0].event)

        await self._run(handle)

    async def run_batches(
        self, handler: Callable[[list[ModelReadyToDeploy]], Awaitable[object]], most: int | None = None
    ) -> None:
        """Same as `modelready.consumer.Consumer.run_batches`."""

        async def handle(in_flight: InFlight, entries: list[Entry]) -> None:
            with self._settled(in_flight, entries, as_batch=True):
                await handler([entry.event for entry in entries])

        await self._run(handle, most or self._options.batch, batches=True)

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
                    yield Delivery(work.in_flight, taken[0], self._spans)
                finally:
                    work.in_flight.detach(taken[0])

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

    def _is_cancelled(self, error: BaseException) -> bool:
        work = self._work
        return isinstance(error, asyncio.CancelledError) and (work is None or work.is_cancelling)

    async def _run(self, handle: Handle, most: int = 1, *, batches: bool = False) -> None:
        self._check_not_running()
        with stopped_by_sigterm(self.stop):
            async with self._working(by_hand=False) as work:
                work.in_flight.takes_batches = batches
                tasks = [asyncio.create_task(work.handle(handle, most)) for _ in range(self._options.concurrency)]
                try:
                    ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
                    for task in ended:
                        task.result()
                finally:
                    work.is_cancelling = True
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class _Work(WorkBase):
    """The loop in a task of its own. A context manager."""

    def __init__(self, consumer: ConsumerBase, *, by_hand: bool) -> None:
        self._changed = asyncio.Event()
        super().__init__(consumer, asyncio.get_running_loop(), self._changed.set, by_hand=by_hand)
        self.is_cancelling = False
        """Whether handlers are cancelled from outside: else a CancelledError is their own."""
        self._task: asyncio.Task[None] | None = None

    async def take(self, most: int) -> list[Entry]:
        """The next entries; none at the end."""
        in_flight = self.in_flight
        in_flight.hungry += 1
        try:
            while True:
                self._changed.clear()
                if (taken := in_flight.take(most)) or in_flight.stopping:
                    return taken
                await self._changed.wait()
        finally:
            in_flight.hungry -= 1

    async def handle(self, handle: Handle, most: int) -> None:
        """Handle entries until the end."""
        while taken := await self.take(most):
            await handle(self.in_flight, taken)

    async def close(self) -> None:
        """Stop, and wait for the end; an iteration by the user does not delay it."""
        self._loop.stop(forced=self.by_hand)
        if self._task is not None:
            await asyncio.wait({self._task})

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._loop.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._loop.stop()
        if self._task is not None:
            await self._task

    def _wake(self) -> None:
        self._loop.changed()
