"""No stranger makes the sidecar need more than 256 MiB, or keeps it from serving callers with a token."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelready.v1 import publisher_service_pb2 as pb
from modelready.v1.event_pb2 import ModelReadyToDeploy
from modelready.v1.publisher_service_pb2_grpc import PublisherServiceStub
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SERVING, SidecarProcess
from tests.harness.waiting import until
from tests.integration.calls import PRIMARY, STORED, Code, calling, model_event, to_redis
from tests.integration.strangers import Stranger

MAX_MIB = 256
TOKEN = "the-token"
CHECK, PUBLISH = "grpc.health.v1.Health/Check", "modelready.v1.PublisherService/Publish"


@pytest.fixture
def sidecar(server: RedisServer) -> Iterator[SidecarProcess]:
    with SidecarProcess(to_redis(server, SIDECAR_API_TOKEN=TOKEN, SIDECAR_MAX_PENDING="1000")) as sidecar:
        yield sidecar
        peak = peak_mib(sidecar)
        print(f"peak {peak} MiB")
        assert peak <= MAX_MIB
        assert sidecar.health(seconds=5) == SERVING


def peak_mib(sidecar: SidecarProcess) -> int:
    """The most resident memory that it ever had."""
    status = Path(f"/proc/{sidecar.pid}/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) >> 10


def as_large_as_it_may_be() -> ModelReadyToDeploy:
    """430 KB; nine of them are a message of nearly 4 MiB."""
    event = model_event(labels={f"label-{number}": "\U0001f600" * 1000 for number in range(60)})
    event.provenance.dataset_uris.extend(["s3://" + "\U0001f600" * 1500] * 32)
    return event


@pytest.mark.parametrize(
    ("method", "headers"),
    [(PUBLISH, []), (CHECK, []), (PUBLISH, [(b"authorization", f"Bearer {TOKEN}".encode())])],
    ids=["publish without a token", "health", "publish with a token"],
)
def test_requests_that_stop_one_byte_short(
    method: str, headers: list[tuple[bytes, bytes]], sidecar: SidecarProcess
) -> None:
    """150 calls of nearly 8 MiB: without a token the body is not received at all, with one a few at a time."""
    size = 8 * 1024 * 1024
    with ExitStack() as stack:
        strangers = [stack.enter_context(Stranger(sidecar.address, method, size, headers)) for _ in range(150)]
        moved = time.monotonic()
        while time.monotonic() - moved < 0.5 and not all(stranger.ended for stranger in strangers):
            if sum(stranger.go_on() for stranger in strangers):
                moved = time.monotonic()
        assert sidecar.health(seconds=5) == SERVING
        if not headers:  # those who have the token take turns
            with calling(sidecar, TOKEN) as friend:
                assert friend.publish(timeout=5).outcome == STORED


@pytest.mark.parametrize("size", ["large", "many"])
def test_streams_whose_answers_nobody_reads(size: str, sidecar: SidecarProcess) -> None:
    events = [as_large_as_it_may_be()] * 9 if size == "large" else [model_event(number) for number in range(1000)]
    done = threading.Event()
    sent: list[int] = []

    def frames(stream: int) -> Iterator[pb.PublishStreamRequest]:
        for sequence in range(40):
            if done.is_set():
                return
            sent.append(stream)
            yield pb.PublishStreamRequest(sequence=sequence, events=events)
        done.wait(60)

    # A small window, so that no answer is taken before it is asked for.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.lookahead_bytes", 1), ("grpc.http2.bdp_probe", 0)]
    metadata = (("authorization", f"Bearer {TOKEN}"),)
    with ExitStack() as stack, calling(sidecar, TOKEN) as friend:
        channels = [stack.enter_context(grpc.insecure_channel(sidecar.address, options)) for _ in range(6)]
        calls: list[Any] = [
            PublisherServiceStub(channel).PublishStream(frames(number), metadata=metadata)
            for number, channel in enumerate(channels)
        ]
        stack.callback(done.set)
        until(lambda: standing_still(sent), 60, "they wait for their answers to be read")
        assert friend.publish(durability=PRIMARY, timeout=5).outcome == STORED
        for call in calls:
            call.cancel()


def standing_still(sent: list[int]) -> bool:
    before = len(sent)
    time.sleep(1)
    return len(sent) == before > 0


def test_watches_take_no_place_of_those_who_have_a_token(sidecar: SidecarProcess) -> None:
    with sidecar.channel() as channel, calling(sidecar, TOKEN) as friend:
        stub = health_pb2_grpc.HealthStub(channel)
        watches = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(3500)]  # above all calls together
        until(lambda: sum(watch.done() for watch in watches) >= 3000, 60, "most are refused")
        assert {watch.code() for watch in watches if watch.done()} == {Code.RESOURCE_EXHAUSTED}
        assert any(next(watch).status == SERVING for watch in watches if not watch.done())
        assert friend.publish(timeout=5).outcome == STORED
        assert sidecar.health(seconds=5) == SERVING
        for watch in watches:
            watch.cancel()


def test_checks_that_send_no_request_give_way(sidecar: SidecarProcess) -> None:
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(sidecar.address, options) as channel, calling(sidecar, TOKEN) as friend:
        unsent: Any = channel.stream_stream(f"/{CHECK}")
        never = threading.Event()
        calls = [unsent(iter(never.wait, None)) for _ in range(50)]  # each waits for its request
        assert sidecar.health(seconds=5) == SERVING
        assert friend.publish(timeout=5).outcome == STORED
        until(lambda: sum(call.done() for call in calls) >= 42, 30, "all but the last are refused")
        assert {call.code() for call in calls if call.done()} == {Code.RESOURCE_EXHAUSTED}
        never.set()
        for call in calls:
            call.cancel()
