"""The asyncio publisher, the twin of `modelready.Publisher`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from modelready._publisher import PublisherBase
from modelready._window import GOODBYE_SECONDS, Window
from modelready.errors import PublishError, ended, from_call
from modelready.event import EventFields, model_ready
from modelready.hooks import OnError, log
from modelready.receipt import Durability, Receipt
from modelready.v1 import publisher_service_pb2 as pb
from modelready.v1.event_pb2 import ModelReadyToDeploy
from modelready.v1.publisher_service_pb2_grpc import PublisherServiceStub

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession
    from typing_extensions import Self, Unpack

    from modelready.v1.publisher_service_pb2_grpc import PublisherServiceAsyncStub

    _Call = grpc.aio.StreamStreamCall[pb.PublishStreamRequest, pb.PublishStreamResponse]


class Publisher(PublisherBase):
    """Same parameters and promises as `modelready.Publisher`. It belongs to the event loop of its first call.

    In another loop its calls raise RuntimeError.
    """

    _opened: tuple[asyncio.AbstractEventLoop, grpc.aio.Channel, PublisherServiceAsyncStub] | None = None

    async def publish(
        self, *, timeout: float | None = None, durability: Durability | str | None = None, **fields: Unpack[EventFields]
    ) -> Receipt:
        """Same as `modelready.Publisher.publish`."""
        return await self.publish_event(model_ready(**fields), timeout=timeout, durability=durability)

    async def publish_event(
        self, event: ModelReadyToDeploy, *, timeout: float | None = None, durability: Durability | str | None = None
    ) -> Receipt:
        """Same as `modelready.Publisher.publish_event`."""
        request = self._request(event, durability)
        attempts = self._attempts(timeout)
        while True:
            try:
                response = await self._stub().Publish(request, timeout=attempts.remaining(), metadata=self._metadata)
                return Receipt.from_message(response.receipt)
            except grpc.RpcError as error:
                delay = attempts.delay_after(from_call(error, request.event.event_id, self._target))
            await asyncio.sleep(delay)

    def publish_after(
        self,
        session: AsyncSession,
        *,
        on_error: OnError = log,
        timeout: float | None = None,
        durability: Durability | str | None = None,
        **fields: Unpack[EventFields],
    ) -> str:
        """Same as `modelready.Publisher.publish_after`, for an AsyncSession."""
        from sqlalchemy.util import await_only  # noqa: PLC0415 - needs SQLAlchemy

        from modelready._after_commit import after_commit  # noqa: PLC0415

        async def publish(event: ModelReadyToDeploy) -> None:
            try:
                await self.publish_event(event, timeout=timeout, durability=durability)
            except PublishError as error:
                on_error(error)

        event = self._complete(fields)
        after_commit(session.sync_session, event, lambda event: await_only(publish(event)))
        return event.event_id

    def publish_many(
        self,
        events: Iterable[ModelReadyToDeploy] | AsyncIterable[ModelReadyToDeploy],
        *,
        frame: int = 100,
        in_flight: int = 8,
        durability: Durability | str | None = None,
        timeout: float = 30.0,
    ) -> AsyncIterator[Receipt | PublishError]:
        """Same as `modelready.Publisher.publish_many`; takes iterables of both kinds."""
        window = self._window(frame=frame, in_flight=in_flight, durability=durability, timeout=timeout)
        return self._publish_many(_aiter(events), window)

    async def _publish_many(
        self, events: AsyncIterator[ModelReadyToDeploy], window: Window
    ) -> AsyncIterator[Receipt | PublishError]:
        stream = _Stream(self._target, lambda requests: self._stub().PublishStream(requests, metadata=self._metadata))
        more = True
        try:
            while True:
                while more and window.has_room:
                    more = await _fill(window, events)
                if window.is_empty:
                    return
                window.made_progress(time.monotonic())
                while not window.has_results:
                    await _advance(window, stream)
                for result in window.results():
                    yield result
        except PublishError as error:
            for result in window.abandon(error):
                yield result
            raise
        finally:
            await stream.close()

    async def close(self) -> None:
        """Closes the connection; calls under way fail."""
        self._closed = True
        if self._opened and self._opened[0] is asyncio.get_running_loop():
            await self._opened[1].close()

    def _stub(self) -> PublisherServiceAsyncStub:
        self._check_open()
        loop = asyncio.get_running_loop()
        if self._opened is None:
            if self._credentials is None:
                channel = grpc.aio.insecure_channel(self._target, self._options)
            else:
                channel = grpc.aio.secure_channel(self._target, self._credentials, self._options)
            self._opened = loop, channel, PublisherServiceStub(channel)
        if self._opened[0] is not loop:
            raise RuntimeError(
                "this publisher belongs to another event loop, that of its first call: make one in each loop, for "
                "example by `async with Publisher(...)` in the coroutine that asyncio.run runs"
            )
        return self._opened[2]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def _aiter(
    events: Iterable[ModelReadyToDeploy] | AsyncIterable[ModelReadyToDeploy],
) -> AsyncIterator[ModelReadyToDeploy]:
    if isinstance(events, AsyncIterable):
        async for event in events:
            yield event
    else:
        for event in events:
            yield event


async def _fill(window: Window, events: AsyncIterator[ModelReadyToDeploy]) -> bool:
    """Fills one frame; tells whether there may be more events."""
    frame = window.new_frame()
    async for event in events:
        if frame.add(event):
            return True
    return False


async def _advance(window: Window, stream: _Stream) -> None:
    """Sends what may be sent and waits for one answer."""
    for request in window.to_send(time.monotonic()):
        stream.send(request)
    answer = await stream.receive(window.patience(time.monotonic()))
    if isinstance(answer, PublishError):
        await stream.close()
        window.interrupted(answer, time.monotonic())
    elif answer is not None:
        window.answered(answer, time.monotonic())


class _Stream:
    """One PublishStream call at a time, opened by `send`. A task reads it, so that waiting for it has a limit."""

    def __init__(self, target: str, publish_stream: Callable[[AsyncIterator[pb.PublishStreamRequest]], _Call]) -> None:
        self._target = target
        self._publish_stream = publish_stream
        self._call: _Call | None = None
        self._reset()

    def _reset(self) -> None:
        self._requests: asyncio.Queue[pb.PublishStreamRequest | None] = asyncio.Queue()
        self._answers: asyncio.Queue[pb.PublishStreamResponse | PublishError] = asyncio.Queue()
        self._reader: asyncio.Task[None] | None = None

    def send(self, request: pb.PublishStreamRequest) -> None:
        """Sends one frame."""
        if self._reader is None:
            self._call = self._publish_stream(_drain(self._requests))
            self._reader = asyncio.create_task(
                _read(self._target, self._call, self._answers), name="modelready-answers"
            )
        self._requests.put_nowait(request)

    async def receive(self, timeout: float) -> pb.PublishStreamResponse | PublishError | None:
        """The next answer, or how the call ended, or None after `timeout` seconds."""
        try:
            return await asyncio.wait_for(self._answers.get(), timeout)
        except asyncio.TimeoutError:
            return None

    async def close(self) -> None:
        """Ends the call, with a moment for the sidecar to end it in good order."""
        self._requests.put_nowait(None)
        if self._reader is not None and self._call is not None:
            await asyncio.wait({self._reader}, timeout=GOODBYE_SECONDS)
            self._call.cancel()
            self._reader.cancel()
        self._reset()


async def _drain(requests: asyncio.Queue[pb.PublishStreamRequest | None]) -> AsyncIterator[pb.PublishStreamRequest]:
    while (request := await requests.get()) is not None:
        yield request


async def _read(target: str, call: _Call, answers: asyncio.Queue[pb.PublishStreamResponse | PublishError]) -> None:
    try:
        async for answer in call:
            answers.put_nowait(answer)
        answers.put_nowait(ended())
    except grpc.RpcError as error:
        answers.put_nowait(from_call(error, target=target))
