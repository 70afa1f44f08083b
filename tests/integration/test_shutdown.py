"""A stop: announced first, every call answered, nothing lost, and nobody can delay it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelready.v1 import publisher_service_pb2 as pb
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import NOT_SERVING, SERVING, SidecarProcess
from tests.harness.waiting import crowded, patience, until
from tests.integration.calls import (
    DEFAULT,
    PRIMARY,
    PUBLISHER,
    TO_DISK,
    Code,
    Load,
    Refusal,
    calling,
    model_event,
    queued_ids,
    read_error,
    to_redis,
)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def frames(stop: threading.Event) -> Iterator[pb.PublishStreamRequest]:
    """One frame, and then the caller stays without a word."""
    yield pb.PublishStreamRequest(sequence=1, events=[model_event()])
    stop.wait(30)


def test_open_watches_and_streams_do_not_hold_up_a_stop(server: RedisServer) -> None:
    quiet = threading.Event()
    with SidecarProcess(to_redis(server)) as sidecar, calling(sidecar) as caller:
        watches = [
            health_pb2_grpc.HealthStub(caller.channel).Watch(health_pb2.HealthCheckRequest(service=name))
            for name in ("", PUBLISHER, "redis", "nobody")
        ]
        statuses = [[next(watch).status] for watch in watches]
        stream = caller.stream(frames(quiet))
        assert next(stream).sequence == 1
        began = time.monotonic()
        assert sidecar.terminate() == 0
        assert time.monotonic() - began < patience(3)
        for watch, seen in zip(watches, statuses, strict=True):
            seen.extend(response.status for response in watch)
        assert statuses[:3] == [[SERVING, NOT_SERVING]] * 3
        with pytest.raises(grpc.RpcError) as ended:
            next(stream)
        assert isinstance(ended.value, grpc.Call)
        assert ended.value.code() is Code.UNAVAILABLE
        quiet.set()


def test_not_serving_is_announced_before_calls_are_refused_and_those_in_flight_are_answered(
    server: RedisServer,
) -> None:
    """Redis stands still, so a call is in flight when the stop begins."""
    with SidecarProcess(to_redis(server)) as sidecar, calling(sidecar) as caller:
        watch = health_pb2_grpc.HealthStub(caller.channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == SERVING
        answers: dict[str, object] = {}
        server.freeze()

        def publish(name: str, durability: pb.Durability) -> None:
            with calling(sidecar) as other:
                try:
                    answers[name] = other.publish(model_event(event_id=name), durability).outcome
                except grpc.RpcError as error:
                    answers[name] = read_error(error)

        callers = [
            threading.Thread(target=publish, args=args) for args in (("on-disk", DEFAULT), ("in-redis", PRIMARY))
        ]
        for thread in callers:
            thread.start()
        until(lambda: sidecar.metrics()["modelready_pending_events"] == 2, 3, "both are in flight")
        stopping = threading.Thread(target=sidecar.terminate)
        stopping.start()
        assert next(watch).status == NOT_SERVING
        assert answers == {}
        server.thaw()
        for thread in (*callers, stopping):
            thread.join()
        assert sidecar.wait() == 0
        assert set(answers) == {"on-disk", "in-redis"}
        assert not [answer for answer in answers.values() if isinstance(answer, Refusal)]
        assert {"on-disk", "in-redis"} <= set(queued_ids(server))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_under_load_loses_nothing_that_was_acknowledged(number: int, server: RedisServer) -> None:
    with SidecarProcess(to_redis(server)) as sidecar, Load(sidecar, [DEFAULT] * 6 + [PRIMARY] * 6) as load:
        until(lambda: len(load.acked) > 500, 10, "it publishes")
        began = time.monotonic()
        if number == signal.SIGINT:
            sidecar._child.process.send_signal(number)
            assert sidecar.wait() == 0
        else:
            assert sidecar.terminate() == 0
        took = time.monotonic() - began
        load.__exit__()
        assert {refusal.code for refusal in load.errors} <= {Code.UNAVAILABLE}
        assert took < patience(3)
        spooled = load.outcomes[TO_DISK]
        if spooled:  # while Redis is there, nothing should be
            sidecar.start()
            until(lambda: sidecar.metrics()["modelready_spool_events"] == 0, 5, "the spool is empty")
    stored = queued_ids(server)
    assert len(stored) == len(set(stored))
    assert set(load.acked) <= set(stored)
    assert spooled == 0


def test_a_stop_while_redis_is_away_keeps_the_spool_for_the_next_start() -> None:
    server = RedisServer()
    try:
        with SidecarProcess(to_redis(server)) as sidecar:
            with Load(sidecar, [DEFAULT] * 8) as load:
                until(lambda: len(load.acked) > 300, 10, "it publishes")
                assert sidecar.terminate() == 0
            # CANCELLED is what grpc answers calls that it has not passed on in time, as a crowded machine makes it do.
            expected = {Code.UNAVAILABLE, Code.CANCELLED} if crowded() else {Code.UNAVAILABLE}
            assert {refusal.code for refusal in load.errors} <= expected
            server.start()
            sidecar.start()
            until(lambda: sidecar.metrics()["modelready_spool_events"] == 0, 10, "the spool is empty")
            stored = queued_ids(server)
            assert len(stored) == len(set(stored))
            assert set(load.acked) <= set(stored)
    finally:
        server.close()


def test_a_stop_ends_in_time_though_redis_never_answers(server: RedisServer) -> None:
    with SidecarProcess(to_redis(server, SIDECAR_SHUTDOWN_SECONDS="2")) as sidecar, calling(sidecar) as caller:
        caller.publish()
        server.freeze()
        insisting = threading.Thread(target=lambda: caller.refused(durability=PRIMARY, timeout=20))
        insisting.start()
        until(lambda: sidecar.metrics()["modelready_pending_events"] == 1, 3, "it is in flight")
        began = time.monotonic()
        assert sidecar.terminate() == 0
        assert time.monotonic() - began < patience(3)
        insisting.join()
        server.thaw()
