"""PublisherService: from bytes to events, and from results to bytes."""

from __future__ import annotations

import asyncio
import time
from functools import cache
from typing import NamedTuple

import grpc

from modelready.v1 import publisher_service_pb2 as pb
from sidecar.errors import InvalidEvent, Overloaded, RequestError, ShuttingDown, Violation
from sidecar.metrics import Metrics
from sidecar.publishing.acceptance import Acceptance, Metadata, Request
from sidecar.publishing.event_log import EventObserver
from sidecar.publishing.interfaces import Event
from sidecar.publishing.publisher import Publisher
from sidecar.publishing.submission import Published, Results
from sidecar.rpc.auth import Context, metadata, parse
from sidecar.rpc.error_status import to_status

NAME = "modelready.v1.PublisherService"
_MAX_EVENTS = 1000
_FRAMES_UNDER_WAY = 16
_UNANSWERED_BYTES = 32 << 20  # of all streams together; beyond it each has two frames under way
_UNSUBMITTED_BYTES = 16 << 20  # of frames that wait for room; beyond it they are refused
_RESULT_BYTES = 512  # what the result of one event takes, about, until it is sent
_DURABILITIES = frozenset(pb.Durability.values())


class _Frame(NamedTuple):
    """A frame under way: what is submitted of it, and what is refused already (by position)."""

    sequence: int
    arrived: float
    ids: list[tuple[str, str]]
    """The event id and the correlation id of each that is submitted. The events themselves are not kept."""
    refused: dict[int, RequestError]
    future: asyncio.Future[Results] | None

    @property
    def events(self) -> int:
        """How many it has."""
        return len(self.ids) + len(self.refused)


class _UnderWay:
    """The frames of one stream whose answers are not sent yet, in order."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[tuple[_Frame, int] | BaseException | None] = asyncio.Queue()
        self.count = 0
        self.size = 0
        self.answered = asyncio.Event()

    def add(self, frame: _Frame, size: int) -> None:
        """`size`: the bytes that it takes until it is answered."""
        self.count += 1
        self.size += size
        self.frames.put_nowait((frame, size))

    def remove(self, size: int) -> None:
        """Its oldest is answered."""
        self.count -= 1
        self.size -= size
        self.answered.set()


class PublisherService:
    """The handlers. Each answers before the caller's deadline, since the publisher does."""

    def __init__(
        self,
        publisher: Publisher,
        acceptance: Acceptance,
        observer: EventObserver,
        metrics: Metrics,
        *,
        stream: str,
        draining: asyncio.Event,
    ) -> None:
        """`stream`: the key that receipts name. `draining`: set when streams must end."""
        self._publisher = publisher
        self._acceptance = acceptance
        self._observer = observer
        self._stream = stream
        self._draining = draining
        self._unanswered = 0
        self._unsubmitted = 0
        self._seconds = {
            name: metrics.rpc_seconds.labels(name) for name in ("Publish", "PublishBatch", "PublishStream")
        }

    async def publish(self, raw: bytes, context: Context) -> bytes:
        """One event."""
        arrived = time.monotonic()
        request = parse(pb.PublishRequest, raw)
        del raw  # it may be 4 MiB, and the call may wait
        try:
            _check_durability(request.durability)
            if not request.HasField("event"):
                raise InvalidEvent([Violation("event", "is required")])
            event = self._acceptance.accept(request.event, lambda: metadata(context), "event")
            future = self._publisher.submit([event], request.durability, context.time_remaining())
        except RequestError as error:
            self._observer.refused([request.event], error, arrived)
            raise
        event_id, correlation_id = event.id, event.message.correlation_id
        del request, event
        (result,) = await future
        if isinstance(result, RequestError):
            raise result
        self._seconds["Publish"].observe(time.monotonic() - arrived)
        response = pb.PublishResponse()
        self._fill(response.receipt, event_id, correlation_id, result)
        return response.SerializeToString()

    async def publish_batch(self, raw: bytes, context: Context) -> bytes:
        """Up to 1,000 events, a result each."""
        request = parse(pb.PublishBatchRequest, raw)
        sent = cache(lambda: metadata(context))
        frame = self._accept(0, request, sent, context.time_remaining())
        del raw, request  # they may be many times 4 MiB, and the call may wait
        response = pb.PublishBatchResponse()
        await self._answer(frame, response)
        self._seconds["PublishBatch"].observe(time.monotonic() - frame.arrived)
        return response.SerializeToString()

    async def publish_stream(self, context: Context) -> None:
        """Frames, each answered in order; some may be under way at a time. It ends when the sidecar drains."""
        under_way = _UnderWay()
        reader = asyncio.create_task(self._read(context, under_way))

        def stop(_: object) -> None:
            reader.cancel()
            under_way.frames.put_nowait(ShuttingDown("the sidecar is stopping"))  # behind those that are to be answered

        draining = asyncio.create_task(self._draining.wait())
        draining.add_done_callback(stop)
        try:
            while True:
                item = await under_way.frames.get()
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise item
                frame, size = item
                response = pb.PublishStreamResponse(sequence=frame.sequence)
                await self._answer(frame, response)
                self._seconds["PublishStream"].observe(time.monotonic() - frame.arrived)
                await context.write(response.SerializeToString())
                under_way.remove(size)
                self._unanswered -= size
        finally:
            draining.cancel()
            reader.cancel()
            self._unanswered -= under_way.size

    async def _read(self, context: Context, under_way: _UnderWay) -> None:
        """Submit frames as they come, until the last."""
        sent = cache(lambda: metadata(context))
        try:
            while True:
                while under_way.count >= (_FRAMES_UNDER_WAY if self._unanswered < _UNANSWERED_BYTES else 2):
                    under_way.answered.clear()
                    await under_way.answered.wait()
                raw = await context.read()
                if raw is grpc.aio.EOF:
                    under_way.frames.put_nowait(None)
                    return
                size = len(raw)
                request = parse(pb.PublishStreamRequest, await self._room(raw))
                del raw
                frame = self._accept(request.sequence, request, sent, None)
                del request
                size += _RESULT_BYTES * frame.events
                self._unanswered += size
                under_way.add(frame, size)
        except Exception as error:  # noqa: BLE001 - handed over to the handler, which answers
            under_way.frames.put_nowait(error)

    async def _room(self, raw: bytes) -> bytes:
        """Let the sender wait while memory is full, instead of being refused."""
        if self._publisher.has_room(_MAX_EVENTS, len(raw)):
            return raw
        count = len(parse(pb.PublishStreamRequest, raw).events)  # what is parsed is several times as large: not kept
        self._unsubmitted += len(raw)
        try:
            if self._unsubmitted <= _UNSUBMITTED_BYTES:
                await self._publisher.wait_for_room(count, len(raw))
        finally:
            self._unsubmitted -= len(raw)
        return raw

    def _accept(self, sequence: int, request: Request, sent: Metadata, timeout: float | None) -> _Frame:
        """Submit what is valid of a batch or a frame."""
        arrived = time.monotonic()
        messages = request.events
        _check_durability(request.durability)
        if not 1 <= len(messages) <= _MAX_EVENTS:
            raise InvalidEvent([Violation("events", f"must be 1 to {_MAX_EVENTS}, is {len(messages)}")])
        events: list[Event] = []
        refused: dict[int, RequestError] = {}
        future = None
        try:
            self._publisher.check_room(len(messages), 0)  # before the work
            for index, event in enumerate(self._acceptance.accept_all(request, sent)):
                if isinstance(event, InvalidEvent):
                    refused[index] = event
                    self._observer.refused([messages[index]], event, arrived)
                else:
                    events.append(event)
            if events:
                future = self._publisher.submit(events, request.durability, timeout)
        except (Overloaded, ShuttingDown) as error:
            left = [index for index in range(len(messages)) if index not in refused]
            self._observer.refused([messages[index] for index in left], error, arrived)
            refused |= dict.fromkeys(left, error)
            error.__traceback__ = None  # its frames hold the request, and this one holds the error
            events = []
        ids = [(event.id, event.message.correlation_id) for event in events]
        return _Frame(sequence, arrived, ids, refused, future)

    async def _answer(self, frame: _Frame, response: pb.PublishBatchResponse | pb.PublishStreamResponse) -> None:
        """Add a result for each event of a frame, in order: in place, since messages put together are copied."""
        outcomes: Results = []
        if frame.future is not None:
            try:
                outcomes = await frame.future
            except RequestError as error:
                outcomes = [error] * len(frame.ids)
        accepted = zip(frame.ids, outcomes, strict=True)
        for index in range(frame.events):
            result = response.results.add()
            if index in frame.refused:
                result.error.CopyFrom(to_status(frame.refused[index]))
                continue
            (event_id, correlation_id), outcome = next(accepted)
            if isinstance(outcome, RequestError):
                result.error.CopyFrom(to_status(outcome))
            else:
                self._fill(result.receipt, event_id, correlation_id, outcome)

    def _fill(self, receipt: pb.Receipt, event_id: str, correlation_id: str, result: Published) -> None:
        receipt.event_id = event_id
        receipt.correlation_id = correlation_id
        receipt.outcome = result.outcome
        receipt.stream = self._stream
        receipt.entry_id = result.entry_id
        receipt.replicas = result.replicas


def _check_durability(durability: int) -> None:
    if durability not in _DURABILITIES:
        raise InvalidEvent([Violation("durability", f"{durability} is not known")])
