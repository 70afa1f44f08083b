"""A sidecar in the test's own process: the real protocol over a real local socket, and events kept in memory."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent import futures
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from modelready.ids import uuid7
from modelready.receipt import Outcome
from modelready.testing.statuses import STORED, Answer, answer_of, invalid, status
from modelready.v1 import publisher_service_pb2 as pb
from modelready.v1.event_pb2 import ModelReadyToDeploy
from modelready.v1.publisher_service_pb2_grpc import PublisherServiceServicer, add_PublisherServiceServicer_to_server

if TYPE_CHECKING:
    from typing_extensions import Self

_STREAM = "{model-ready}:events"
_THREADS = 32


class FakeSidecar:
    """A sidecar that keeps events in memory and answers as a test wants. A context manager: it listens within.

        with FakeSidecar() as sidecar, Publisher(sidecar.address) as publisher:
            publisher.publish(name="fraud", version="7", uri="s3://models/fraud/7/")
            assert [event.model.name for event in sidecar.published] == ["fraud"]

    It refuses what the sidecar refuses: an event that breaks a rule of the contract and, where `token` is given, a call
    without it. It serves `modelready.v1.PublisherService` alone, for Publishers of both kinds and in any language.
    """

    def __init__(
        self, address: str = "127.0.0.1:0", *, token: str = "", credentials: grpc.ServerCredentials | None = None
    ) -> None:
        """`address`: port 0 is a free one, and `address` names it from then on. `credentials` make it speak TLS."""
        self.address = address
        self.published: list[ModelReadyToDeploy] = []
        """What is in its queue: each id once, in the order of arrival."""
        self.attempts: list[ModelReadyToDeploy] = []
        """Each event of each call, in the order of arrival: retries and refused ones, too."""
        self.delay = 0.0
        """Seconds before each answer. The event is in the queue by then, which a caller out of time cannot know."""
        self._token = token
        self._credentials = credentials
        self._changed = threading.Condition()
        self._entries: dict[str, str] = {}
        self._answers: list[Answer] = []
        self._always: Answer | None = None
        self._server: grpc.Server | None = None
        self._stopping = threading.Event()

    # -- what a test asks for

    def answer(self, answer: Outcome | str, *, times: int | None = 1, retry_after: float = 0.05) -> None:
        """The next `times` events get this answer; None: all of them, until `recover`.

        `Outcome.SPOOLED`: as while Redis is away; one that asks for more is refused with REDIS_UNAVAILABLE.
        `Outcome.DUPLICATE`: as if an earlier attempt had succeeded. "OUTCOME_UNKNOWN": it is in the queue, and the
        caller is not told. Any other reason of the sidecar, such as "SPOOL_FULL": it is refused, and not kept.
        `retry_after`: the seconds after which a caller may try again, where it may. Raises ValueError for others.
        """
        made = answer_of(answer, retry_after)
        with self._changed:
            if times is None:
                self._always = made
            else:
                self._answers += [made] * times

    def recover(self) -> None:
        """From now on each event is stored, without a delay."""
        with self._changed:
            self._answers, self._always = [], None
        self.delay = 0.0

    @contextmanager
    def away(self) -> Iterator[None]:
        """Nobody listens within the block, and no other program gets the port. What was published stays."""
        was_there = self._server is not None  # not within another block, nor after its end
        self.stop()
        kept = _bound(self.address)
        try:
            yield
        finally:
            if kept is not None:
                kept.close()
            if was_there:
                self.start()

    def clear(self) -> None:
        """Forget all that was published, and the answers that were asked for."""
        self.recover()
        with self._changed:
            for kept in (self.published, self.attempts, self._entries):
                kept.clear()

    def wait_for(self, count: int, seconds: float = 10.0) -> list[ModelReadyToDeploy]:
        """The events in its queue, once there are `count` or more. Raises TimeoutError, which says how many came.

        For what publishes in another thread. In a coroutine: `await asyncio.to_thread(sidecar.wait_for, 1)`.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.published) >= count, seconds):
                raise TimeoutError(f"{len(self.published)} of {count} events were published in {seconds:g} s")
            return list(self.published)

    # -- its life

    def start(self) -> Self:
        """Listen. Raises RuntimeError where the address cannot be bound."""
        if self._server is not None:
            return self
        invalid(ModelReadyToDeploy(), "event")  # loads the rules, once: the first caller's timeout may be short
        self._stopping.clear()
        self._server = self._listen()
        return self

    def stop(self) -> None:
        """End at once: calls under way fail. What was published stays, and so does the address."""
        self._stopping.set()
        server, self._server = self._server, None
        if server is not None:
            server.stop(None).wait()

    def _listen(self) -> grpc.Server:
        server = grpc.server(futures.ThreadPoolExecutor(_THREADS, "fake-sidecar"), options=[("grpc.so_reuseport", 0)])
        add_PublisherServiceServicer_to_server(_Service(self), server)
        if self._credentials is None:
            port = server.add_insecure_port(self.address)
        else:
            port = server.add_secure_port(self.address, self._credentials)
        if not self.address.startswith("unix:"):
            self.address = f"{self.address.rpartition(':')[0]}:{port}"
        server.start()
        return server

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- what its service asks for

    def _result(self, event: ModelReadyToDeploy, path: str, durability: int) -> pb.PublishResult:
        with self._changed:
            self.attempts.append(event)
            if broken := invalid(event, path):
                return pb.PublishResult(error=broken)
            answer = self._answers.pop(0) if self._answers else self._always or STORED
            outcome, error = answer.outcome, answer.error
            if outcome is Outcome.SPOOLED and durability > pb.DURABILITY_SPOOLED:
                outcome = None
            elif outcome is Outcome.SPOOLED:
                error = None
            receipt = self._kept(event, outcome, durability) if outcome is not None else None
            self._changed.notify_all()
        self._stopping.wait(self.delay)
        return pb.PublishResult(error=error) if error is not None else pb.PublishResult(receipt=receipt)

    def _kept(self, event: ModelReadyToDeploy, outcome: Outcome, durability: int) -> pb.Receipt:
        """Keep it once, as the sidecar does; its receipt."""
        known = self._entries.get(event.event_id)
        event.event_id = event.event_id or uuid7()
        event.correlation_id = event.correlation_id or uuid7()
        if known is None:
            self.published.append(event)
        is_known = known is not None or outcome is Outcome.DUPLICATE
        receipt = pb.Receipt(
            event_id=event.event_id,
            correlation_id=event.correlation_id,
            outcome=pb.OUTCOME_DUPLICATE if is_known else pb.OUTCOME_STORED,
            stream=_STREAM,
            entry_id=known or f"{int(time.time() * 1000)}-{len(self._entries)}",
        )
        self._entries.setdefault(event.event_id, receipt.entry_id)
        receipt.replicas = 1 if durability == pb.DURABILITY_REPLICATED else 0
        if outcome is Outcome.SPOOLED:
            receipt = pb.Receipt(
                event_id=event.event_id, correlation_id=event.correlation_id, outcome=pb.OUTCOME_SPOOLED, stream=_STREAM
            )
        return receipt

    def _check_token(self, context: grpc.ServicerContext) -> None:
        sent = str(dict(context.invocation_metadata()).get("authorization", ""))
        if self._token and sent != f"Bearer {self._token}":
            reason, message = ("TOKEN_WRONG", "the token is wrong") if sent else ("TOKEN_MISSING", "there is no token")
            context.abort_with_status(_aborted(status(reason, message)))


def _bound(address: str) -> socket.socket | None:
    """A socket that has the port and does not listen: connections to it are refused. None for a unix socket."""
    if address.startswith("unix:"):
        return None
    host, _, port = address.rpartition(":")
    family, kind, protocol, _, name = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(name)
    return bound


class _Aborted(NamedTuple):
    code: grpc.StatusCode
    details: str
    trailing_metadata: tuple[tuple[str, bytes], ...]


def _aborted(status: Any) -> Any:
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    return _Aborted(code, status.message, (("grpc-status-details-bin", status.SerializeToString()),))


class _Service(PublisherServiceServicer):
    """The protocol."""

    def __init__(self, sidecar: FakeSidecar) -> None:
        self._sidecar = sidecar

    def Publish(self, request: pb.PublishRequest, context: grpc.ServicerContext) -> pb.PublishResponse:  # noqa: N802 - gRPC's name
        self._sidecar._check_token(context)  # noqa: SLF001 - its other half
        result = self._sidecar._result(request.event, "event", request.durability)  # noqa: SLF001
        if result.HasField("error"):
            context.abort_with_status(_aborted(result.error))
        return pb.PublishResponse(receipt=result.receipt)

    def PublishBatch(self, request: pb.PublishBatchRequest, context: grpc.ServicerContext) -> pb.PublishBatchResponse:  # noqa: N802
        self._sidecar._check_token(context)  # noqa: SLF001
        return pb.PublishBatchResponse(results=self._results(request.events, request.durability))

    def PublishStream(  # noqa: N802
        self, request_iterator: Iterator[pb.PublishStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.PublishStreamResponse]:
        self._sidecar._check_token(context)  # noqa: SLF001
        for request in request_iterator:
            results = self._results(request.events, request.durability)
            yield pb.PublishStreamResponse(sequence=request.sequence, results=results)

    def _results(self, events: Iterable[ModelReadyToDeploy], durability: int) -> list[pb.PublishResult]:
        return [
            self._sidecar._result(event, f"events[{index}]", durability)  # noqa: SLF001
            for index, event in enumerate(events)
        ]
