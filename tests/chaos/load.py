"""Writers that publish numbered events and write down all that they attempted and all that they were promised."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from types import TracebackType
from typing import NamedTuple, Self

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2

from modelready.v1 import publisher_service_pb2 as pb
from modelready.v1 import publisher_service_pb2_grpc as pb_grpc
from modelready.v1.event_pb2 import Artifact, ModelReadyToDeploy, ModelVersion
from tests.harness.ports import LOOPBACK
from tests.harness.waiting import crowded, until

_RETRY_FIRST, _RETRY_MAX = 0.02, 0.15
_CHANNEL = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 100),
]
_TRANSIENT = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}


class Ack(NamedTuple):
    """An acknowledgement: what its receipt said, and when (time.monotonic())."""

    event_id: str
    model: str
    outcome: int
    entry_id: str
    replicas: int
    began: float
    ended: float


class Call(NamedTuple):
    """One call, with its deadline in seconds, how long it took, and the status that ended it."""

    began: float
    allowed: float
    seconds: float
    code: grpc.StatusCode
    reasons: frozenset[str]


@dataclass
class History:
    """All that happened, by model in the order in which it happened: each model has one writer."""

    attempted: dict[str, str] = field(default_factory=dict)
    """The subject of each event that was ever sent, by its id."""
    acks: list[Ack] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)
    """What no caller should ever see."""

    def outcomes(self) -> Counter[str]:
        return Counter(pb.Outcome.Name(pb.Outcome.ValueType(ack.outcome)) for ack in self.acks)

    def codes(self) -> Counter[str]:
        return Counter(call.code.name for call in self.calls)

    def reasons(self) -> Counter[str]:
        return Counter(reason for call in self.calls for reason in call.reasons)

    def late(self) -> list[Call]:
        """Calls that were not answered before their deadline; none on a crowded machine, which delays callers, too."""
        if crowded():
            return []
        return [
            call for call in self.calls if call.code is grpc.StatusCode.DEADLINE_EXCEEDED or call.seconds > call.allowed
        ]

    def slowest(self) -> float:
        """The longest call, as a share of the time that it was allowed."""
        return max(call.seconds / call.allowed for call in self.calls)


class Load:
    """`writers` threads, each with `models` models of its own, publish until `finish`, or until `limit` events each.

    An event that was not acknowledged is sent again, with the same id, before its model goes on to the next one. With a
    `batch` above 1, that number of consecutive events of the model go in one call; it may change while the load runs. A
    context manager: running in, aborted after unless it was finished.
    """

    def __init__(
        self,
        address: str,
        *,
        writers: int = 8,
        models: int = 3,
        durability: pb.Durability = pb.DURABILITY_UNSPECIFIED,
        timeout: float = 3,
        batch: int = 1,
        limit: int | None = None,
        pause: float = 0.005,
        name: str = "m",
    ) -> None:
        self.address = address
        self.durability = durability
        self.timeout = timeout
        self.batch = batch
        self.limit = limit
        self.pause = pause
        self.stopping = threading.Event()
        self.give_up_at = float("inf")
        self._writers = [_Writer(self, [f"{name}-{w}-{m}" for m in range(models)]) for w in range(writers)]

    @property
    def acked(self) -> int:
        """Events acknowledged so far."""
        return sum(len(writer.history.acks) for writer in self._writers)

    def wait_acked(self, more: int, seconds: float = 20) -> None:
        """Wait until that many more events are acknowledged."""
        goal = self.acked + more
        until(lambda: self.acked >= goal, seconds, f"{more} more events are acknowledged")

    def wait_all_acked_since(self, moment: float, seconds: float = 20) -> float:
        """Until every writer has an acknowledgement of a call that began after `moment`; seconds that it took."""

        def all_of_them() -> float:
            firsts = [writer.first_since(moment) for writer in self._writers]
            return max(firsts) - moment

        return until(all_of_them, seconds, "every writer is served again")

    def first_ack_since(self, moment: float, seconds: float = 20) -> float:
        """Until some event is acknowledged after `moment`; seconds that it took."""

        def first() -> float:
            late = [ack.ended for w in self._writers for ack in w.history.acks[-500:] if ack.ended > moment]
            return min(late) - moment

        return until(first, seconds, "an event is acknowledged again")

    def finish(self, patience: float = 15) -> History:
        """Begin no more events, wait until those begun are acknowledged or `patience` seconds are over: all of it."""
        self.stopping.set()
        return self.join(patience)

    def join(self, patience: float) -> History:
        """Wait until all have reached their limit, or give up after that many seconds."""
        self.give_up_at = time.monotonic() + patience
        for writer in self._writers:
            writer.join(patience + self.timeout + 5)
            assert not writer.is_alive(), "a call hangs beyond its deadline"
        history = History()
        for writer in self._writers:
            history.attempted |= writer.history.attempted
            history.acks += writer.history.acks
            history.calls += writer.history.calls
            history.defects += writer.history.defects
        return history

    def __enter__(self) -> Self:
        for writer in self._writers:
            writer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        self.give_up_at = 0
        for writer in self._writers:
            writer.join(self.timeout + 5)


class _Writer(threading.Thread):
    def __init__(self, load: Load, models: Sequence[str]) -> None:
        super().__init__(daemon=True)
        self.history = History()
        self._load = load
        self._models = models

    def first_since(self, moment: float) -> float:
        """When its first call that began after that moment was acknowledged; ValueError if none was."""
        return min(ack.ended for ack in self.history.acks[-500:] if ack.began >= moment)

    def run(self) -> None:
        numbers = {model: count(1) for model in self._models}
        done = 0
        with grpc.insecure_channel(self._load.address, _CHANNEL) as channel:
            stub = pb_grpc.PublisherServiceStub(channel)
            while True:
                for model in self._models:
                    if self._load.stopping.is_set() or done == self._load.limit:
                        return
                    size = min(self._load.batch, (self._load.limit or self._load.batch + done) - done)
                    events = [_event(model, next(numbers[model])) for _ in range(size)]
                    done += size
                    if not self._deliver(stub, model, events):
                        return
                    time.sleep(self._load.pause)

    def _deliver(self, stub: pb_grpc.PublisherServiceStub, model: str, events: list[ModelReadyToDeploy]) -> bool:
        """Send again and again what is not acknowledged; False if the time is up before all is."""
        self.history.attempted |= {event.event_id: f"{model}/{event.model.version}" for event in events}
        pause = _RETRY_FIRST
        while True:
            events = self._attempt(stub, model, events)
            if not events:
                return True
            if time.monotonic() > self._load.give_up_at:
                return False
            time.sleep(pause)
            pause = min(2 * pause, _RETRY_MAX)

    def _attempt(
        self, stub: pb_grpc.PublisherServiceStub, model: str, events: list[ModelReadyToDeploy]
    ) -> list[ModelReadyToDeploy]:
        """One call; those that it did not acknowledge."""
        load, began = self._load, time.monotonic()
        code, reasons, results = grpc.StatusCode.OK, set(), list[pb.PublishResult]()
        try:
            if len(events) == 1:
                request = pb.PublishRequest(event=events[0], durability=load.durability)
                answer = stub.Publish(request, timeout=load.timeout)
                results = [pb.PublishResult(receipt=answer.receipt)]
            else:
                batch = pb.PublishBatchRequest(events=events, durability=load.durability)
                results = list(stub.PublishBatch(batch, timeout=load.timeout).results)
        except grpc.RpcError as error:
            code, reason, text = _refusal(error)
            reasons.add(reason)
            if code not in _TRANSIENT and code is not grpc.StatusCode.DEADLINE_EXCEEDED:
                self.history.defects.append(f"{code.name}: {text}")
        ended = time.monotonic()
        left = list(events)
        if results:
            left = []
            for event, result in zip(events, results, strict=True):
                if result.HasField("receipt"):
                    receipt = result.receipt
                    if receipt.event_id != event.event_id:
                        self.history.defects.append(f"the receipt of {event.event_id} is for {receipt.event_id}")
                    self.history.acks.append(
                        Ack(event.event_id, model, receipt.outcome, receipt.entry_id, receipt.replicas, began, ended)
                    )
                else:
                    reasons.add(_reason(result.error))
                    if result.error.code not in {code_pb2.UNAVAILABLE, code_pb2.RESOURCE_EXHAUSTED}:
                        self.history.defects.append(f"{result.error.code}: {result.error.message}")
                    left.append(event)
            if left and len(left) < len(events):
                self.history.defects.append(f"{len(left)} of a batch of {len(events)} were not acknowledged")
        self.history.calls.append(Call(began, load.timeout, ended - began, code, frozenset(reasons - {""})))
        return left


def publish(
    address: str,
    event: ModelReadyToDeploy,
    durability: pb.Durability = pb.DURABILITY_UNSPECIFIED,
    timeout: float = 3,
) -> pb.Receipt | str:
    """One event, one attempt: its receipt, or the reason of the refusal."""
    with grpc.insecure_channel(address, _CHANNEL) as channel:
        stub = pb_grpc.PublisherServiceStub(channel)
        try:
            return stub.Publish(pb.PublishRequest(event=event, durability=durability), timeout=timeout).receipt
        except grpc.RpcError as error:
            code, reason, _ = _refusal(error)
            return reason or code.name


def sidecar_env(redis_port: int, **more: str) -> dict[str, str]:
    """The environment of a sidecar in front of that port."""
    return {"REDIS_HOST": LOOPBACK, "REDIS_PORT": str(redis_port), "LOG_FORMAT": "json", **more}


def new_event(model: str, number: int) -> ModelReadyToDeploy:
    """An event whose id no other run has."""
    return _event(model, number)


def _event(model: str, number: int) -> ModelReadyToDeploy:
    return ModelReadyToDeploy(
        event_id=f"{model}-{number}-{uuid.uuid4().hex[:8]}",
        model=ModelVersion(name=model, version=str(number)),
        artifact=Artifact(uri=f"s3://models/{model}/{number}/"),
    )


def _refusal(error: grpc.RpcError) -> tuple[grpc.StatusCode, str, str]:
    """The code, the reason where the sidecar gave one, and the text."""
    assert isinstance(error, grpc.Call)
    reason = ""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            reason = _reason(status_pb2.Status.FromString(value))
    return error.code(), reason, error.details() or ""


def _reason(status: status_pb2.Status) -> str:
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return str(info.reason)
    return ""
