"""A caller of the sidecar as any language's would be: the generated stubs, and what an answer says."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from modelready.entry import decode, encode_data
from modelready.ids import uuid7
from modelready.keys import Keys
from modelready.v1 import publisher_service_pb2 as pb
from modelready.v1 import queue_service_pb2
from modelready.v1.event_pb2 import Artifact, ModelReadyToDeploy, ModelVersion
from modelready.v1.publisher_service_pb2_grpc import PublisherServiceStub
from modelready.v1.queue_service_pb2_grpc import QueueServiceStub
from sidecar.publishing.interfaces import Attempts, Event
from sidecar.spool.spool import SqliteSpool
from tests.harness.redis_server import RedisServer
from tests.harness.secrecy import shown
from tests.harness.sidecar_process import NOT_SERVING, SERVING, SidecarProcess
from tests.harness.waiting import until

Code = grpc.StatusCode
KEYS = Keys("model-ready")
PUBLISHER = "modelready.v1.PublisherService"
DEFAULT, SPOOLED, PRIMARY, REPLICATED = (
    pb.DURABILITY_UNSPECIFIED, pb.DURABILITY_SPOOLED, pb.DURABILITY_PRIMARY, pb.DURABILITY_REPLICATED,
)  # fmt: skip
STORED, DUPLICATE, TO_DISK = pb.OUTCOME_STORED, pb.OUTCOME_DUPLICATE, pb.OUTCOME_SPOOLED


Answer = TypeVar("Answer", bound=Message)


def seen(answer: Answer) -> Answer:
    """It holds no secret."""
    shown(str(answer), "an answer")
    return answer


class Refusal(NamedTuple):
    """An error as google.rpc has it. `retry`: it has a RetryInfo of more than nothing; `fields`: its BadRequest's."""

    code: grpc.StatusCode
    reason: str
    text: str
    retry: bool
    fields: tuple[str, ...]


def model_event(version: object = 7, **fields: Any) -> ModelReadyToDeploy:
    return ModelReadyToDeploy(**{
        "event_id": uuid7(),
        "model": ModelVersion(name="fraud", version=str(version)),
        "artifact": Artifact(uri="s3://models/fraud/7/"),
        **fields,
    })  # fmt: skip


class Reachable(Protocol):
    """A sidecar, wherever it runs."""

    def channel(self) -> grpc.Channel:
        """To it, sharing no connection with other channels."""


class Caller:
    """Calls over one connection of its own."""

    def __init__(self, channel: grpc.Channel, token: str = "") -> None:
        self.channel = channel
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._publisher = PublisherServiceStub(channel)
        self._queue = QueueServiceStub(channel)

    def publish(
        self, event: ModelReadyToDeploy | None = None, durability: pb.Durability = DEFAULT, timeout: float = 10
    ) -> pb.Receipt:
        request = pb.PublishRequest(event=event or model_event(), durability=durability)
        return self._publisher.Publish(request, timeout=timeout, metadata=self._metadata).receipt

    def batch(
        self, events: Sequence[ModelReadyToDeploy], durability: pb.Durability = DEFAULT, timeout: float = 10
    ) -> list[pb.PublishResult]:
        request = pb.PublishBatchRequest(events=events, durability=durability)
        return list(seen(self._publisher.PublishBatch(request, timeout=timeout, metadata=self._metadata)).results)

    def stream(self, frames: Iterator[pb.PublishStreamRequest]) -> Any:
        """The open call: answers to iterate over."""
        return self._publisher.PublishStream(frames, metadata=self._metadata)

    def status(self) -> queue_service_pb2.GetQueueStatusResponse:
        request = queue_service_pb2.GetQueueStatusRequest()
        return seen(self._queue.GetQueueStatus(request, timeout=10, metadata=self._metadata))

    def services(self) -> list[str]:
        """What server reflection lists."""
        stub = reflection_pb2_grpc.ServerReflectionStub(self.channel)
        requests = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        (answer,) = stub.ServerReflectionInfo(requests, timeout=10, metadata=self._metadata)
        return [service.name for service in answer.list_services_response.service]

    def refused(
        self, event: ModelReadyToDeploy | None = None, durability: pb.Durability = DEFAULT, timeout: float = 10
    ) -> Refusal:
        """The answer to a publish that must fail."""
        return refusal_of(lambda: self.publish(event, durability, timeout))

    def refused_as(
        self, reason: str, event: ModelReadyToDeploy | None = None, durability: pb.Durability = pb.DURABILITY_PRIMARY
    ) -> Refusal:
        """The answer to a publish that must fail with this reason, at the latest in an attempt after the first ones.

        Before, it may be OUTCOME_UNKNOWN, where an attempt was under way at the deadline, or no answer in time.
        """

        def found() -> Refusal | None:
            refusal = self.refused(event, durability, timeout=1)
            if refusal.reason == reason:
                return refusal
            assert refusal.reason == "OUTCOME_UNKNOWN" or refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED, refusal
            return None

        return until(found, 10, f"it says {reason}")


@contextmanager
def calling(sidecar: Reachable, token: str = "") -> Iterator[Caller]:
    with sidecar.channel() as channel:
        yield Caller(channel, token)


def refusal_of(call: Callable[[], object]) -> Refusal:
    """The error that the call ends with; AssertionError when it succeeds."""
    try:
        answer = call()
    except grpc.RpcError as error:
        return read_error(error)
    raise AssertionError(f"it was not refused: {answer}")


def read_error(error: grpc.RpcError) -> Refusal:
    assert isinstance(error, grpc.Call)
    status = rpc_status.from_call(error)
    return (
        read_status(status)
        if status
        else Refusal(error.code(), "", shown(error.details() or "", "an error"), False, ())
    )


def read_status(status: status_pb2.Status) -> Refusal:
    shown(str(status), "an error")
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    reason, retry, fields = "", False, []
    for packed in status.details:
        info, delay, bad = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
        if packed.Unpack(info):
            assert info.domain == "modelready.v1"
            reason = info.reason
        elif packed.Unpack(delay):
            retry = delay.retry_delay.ToMilliseconds() > 0
        elif packed.Unpack(bad):
            fields = [violation.field for violation in bad.field_violations]
    return Refusal(code, reason, status.message, retry, tuple(fields))


class Load:
    """Clients that publish one event after the other, each over a connection of its own, until they are stopped.

    `acked` are the ids of events that were acknowledged, `errors` every other answer.
    """

    def __init__(
        self,
        sidecar: Reachable,
        durabilities: Sequence[pb.Durability],
    ) -> None:
        self.acked: list[str] = []
        self.outcomes: Counter[pb.Outcome] = Counter()
        self.errors: list[Refusal] = []
        self._sidecar = sidecar
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._publish, args=(durability,)) for durability in durabilities]

    def _publish(self, durability: pb.Durability) -> None:
        with calling(self._sidecar) as caller:
            while not self._stop.is_set():
                event = model_event()
                try:
                    receipt = caller.publish(event, durability)
                except grpc.RpcError as error:
                    self.errors.append(read_error(error))
                    self._stop.wait(0.2)  # the RetryInfo's delay
                    continue
                self.acked.append(receipt.event_id)
                self.outcomes[receipt.outcome] += 1

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def to_redis(server: RedisServer, **env: str) -> dict[str, str]:
    """The environment of a sidecar for this server, whether it runs yet or not."""
    address = {"REDIS_HOST": server.host, "REDIS_PORT": str(server.port)}
    return {**address, **({"REDIS_AUTH_TOKEN": server.password} if server.password else {}), **env}


def as_spooled(event: ModelReadyToDeploy) -> Event:
    return Event(event.event_id, event, encode_data(event, "protobuf"))


def put_into_spool(sidecar: SidecarProcess, events: Sequence[Event], attempts: Attempts) -> None:
    """Put events into the spool of a sidecar that is stopped."""

    async def put() -> None:
        spool = await SqliteSpool.open(sidecar.spool_dir, max_bytes=1 << 30)
        await spool.put(events, attempts)
        await spool.close()

    asyncio.run(put())


def entries(server: RedisServer, key: str = KEYS.events) -> list[Mapping[bytes, bytes]]:
    """The fields of all entries of a stream, in order."""
    with server.client() as client:
        return [fields for _, fields in client.xrange(key)]


def queued(server: RedisServer) -> list[ModelReadyToDeploy]:
    """The events of the stream, in order."""
    return [decode(fields) for fields in entries(server)]


def queued_ids(server: RedisServer) -> list[str]:
    return [fields[b"ce_id"].decode() for fields in entries(server)]


def health(sidecar: SidecarProcess) -> tuple[bool, bool, bool]:
    """Whether the process, the publisher and Redis are SERVING."""
    with sidecar.channel() as channel:
        check = HealthStub(channel).Check
        statuses = [check(HealthCheckRequest(service=name), timeout=2).status for name in ("", PUBLISHER, "redis")]
    assert set(statuses) <= {SERVING, NOT_SERVING}
    return statuses[0] == SERVING, statuses[1] == SERVING, statuses[2] == SERVING
