"""The relay for asyncio, the twin of `modelready.outbox.Relay`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from modelready._retry import backoff
from modelready.errors import PublishError
from modelready.outbox.relay import PUBLISH_SECONDS, Batch, RelayBase
from modelready.outbox.table import NAME
from modelready.outbox.writer import commits
from modelready.receipt import Durability, Receipt
from modelready.v1.event_pb2 import ModelReadyToDeploy


class PublishesMany(Protocol):
    """What a relay publishes through: `modelready.aio.Publisher`, or anything else with this method."""

    def publish_many(
        self, events: Iterable[ModelReadyToDeploy], *, durability: Durability, timeout: float
    ) -> AsyncIterator[Receipt | PublishError]:
        """Yield a result for each event, in their order; raise a PublishError where there are no more results."""
        ...


class Relay(RelayBase):
    """Same parameters and promises as `modelready.outbox.Relay`: `task = asyncio.create_task(relay.run())`."""

    def __init__(
        self,
        engine: AsyncEngine,
        publisher: PublishesMany,
        *,
        durability: Durability | str = Durability.PRIMARY,
        batch: int = 500,
        poll_seconds: float = 1.0,
    ) -> None:
        super().__init__(durability, batch, poll_seconds)
        self._engine = engine
        self._publisher = publisher
        self._wakeup = asyncio.Event()

    async def run(self) -> None:
        """Work until the task is cancelled; what is left stays in the table."""
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop was closed
                loop.call_soon_threadsafe(self._wakeup.set)

        commits.listen(wake)
        listening = asyncio.create_task(self._listen())
        try:
            while True:
                _check_cancelled()
                self._wakeup.clear()
                try:
                    done = await self.run_once()
                except Exception as error:  # noqa: BLE001 - each driver has its own for a database that is away
                    await asyncio.sleep(self._pause_after(error))
                    continue
                self._worked()
                if not done:
                    poll = loop.call_later(self._poll_seconds, self._wakeup.set)  # wait_for can lose a cancellation
                    await self._wakeup.wait()
                    poll.cancel()
        finally:
            commits.forget(wake)
            while not listening.done():
                listening.cancel()  # again and again: a driver can lose a cancellation
                await asyncio.wait({listening}, timeout=0.1)

    async def run_once(self) -> int:
        """Same as `modelready.outbox.Relay.run_once`."""
        async with self._engine.connect() as connection:
            try:
                batch = await connection.run_sync(self._claim)
                if batch.events:
                    await self._publish(batch)
                return await connection.run_sync(self._settle, batch)
            except BaseException:
                await _close(connection)  # a lock of MySQL would outlive the transaction
                raise

    async def _publish(self, batch: Batch) -> None:
        results = self._publisher.publish_many(batch.events, durability=self._durability, timeout=PUBLISH_SECONDS)
        try:
            async for result in results:
                batch.note(result)
        except PublishError as error:
            batch.end(error)

    async def _listen(self) -> None:
        """Set the wakeup at each NOTIFY of PostgreSQL. A hint only: what is missed meanwhile is found by the poll."""
        listen = {"asyncpg": self._listen_asyncpg, "psycopg": self._listen_psycopg}.get(self._engine.dialect.driver)
        failures = 0
        while listen is not None:
            with suppress(Exception):  # the relay meets the same failure, and logs it
                async with self._engine.connect() as connection:
                    raw = (await connection.get_raw_connection()).driver_connection
                    try:
                        await listen(raw)
                    finally:
                        await _close(connection)  # in the pool it would go on listening
            await asyncio.sleep(backoff(failures))
            failures += 1

    async def _listen_asyncpg(self, raw: Any) -> None:
        closed = asyncio.Event()
        raw.add_termination_listener(lambda _: closed.set())
        await raw.add_listener(NAME, lambda *_: self._wakeup.set())
        self._wakeup.set()
        await closed.wait()

    async def _listen_psycopg(self, raw: Any) -> None:
        await raw.set_autocommit(True)
        await raw.execute(f"LISTEN {NAME}")
        self._wakeup.set()
        async for _ in raw.notifies():
            self._wakeup.set()


def _check_cancelled() -> None:
    """Raise the cancellation that a driver has lost. Python 3.10 does not count them."""
    task: Any = asyncio.current_task()
    if hasattr(task, "cancelling") and task.cancelling():
        raise asyncio.CancelledError


async def _close(connection: AsyncConnection) -> None:
    """Not back into the pool. Its own failure must not take the place of a cancellation."""
    with suppress(Exception):
        await connection.invalidate()
