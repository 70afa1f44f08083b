"""A real gRPC server that behaves like a sidecar, or as badly as a test wants.

python -m clients.python.tests.fake_sidecar ADDRESS FILE    in a process of its own, to be killed; keeps ids in FILE
"""

from __future__ import annotations

import itertools
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from grpc_status import rpc_status

from modelready import ModelReadyToDeploy
from modelready.rpc import error_details_pb2, status_pb2
from modelready.v1 import publisher_service_pb2 as pb
from modelready.v1.publisher_service_pb2_grpc import PublisherServiceServicer, add_PublisherServiceServicer_to_server
from tests.harness.ports import PortLease
from tests.harness.waiting import until

STREAM = "{model-ready}:events"


def failure(
    code: grpc.StatusCode,
    *,
    reason: str = "",
    retry_after: float | None = None,
    violations: Sequence[tuple[str, str]] = (),
    message: str = "scripted",
) -> Any:
    """A google.rpc.Status with the details that the sidecar would give."""
    status = status_pb2.Status(code=code.value[0], message=message)
    details: list[Any] = []
    if reason:
        details.append(error_details_pb2.ErrorInfo(reason=reason, domain="modelready.v1"))
    if retry_after is not None:
        details.append(error_details_pb2.RetryInfo())
        details[-1].retry_delay.FromMilliseconds(int(retry_after * 1000))
    if violations:
        fields = [error_details_pb2.BadRequest.FieldViolation(field=f, description=d) for f, d in violations]
        details.append(error_details_pb2.BadRequest(field_violations=fields))
    for detail in details:
        status.details.add().Pack(detail)
    return status


class FakeSidecar(PublisherServiceServicer):
    """`failures` are the answers to the next calls, oldest first; `refuse` decides for an event of a frame."""

    def __init__(
        self,
        address: str = "127.0.0.1:0",
        *,
        credentials: grpc.ServerCredentials | None = None,
        file: Path | None = None,
    ) -> None:
        self.address = address
        self._credentials = credentials
        self._file = file
        self.failures: deque[Any] = deque()
        self.refuse: Callable[[ModelReadyToDeploy], Any] = lambda _: None
        self.hold: Callable[[], object] = lambda: None
        self.frames_a_stream: Iterator[int] = itertools.repeat(sys.maxsize)
        self.attempts: list[ModelReadyToDeploy] = []
        self.entries: list[ModelReadyToDeploy] = []
        self.frames: list[list[str]] = []
        self.durabilities: list[int] = []
        self.metadata: list[dict[str, str | bytes]] = []
        self._seen: dict[str, str] = {}
        if file is not None and file.exists():
            self._seen = {line.split()[0]: "0-1" for line in file.read_text().splitlines()}

    def start(self) -> None:
        if self.address.endswith(":0"):
            # A port of its own: while it is stopped, no other test's server may be what its callers find there.
            self._lease = PortLease()
            self.address = f"{self.address.rpartition(':')[0]}:{self._lease.port}"
        self._server = grpc.server(futures.ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0)])
        add_PublisherServiceServicer_to_server(self, self._server)
        if self._credentials:
            self._server.add_secure_port(self.address, self._credentials)
        else:
            self._server.add_insecure_port(self.address)
        self._server.start()

    def stop(self) -> None:
        """Without grace: what is under way is lost."""
        self._server.stop(None).wait()

    def store(self, event: ModelReadyToDeploy) -> pb.Receipt:
        """Appends the event once, and on disk where there is a file."""
        duplicate = event.event_id in self._seen
        if not duplicate:
            self._seen[event.event_id] = f"1-{len(self._seen)}"
            self.entries.append(event)
            if self._file is not None:
                with self._file.open("a") as file:
                    file.write(f"{event.event_id} {event.model.name} {event.model.version}\n")
        return pb.Receipt(
            event_id=event.event_id,
            correlation_id=event.correlation_id or "made-here",
            outcome=pb.OUTCOME_DUPLICATE if duplicate else pb.OUTCOME_STORED,
            stream=STREAM,
            entry_id=self._seen[event.event_id],
        )

    def Publish(self, request: pb.PublishRequest, context: grpc.ServicerContext) -> pb.PublishResponse:  # noqa: N802
        self._note(request.durability, context)
        self.attempts.append(request.event)
        self._fail(context)
        self.hold()
        return pb.PublishResponse(receipt=self.store(request.event))

    def PublishBatch(self, request: pb.PublishBatchRequest, context: grpc.ServicerContext) -> pb.PublishBatchResponse:  # noqa: N802
        raise NotImplementedError

    def PublishStream(  # noqa: N802
        self, request_iterator: Iterator[pb.PublishStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.PublishStreamResponse]:
        self._fail(context)
        for request in itertools.islice(request_iterator, next(self.frames_a_stream)):
            self._note(request.durability, context)
            self.frames.append([event.event_id for event in request.events])
            self.hold()
            yield pb.PublishStreamResponse(
                sequence=request.sequence, results=[self._result(event) for event in request.events]
            )

    def _result(self, event: ModelReadyToDeploy) -> pb.PublishResult:
        if error := self.refuse(event):
            return pb.PublishResult(error=error)
        return pb.PublishResult(receipt=self.store(event))

    def _note(self, durability: int, context: grpc.ServicerContext) -> None:
        self.durabilities.append(durability)
        self.metadata.append(dict(context.invocation_metadata()))

    def _fail(self, context: grpc.ServicerContext) -> None:
        if self.failures and (status := self.failures.popleft()) is not None:
            context.abort_with_status(rpc_status.to_status(status))


if __name__ == "__main__":
    sidecar = FakeSidecar(sys.argv[1], file=Path(sys.argv[2]))
    sidecar.hold = lambda: time.sleep(0.002)
    sidecar.start()
    sys.stdout.write(sidecar.address + "\n")
    sys.stdout.flush()
    time.sleep(600)


def arrived(sidecar: FakeSidecar, *versions: object) -> None:
    """Wait until the sidecar has these versions, in this order and once."""
    expected = [str(version) for version in versions]
    until(lambda: [event.model.version for event in sidecar.entries] == expected, 30, f"versions {expected}")
