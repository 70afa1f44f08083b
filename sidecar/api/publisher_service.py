"""PublisherService: from bytes to events, and from results to bytes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from functools import cache
from typing import NamedTuple

from modelready.v1 import publisher_service_pb2 as pb
from modelready.v1.event_pb2 import ModelReadyToDeploy
from sidecar.api.guard import Context, metadata, parse
from sidecar.api.status import to_status
from sidecar.errors import InvalidEvent, Overloaded, PublishError, ShuttingDown, Violation
from sidecar.metrics import Metrics
from sidecar.publishing import fates
from sidecar.publishing.interfaces import Event
from sidecar.publishing.publisher import Publisher
from sidecar.publishing.submission import Published, Results
from sidecar.publishing.validation import Acceptance, Metadata

NAME = "modelready.v1.PublisherService"
_MOST_EVENTS = 1000
_FRAMES_UNDER_WAY = 16
_DURABILITIES = frozenset(pb.Durability.values())
_OUTCOMES = {pb.OUTCOME_STORED: "stored", pb.OUTCOME_DUPLICATE: "duplicate", pb.OUTCOME_SPOOLED: "spooled"}


class _Frame(NamedTuple):
    """A frame under way: what is submitted of it, and what is refused already (by position)."""

    sequence: int
    arrived: float
    events: list[Event]
    refused: dict[int, PublishError]
    future: asyncio.Future[Results] | None


class PublisherService:
    """The handlers. Each answers before the caller's deadline, since the publisher does."""

    def __init__(
        self, publisher: Publisher, acceptance: Acceptance, metrics: Metrics, stream: str, draining: asyncio.Event
    ) -> None:
        """`stream`: the key that receipts name. `draining`: set when streams must end."""
        self._publisher = publisher
        self._acceptance = acceptance
        self._stream = stream
        self._draining = draining
        self._refusals = metrics.published
        self._counts = {outcome: metrics.published.labels(name) for outcome, name in _OUTCOMES.items()}
        self._seconds = {
            name: metrics.rpc_seconds.labels(name) for name in ("Publish", "PublishBatch", "PublishStream")
        }

    async def publish(self, raw: bytes, context: Context) -> bytes:
        """One event."""
        arrived = time.monotonic()
        try:
            request = parse(pb.PublishRequest, raw)
            _check_durability(request.durability)
            if not request.HasField("event"):
                raise InvalidEvent([Violation("event", "is required")])
            try:
                event = self._acceptance.accept(request.event, lambda: metadata(context), "event")
                future = self._publisher.submit([event], request.durability, context.time_remaining())
            except PublishError as error:
                fates.refused([request.event], error, (time.monotonic() - arrived) * 1000)
                raise
            (result,) = await future
            if isinstance(result, PublishError):
                raise result
        except PublishError as error:
            self._refusals.labels(error.reason).inc()
            raise
        self._counts[result.outcome].inc()
        self._seconds["Publish"].observe(time.monotonic() - arrived)
        response = pb.PublishResponse()
        self._fill(response.receipt, event, result)
        return response.SerializeToString()

    async def publish_batch(self, raw: bytes, context: Context) -> bytes:
        """Up to 1,000 events, a result each."""
        request = parse(pb.PublishBatchRequest, raw)
        sent = cache(lambda: metadata(context))
        frame = self._accept(0, request.events, request.durability, sent, context.time_remaining())
        response = pb.PublishBatchResponse()
        await self._answer(frame, response)
        self._seconds["PublishBatch"].observe(time.monotonic() - frame.arrived)
        return response.SerializeToString()

    async def publish_stream(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        """Frames, each answered in order; some may be under way at a time."""
        frames: asyncio.Queue[_Frame | BaseException | None] = asyncio.Queue(_FRAMES_UNDER_WAY)
        reader = asyncio.create_task(self._read(requests, frames, cache(lambda: metadata(context))))
        try:
            while True:
                frame = await frames.get()
                if frame is None:
                    return
                if isinstance(frame, BaseException):
                    raise frame
                response = pb.PublishStreamResponse(sequence=frame.sequence)
                await self._answer(frame, response)
                self._seconds["PublishStream"].observe(time.monotonic() - frame.arrived)
                yield response.SerializeToString()
        finally:
            reader.cancel()

    async def _read(
        self, requests: AsyncIterator[bytes], frames: asyncio.Queue[_Frame | BaseException | None], sent: Metadata
    ) -> None:
        """Submit frames as they come; stop, with those under way answered, when the sidecar drains."""
        under_way: deque[asyncio.Future[Results]] = deque()
        draining = asyncio.create_task(self._draining.wait())
        try:
            iterator = aiter(requests)
            while True:
                arrival = asyncio.ensure_future(anext(iterator, None))
                await asyncio.wait({arrival, draining}, return_when=asyncio.FIRST_COMPLETED)
                if not arrival.done():
                    arrival.cancel()
                    await frames.put(ShuttingDown("the sidecar is stopping"))
                    return
                raw = arrival.result()
                if raw is None:
                    await frames.put(None)
                    return
                request = parse(pb.PublishStreamRequest, raw)
                while under_way and under_way[0].done():
                    under_way.popleft()
                while under_way and not self._publisher.has_room(len(request.events), len(raw)):
                    await asyncio.wait({under_way.popleft()})  # the sender waits, instead of being refused
                frame = self._accept(request.sequence, request.events, request.durability, sent, None)
                if frame.future is not None:
                    under_way.append(frame.future)
                await frames.put(frame)
        except Exception as error:  # noqa: BLE001 - handed over to the handler, which answers
            await frames.put(error)
        finally:
            draining.cancel()

    def _accept(
        self,
        sequence: int,
        messages: Sequence[ModelReadyToDeploy],
        durability: pb.Durability,
        sent: Metadata,
        timeout: float | None,
    ) -> _Frame:
        """Submit what is valid of a batch or a frame."""
        arrived = time.monotonic()
        _check_durability(durability)
        if not 1 <= len(messages) <= _MOST_EVENTS:
            raise InvalidEvent([Violation("events", f"must be 1 to {_MOST_EVENTS}, is {len(messages)}")])
        events: list[Event] = []
        refused: dict[int, PublishError] = {}
        for index, message in enumerate(messages):
            try:
                events.append(self._acceptance.accept(message, sent, f"events[{index}]"))
            except InvalidEvent as error:
                refused[index] = error
                fates.refused([message], error, (time.monotonic() - arrived) * 1000)
        future = None
        if events:
            try:
                future = self._publisher.submit(events, durability, timeout)
            except (Overloaded, ShuttingDown) as error:
                fates.refused([event.message for event in events], error, (time.monotonic() - arrived) * 1000)
                refused = {index: refused.get(index, error) for index in range(len(messages))}
                events = []
        return _Frame(sequence, arrived, events, refused, future)

    async def _answer(self, frame: _Frame, response: pb.PublishBatchResponse | pb.PublishStreamResponse) -> None:
        """Add a result for each event of a frame, in order: in place, since messages put together are copied."""
        outcomes: Results = []
        if frame.future is not None:
            try:
                outcomes = await frame.future
            except PublishError as error:
                outcomes = [error] * len(frame.events)
        accepted = zip(frame.events, outcomes, strict=True)
        counts: Counter[pb.Outcome] = Counter()
        for index in range(len(frame.events) + len(frame.refused)):
            result = response.results.add()
            if index in frame.refused:
                self._refuse(result, frame.refused[index])
                continue
            event, outcome = next(accepted)
            if isinstance(outcome, PublishError):
                self._refuse(result, outcome)
            else:
                counts[outcome.outcome] += 1
                self._fill(result.receipt, event, outcome)
        for kind, count in counts.items():
            self._counts[kind].inc(count)

    def _refuse(self, result: pb.PublishResult, error: PublishError) -> None:
        self._refusals.labels(error.reason).inc()
        result.error.CopyFrom(to_status(error))

    def _fill(self, receipt: pb.Receipt, event: Event, result: Published) -> None:
        receipt.event_id = event.id
        receipt.correlation_id = event.message.correlation_id
        receipt.outcome = result.outcome
        receipt.stream = self._stream
        receipt.entry_id = result.entry_id
        receipt.replicas = result.replicas


def _check_durability(durability: int) -> None:
    if durability not in _DURABILITIES:
        raise InvalidEvent([Violation("durability", f"{durability} is not known")])
