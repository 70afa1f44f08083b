"""Empties a registry's outbox through this sidecar's own publisher.

The database has threads of its own: one that hangs or is away holds up no call, no probe and no stop. The rows are safe
there meanwhile, so that nothing is kept here but the batch under way.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

import grpc

from modelready import errors as client
from modelready.outbox import Relay, store
from modelready.receipt import Durability, Receipt
from modelready.redis.settings import RedisSettings
from modelready.v1 import publisher_service_pb2 as pb
from modelready.v1.event_pb2 import ModelReadyToDeploy
from sidecar.errors import InvalidEvent, Overloaded, Refused, RequestError, ShuttingDown
from sidecar.operations.outbox import OutboxState
from sidecar.outbox.database import connect
from sidecar.publishing.acceptance import Acceptance
from sidecar.publishing.event_log import EventObserver
from sidecar.publishing.interfaces import Event
from sidecar.publishing.publisher import Publisher
from sidecar.publishing.submission import DURABILITIES, GROUP_EVENTS, Published
from sidecar.settings import OutboxSettings
from sidecar.tasks import in_daemon

log = logging.getLogger(__name__)

_PIECE_BYTES = 2 << 20
_ANSWER_SECONDS = 30.0  # the event loop answers sooner; it also reads secrets
_FIGURES_SECONDS = 10.0
_SILENT_SECONDS = 30.0

Result = TypeVar("Result")


class Loop:
    """The event loop, for other threads."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def ask(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Return or raise what a coroutine does in the loop."""
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:  # it is closed
            work.close()
            raise
        try:
            return future.result(_ANSWER_SECONDS)
        finally:
            future.cancel()


class OwnPublisher:
    """What the relay publishes through: the publisher of this process, in the place of a client's."""

    def __init__(
        self,
        publisher: Publisher,
        acceptance: Acceptance,
        observer: EventObserver,
        stream: str,
    ) -> None:
        """`stream`: the key that receipts name. Made in the event loop that runs `publisher`."""
        self._publisher = publisher
        self._acceptance = acceptance
        self._observer = observer
        self._stream = stream
        self.loop = Loop()

    def publish_many(
        self, events: Iterable[ModelReadyToDeploy], *, durability: Durability, timeout: float
    ) -> Iterator[Receipt | client.PublishError]:
        """See modelready.outbox.PublishesMany. A piece after the other: one that fails holds back those behind it."""
        for piece in _pieces(events):
            results = self.loop.ask(self._publish(piece, DURABILITIES[durability.value], timeout))
            yield from results
            failed = next((one for one in results if not isinstance(one, Receipt | client.InvalidEvent)), None)
            if failed is not None:
                raise failed

    async def _publish(
        self, messages: Sequence[ModelReadyToDeploy], durability: pb.Durability, timeout: float
    ) -> list[Receipt | client.PublishError]:
        results: list[Receipt | client.PublishError | None] = [None] * len(messages)
        accepted: dict[int, Event] = {}
        await self._wait_for_room(messages, timeout)
        arrived = time.monotonic()
        for index, message in enumerate(messages):
            try:
                accepted[index] = self._acceptance.accept(message, dict, "event")
            except InvalidEvent as error:
                self._observer.refused([message], error, arrived)
                results[index] = _refusal(error, message.event_id)
        outcomes = await self._submit(list(accepted.values()), durability, timeout)
        for (index, event), outcome in zip(accepted.items(), outcomes, strict=True):
            if isinstance(outcome, RequestError):
                results[index] = _refusal(outcome, event.id)
            else:
                results[index] = self._receipt(event, outcome)
        return [result for result in results if result is not None]

    async def _wait_for_room(self, messages: Sequence[ModelReadyToDeploy], timeout: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._publisher.wait_for_room(len(messages), sum(message.ByteSize() for message in messages))

    async def _submit(
        self, events: list[Event], durability: pb.Durability, timeout: float
    ) -> Sequence[Published | RequestError]:
        if not events:
            return []
        try:
            return await self._publisher.submit(events, durability, timeout, kept=True)
        except (Overloaded, ShuttingDown) as error:  # it did not get there
            self._observer.refused([event.message for event in events], error, time.monotonic(), kept=True)
            return [error] * len(events)
        except RequestError as error:
            return [error] * len(events)

    def _receipt(self, event: Event, published: Published) -> Receipt:
        return Receipt.from_message(
            pb.Receipt(
                event_id=event.id,
                correlation_id=event.message.correlation_id,
                outcome=published.outcome,
                stream=self._stream,
                entry_id=published.entry_id,
                replicas=published.replicas,
            )
        )


def _pieces(events: Iterable[ModelReadyToDeploy]) -> Iterator[list[ModelReadyToDeploy]]:
    """A group of the committer each, or less where they are large."""
    piece: list[ModelReadyToDeploy] = []
    size = 0
    for event in events:
        size += event.ByteSize()
        if piece and (len(piece) >= GROUP_EVENTS or size > _PIECE_BYTES):
            yield piece
            piece, size = [], event.ByteSize()
        piece.append(event)
    if piece:
        yield piece


def _refusal(error: RequestError, event_id: str) -> client.PublishError:
    if isinstance(error, InvalidEvent | Refused):
        return client.invalid_event([], event_id=event_id, message=str(error), reason=error.reason)
    return client.Unavailable(str(error), code=grpc.StatusCode.UNAVAILABLE, reason=error.reason, event_id=event_id)


class Outbox:
    """The relay, and what is known of its table; each in a thread."""

    def __init__(self, publisher: OwnPublisher, settings: OutboxSettings, aws: RedisSettings) -> None:
        """`aws`: the region and the endpoint of Secrets Manager stand there. Raises SettingsError."""
        self._engine, self._credentials = connect(
            settings, publisher.loop.ask, region=aws.aws_region, endpoint_url=aws.aws_endpoint_url
        )
        durability = Durability(settings.durability)
        self._relay = Relay(self._engine, publisher, durability=durability, poll_seconds=settings.poll)
        self._relay_ended: Future[None] | None = None
        self._closing = threading.Event()
        self._counted = store.Status(0, 0.0, 0)
        self._counted_at = time.monotonic()
        self._error = ""

    @property
    def state(self) -> OutboxState:
        """What is known now, without a question to the database."""
        silent = time.monotonic() - self._counted_at
        error, oldest = self._relay.last_error or self._error, self._counted.oldest_seconds
        if silent > _SILENT_SECONDS:
            error = error or f"the database has not answered for {silent:.0f} s"
            oldest += silent
        return OutboxState(error, self._counted.waiting, oldest, self._counted.failed)

    async def run(self, draining: asyncio.Event) -> None:
        """Work until `draining` is set; a database that is away is tried again and again. Raises only for a defect."""
        self._relay_ended = in_daemon("outbox", self._relay.run)
        figures = in_daemon("outbox figures", self._count)
        tasks = [
            asyncio.ensure_future(work)
            for work in (
                draining.wait(),
                self._credentials.watch(_nothing),
                *(asyncio.shield(asyncio.wrap_future(ended)) for ended in (self._relay_ended, figures)),
            )
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._closing.set()
            self._relay.stop()
            for task in tasks:
                task.cancel()
        for task in done:
            task.result()

    async def closed(self, seconds: float) -> None:
        """Wait that time at most for the batch under way. Rows that are not deleted by then are published again."""
        try:
            async with asyncio.timeout(seconds):
                if self._relay_ended is not None:
                    await asyncio.shield(asyncio.wrap_future(self._relay_ended))
        except TimeoutError:
            log.warning("the outbox's database does not answer: what it did not delete is sent again, and stored once")

    def _count(self) -> None:
        while True:
            try:
                with self._engine.connect() as connection:
                    self._counted = store.status(connection)
            except Exception as error:  # noqa: BLE001 - each driver has its own
                said = getattr(error, "orig", None) or error
                self._error = f"{type(said).__name__}: {said}"
            else:
                self._counted_at, self._error = time.monotonic(), ""
            if self._closing.wait(_FIGURES_SECONDS):
                return


async def _nothing() -> None:
    """A connection stays logged in when the password changes."""
