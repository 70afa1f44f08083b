"""The blocking publisher. `modelready.aio.Publisher` is its twin; what both share does no I/O and stands elsewhere."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING

import grpc

from modelready._channel import check_gevent
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
    from sqlalchemy.orm import Session, scoped_session
    from typing_extensions import Self, Unpack

    _Call = grpc._CallIterator[pb.PublishStreamResponse]  # noqa: SLF001 - the stubs have no other name

_OPENING = threading.Lock()


class Publisher(PublisherBase):
    """Publishes events through the sidecar at `target`, "host:port" or "unix:/path".

    It connects at the first call and again when the sidecar comes back. Any number of threads may share it. A process
    that is forked while no call is under way gets a connection of its own; a fork during a call can kill the child.

    `timeout` is the seconds that `publish` may take, its retries included. `durability` is the least to accept,
    `source` names the registry in events that do not name it themselves. `token` is the sidecar's SIDECAR_API_TOKEN;
    without `tls` the connection is in the clear, as it may be on one machine.
    """

    _opened: tuple[int, grpc.Channel, PublisherServiceStub] | None = None

    def publish(
        self, *, timeout: float | None = None, durability: Durability | str | None = None, **fields: Unpack[EventFields]
    ) -> Receipt:
        """Publishes the event that `model_ready(**fields)` makes: `name`, `version`, `uri` and what else is known.

        Returns when the sidecar owns it. Raises a PublishError otherwise, having retried what may succeed later until
        its time was up; the error's `event_id` is the one to publish the same event with again.

        Args:
            timeout: The seconds that this call may take, its retries included; those of the publisher if None.
            durability: The least to accept; that of the publisher if None.
            name: The model's name. Events of one name stay in order. 1 to 256 characters, no control characters.
            version: The version: a string, since registries disagree about what a version is. 1 to 128 characters, no
                control characters.
            uri: The location, e.g. "s3://models/fraud/7/". No password and no pre-signed query: the event is kept for
                longer than they are valid, and every consumer reads it.
            event_id: The idempotency key: an event with the same id is not queued again within the dedup window. 1 to
                128 visible ASCII characters.
            correlation_id: Follows the event through logs, entries, receipts and dead letters.
            source: The registry that publishes, as a URI reference, e.g. "//registry.prod".
            occurred_at: When the version became ready.
            model_uri: Where the registry shows this version, e.g. "models:/fraud/7". No password and no pre-signed
                query.
            digest: The digest of the content, "sha256:" and 64 lower-case hexadecimal digits.
            media_type: The media type, e.g. "application/vnd.mlflow.model".
            size_bytes: The size in bytes; 0 if it is not known.
            metric_name: The metric's name, e.g. "auc".
            baseline_value: The metric of the version that was in use before.
            current_value: The metric of this version.
            environment: The environment, e.g. "production".
            alias: The alias or stage that it gets, e.g. "champion".
            previous_version: The version to roll back to.
            approved_by: Who approved it.
            reason: Why, as free text.
            framework: The framework, e.g. "xgboost".
            framework_version: The framework's version, e.g. "2.1.3".
            image: The container image to serve it with.
            signature: The signature of inputs and outputs, as JSON. At most 32 KiB.
            run_id: The run that trained it, e.g. an MLflow run id.
            code_uri: The code, e.g. a repository with its commit. No password and no pre-signed query.
            dataset_uris: The data it was trained on. At most 32, none with a password or a pre-signed query.
            metrics: Further metrics by name. At most 100, each finite.
            labels: Free labels, e.g. team or token_symbol. At most 64. Never credentials: consumers and logs see them.
            traceparent: The W3C trace context of the caller, "00-<trace id>-<parent id>-<flags>".
        """
        return self.publish_event(model_ready(**fields), timeout=timeout, durability=durability)

    def publish_event(
        self, event: ModelReadyToDeploy, *, timeout: float | None = None, durability: Durability | str | None = None
    ) -> Receipt:
        """Like `publish`, for an event that is built already; one without an `event_id` is given one."""
        request = self._request(event, durability)
        attempts = self._attempts(timeout)
        while True:
            try:
                response = self._stub().Publish(request, timeout=attempts.remaining(), metadata=self._metadata)
                return Receipt.from_message(response.receipt)
            except grpc.RpcError as error:
                delay = attempts.delay_after(from_call(error, request.event.event_id, self._target))
            time.sleep(delay)

    def publish_after(
        self,
        session: Session | scoped_session[Session],
        *,
        on_error: OnError = log,
        timeout: float | None = None,
        durability: Durability | str | None = None,
        **fields: Unpack[EventFields],
    ) -> str:
        """Publishes the event after the commit of the SQLAlchemy session's transaction; returns its event id.

        Nothing is published after a rollback, of a savepoint too. The commit returns when the event is published, or
        after `timeout`; a PublishError does not reach it, but is given to `on_error`, which logs it. An event is lost
        if the process dies in between, or the sidecar is away for longer: `modelready.outbox` loses none.
        """
        from modelready._after_commit import after_commit  # noqa: PLC0415 - needs SQLAlchemy

        def publish(event: ModelReadyToDeploy) -> None:
            try:
                self.publish_event(event, timeout=timeout, durability=durability)
            except PublishError as error:
                on_error(error)

        event = self._complete(fields)
        after_commit(session, event, publish)
        return event.event_id

    def publish_many(
        self,
        events: Iterable[ModelReadyToDeploy],
        *,
        frame: int = 100,
        in_flight: int = 8,
        durability: Durability | str | None = None,
        timeout: float = 30.0,
    ) -> Iterator[Receipt | PublishError]:
        """Publishes many events fast; yields what became of each, in the order of the input.

        The events of a model stay in order. Events are pulled as results are taken, `frame` at a time and never more
        than `frame * in_flight` ahead. A frame is sent when it is full or the input ends: this is for a supply that
        does not pause. Transient failures and a lost sidecar are retried with the same ids, whole frames or single
        events, until for `timeout` seconds no event had its result. Then, or when the sidecar refuses the stream
        itself, the events under way get that PublishError as their result and it is raised; the rest is not pulled.
        Raises RuntimeError under gevent without `grpc.experimental.gevent.init_gevent()`.
        """
        check_gevent()
        window = self._window(frame=frame, in_flight=in_flight, durability=durability, timeout=timeout)
        return self._publish_many(iter(events), window)

    def _publish_many(self, events: Iterator[ModelReadyToDeploy], window: Window) -> Iterator[Receipt | PublishError]:
        stream = _Stream(self._target, lambda requests: self._stub().PublishStream(requests, metadata=self._metadata))
        more = True
        try:
            while True:
                while more and window.has_room:
                    more = _fill(window, events)
                if window.is_empty:
                    return
                window.made_progress(time.monotonic())
                while not window.has_results:
                    _advance(window, stream)
                yield from window.results()
        except PublishError as error:
            yield from window.abandon(error)
            raise
        finally:
            stream.close()

    def close(self) -> None:
        """Closes the connection; calls under way fail."""
        self._closed = True
        if self._opened and self._opened[0] == os.getpid():
            self._opened[1].close()

    def _stub(self) -> PublisherServiceStub:
        self._check_open()
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            with _OPENING:
                opened = self._opened
                if opened is None or opened[0] != os.getpid():
                    opened = self._opened = self._open()
        return opened[2]

    def _open(self) -> tuple[int, grpc.Channel, PublisherServiceStub]:
        if self._credentials is None:
            channel = grpc.insecure_channel(self._target, self._options)
        else:
            channel = grpc.secure_channel(self._target, self._credentials, self._options)
        return os.getpid(), channel, PublisherServiceStub(channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _fill(window: Window, events: Iterator[ModelReadyToDeploy]) -> bool:
    """Fills one frame; tells whether there may be more events."""
    frame = window.new_frame()
    for event in events:  # noqa: SIM110 - any() would say less
        if frame.add(event):
            return True
    return False


def _advance(window: Window, stream: _Stream) -> None:
    """Sends what may be sent and waits for one answer."""
    for request in window.to_send(time.monotonic()):
        stream.send(request)
    answer = stream.receive(window.patience(time.monotonic()))
    if isinstance(answer, PublishError):
        stream.close()
        window.interrupted(answer, time.monotonic())
    elif answer is not None:
        window.answered(answer, time.monotonic())


class _Stream:
    """One PublishStream call at a time, opened by `send`. A thread reads it, so that waiting for it has a limit."""

    def __init__(self, target: str, publish_stream: Callable[[Iterator[pb.PublishStreamRequest]], _Call]) -> None:
        self._target = target
        self._publish_stream = publish_stream
        self._call: _Call | None = None
        self._reset()

    def _reset(self) -> None:
        self._requests: queue.SimpleQueue[pb.PublishStreamRequest | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[pb.PublishStreamResponse | PublishError] = queue.SimpleQueue()
        self._reader: threading.Thread | None = None

    def send(self, request: pb.PublishStreamRequest) -> None:
        """Sends one frame."""
        if self._reader is None:
            self._call = self._publish_stream(iter(self._requests.get, None))
            self._reader = threading.Thread(
                target=_read, args=(self._target, self._call, self._answers), name="modelready-answers", daemon=True
            )
            self._reader.start()
        self._requests.put(request)

    def receive(self, timeout: float) -> pb.PublishStreamResponse | PublishError | None:
        """The next answer, or how the call ended, or None after `timeout` seconds."""
        try:
            return self._answers.get(timeout=timeout)
        except queue.Empty:
            return None

    def close(self) -> None:
        """Ends the call, with a moment for the sidecar to end it in good order."""
        self._requests.put(None)
        if self._reader is not None and self._call is not None:
            self._reader.join(GOODBYE_SECONDS)
            self._call.cancel()
        self._reset()


def _read(target: str, call: _Call, answers: queue.SimpleQueue[pb.PublishStreamResponse | PublishError]) -> None:
    try:
        for answer in call:
            answers.put(answer)
        answers.put(ended())
    except grpc.RpcError as error:
        answers.put(from_call(error, target=target))
