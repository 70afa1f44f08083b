"""The API as a foreign client meets it: batches, streams, health, reflection, status, error details."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

from modelready import entry
from modelready.v1 import publisher_service_pb2 as pb
from modelready.v1 import queue_service_pb2
from modelready.v1.event_pb2 import Artifact, ModelReadyToDeploy, ModelVersion
from modelready.v1.publisher_service_pb2_grpc import PublisherServiceStub
from modelready.v1.queue_service_pb2_grpc import QueueServiceStub
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import patience, until

STREAM = "{model-ready}:events"


def event(number: int, event_id: str = "") -> ModelReadyToDeploy:
    return ModelReadyToDeploy(
        event_id=event_id, model=ModelVersion(name="m", version=str(number)), artifact=Artifact(uri="s3://m/")
    )


@pytest.fixture(scope="module")
def sidecar(server: RedisServer) -> Iterator[SidecarProcess]:
    with SidecarProcess({"REDIS_HOST": server.host, "REDIS_PORT": str(server.port)}) as running:
        until(lambda: running.health("redis") == health_pb2.HealthCheckResponse.SERVING, 5, "Redis up")
        yield running


@pytest.fixture
def channel(sidecar: SidecarProcess, server: RedisServer) -> Iterator[grpc.Channel]:
    server.execute("FLUSHALL")
    with grpc.insecure_channel(sidecar.address) as channel:
        yield channel


@pytest.fixture
def publisher(channel: grpc.Channel) -> PublisherServiceStub:
    return PublisherServiceStub(channel)


def entries(server: RedisServer) -> Any:
    return server.client().xrange(STREAM)


def versions(server: RedisServer) -> list[str]:
    return [entry.decode(fields).model.version for _, fields in entries(server)]


def test_a_batch_has_a_result_for_each_event_in_order(publisher: PublisherServiceStub, server: RedisServer) -> None:
    request = pb.PublishBatchRequest(events=[event(1, "a"), ModelReadyToDeploy(), event(2, "b"), event(1, "a")])
    results = publisher.PublishBatch(request, timeout=5).results
    assert [result.receipt.outcome for result in results] == [
        pb.OUTCOME_STORED,
        pb.OUTCOME_UNSPECIFIED,
        pb.OUTCOME_STORED,
        pb.OUTCOME_DUPLICATE,
    ]
    assert results[1].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert results[3].receipt.entry_id == results[0].receipt.entry_id
    assert versions(server) == ["1", "2"]


@pytest.mark.parametrize("count", [0, 1001])
def test_a_batch_of_no_or_too_many_events_is_refused(publisher: PublisherServiceStub, count: int) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        publisher.PublishBatch(pb.PublishBatchRequest(events=[event(1)] * count), timeout=5)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_batch_of_a_thousand_is_taken(publisher: PublisherServiceStub, server: RedisServer) -> None:
    request = pb.PublishBatchRequest(events=[event(number) for number in range(1000)])
    results = publisher.PublishBatch(request, timeout=10).results
    assert {result.receipt.outcome for result in results} == {pb.OUTCOME_STORED}
    assert versions(server) == [str(number) for number in range(1000)]


def test_frames_are_answered_in_order_and_their_events_stay_in_order(
    publisher: PublisherServiceStub, server: RedisServer
) -> None:
    frames = [
        pb.PublishStreamRequest(sequence=7 * frame, events=[event(50 * frame + i) for i in range(50)])
        for frame in range(60)
    ]
    answers = list(publisher.PublishStream(iter(frames), timeout=10))
    assert [answer.sequence for answer in answers] == [frame.sequence for frame in frames]
    assert {len(answer.results) for answer in answers} == {50}
    assert versions(server) == [str(number) for number in range(3000)]


def test_an_invalid_event_names_each_field(publisher: PublisherServiceStub) -> None:
    bad = ModelReadyToDeploy(event_id="with blank", artifact=Artifact(uri="https://user:secret@host/"))
    bad.metrics["auc"] = float("nan")
    bad.provenance.dataset_uris.extend(["s3://ok/", "https://b/x?X-Amz-Signature=abc"])
    with pytest.raises(grpc.RpcError) as caught:
        publisher.Publish(pb.PublishRequest(event=bad), timeout=5)
    status = rpc_status.from_call(caught.value)
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(request)
    assert (caught.value.code(), info.reason, info.domain) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_EVENT",
        "modelready.v1",
    )
    assert {violation.field for violation in request.field_violations} == {
        "event.event_id",
        "event.model.name",
        "event.model.version",
        "event.artifact.uri",
        'event.metrics["auc"]',
        "event.provenance.dataset_uris[1]",
    }
    assert "secret" not in (caught.value.details() or "")


@pytest.mark.parametrize("control", ["\n", "\x1b", "\x7f", "\x80", "\x85", "\x9b", "\x9f"])
def test_names_hold_no_control_characters(control: str, publisher: PublisherServiceStub) -> None:
    """C1's neither: some terminals obey them as they obey ESC."""
    name, uri = f"fraud{control}2J", f"s3://models/{control}"
    bad = ModelReadyToDeploy(model=ModelVersion(name=name, version=name), artifact=Artifact(uri=uri))
    bad.source = bad.correlation_id = name
    with pytest.raises(grpc.RpcError) as caught:
        publisher.Publish(pb.PublishRequest(event=bad), timeout=5)
    request = error_details_pb2.BadRequest()
    assert rpc_status.from_call(caught.value).details[1].Unpack(request)
    assert {violation.field.removeprefix("event.") for violation in request.field_violations} == {
        "model.name", "model.version", "artifact.uri", "source", "correlation_id"
    }  # fmt: skip


def test_what_is_empty_is_filled_and_what_the_metadata_say_is_taken(
    publisher: PublisherServiceStub, server: RedisServer
) -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    metadata = (("x-correlation-id", "corr-7"), ("traceparent", traceparent))
    began = time.time()
    receipt = publisher.Publish(pb.PublishRequest(event=event(1)), timeout=5, metadata=metadata).receipt
    ((entry_id, fields),) = entries(server)
    stored = entry.decode(fields)
    assert (receipt.entry_id, receipt.stream, receipt.event_id) == (entry_id.decode(), STREAM, stored.event_id)
    assert len(stored.event_id) == 36
    assert (stored.correlation_id, receipt.correlation_id, stored.traceparent) == ("corr-7", "corr-7", traceparent)
    assert stored.source == "//model-registry"
    assert began - 1 < stored.occurred_at.ToNanoseconds() / 1e9 < time.time() + 1


def test_without_replicas_nothing_is_called_replicated(publisher: PublisherServiceStub) -> None:
    began = time.monotonic()
    request = pb.PublishRequest(event=event(1), durability=pb.DURABILITY_REPLICATED)
    with pytest.raises(grpc.RpcError) as caught:
        publisher.Publish(request, timeout=1)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert time.monotonic() - began < patience(1)
    info = error_details_pb2.ErrorInfo()
    rpc_status.from_call(caught.value).details[0].Unpack(info)
    assert info.reason == "OUTCOME_UNKNOWN"


def test_an_unknown_durability_is_refused(channel: grpc.Channel) -> None:
    call: Any = channel.unary_unary("/modelready.v1.PublisherService/Publish")
    raw = pb.PublishRequest(event=event(1)).SerializeToString() + b"\x10\x63"
    with pytest.raises(grpc.RpcError) as caught:
        call(raw, timeout=5)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_reflection_knows_the_services(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert {
        "grpc.health.v1.Health",
        "modelready.v1.PublisherService",
        "modelready.v1.QueueService",
    } <= set(database.get_services())
    assert database.FindFileContainingSymbol("modelready.v1.PublisherService").name.endswith("publisher_service.proto")


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_finds_methods_by_name(version: str, channel: grpc.Channel) -> None:
    """As grpcurl and ghz ask for them."""
    call: Any = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    service = "modelready.v1.PublisherService"
    asked = [reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)
             for symbol in (f"{service}.Publish", service, f"{service}.Unpublish")]  # fmt: skip
    method, whole, unknown = call(iter(asked), timeout=5)
    assert [answer.original_request for answer in (method, whole, unknown)] == asked
    assert method.file_descriptor_response == whole.file_descriptor_response
    assert method.file_descriptor_response.file_descriptor_proto
    assert unknown.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_status_counts_the_queue_and_its_groups(
    publisher: PublisherServiceStub, server: RedisServer, channel: grpc.Channel
) -> None:
    publisher.PublishBatch(pb.PublishBatchRequest(events=[event(number) for number in range(5)]), timeout=5)
    server.client().xgroup_create(STREAM, "deployer", id="0")
    server.client().xreadgroup("deployer", "one", {STREAM: ">"}, count=2)
    status = QueueServiceStub(channel).GetQueueStatus(queue_service_pb2.GetQueueStatusRequest(), timeout=5)
    assert (status.queue, status.stream, status.redis_up, status.stream_length) == ("model-ready", STREAM, True, 5)
    (group,) = status.groups
    assert (group.name, group.depth, group.pending, group.consumers) == ("deployer", 5, 2, 1)
    assert group.HasField("oldest_unacknowledged_at")


def test_a_watch_tells_when_redis_goes_and_comes(server: RedisServer, channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(service="redis"), timeout=20)
    statuses = (answer.status for answer in watch)
    assert next(statuses) == health_pb2.HealthCheckResponse.SERVING
    server.kill()
    assert next(statuses) == health_pb2.HealthCheckResponse.NOT_SERVING
    status = QueueServiceStub(channel).GetQueueStatus(queue_service_pb2.GetQueueStatusRequest(), timeout=5)
    assert (status.redis_up, status.redis_error != "") == (False, True)
    assert health.Check(health_pb2.HealthCheckRequest(), timeout=2).status == health_pb2.HealthCheckResponse.SERVING
    server.start()
    assert next(statuses) == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


def test_an_unknown_health_name_is_not_found(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        health.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=2)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    first = next(health.Watch(health_pb2.HealthCheckRequest(service="nobody"), timeout=5))
    assert first.status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def test_metrics_count_what_happened(publisher: PublisherServiceStub, sidecar: SidecarProcess) -> None:
    before = sidecar.metrics()
    publisher.Publish(pb.PublishRequest(event=event(1, "x")), timeout=5)
    publisher.Publish(pb.PublishRequest(event=event(1, "x")), timeout=5)
    after = sidecar.metrics()
    for outcome in ("stored", "duplicate"):
        name = f'modelready_published_events_total{{outcome="{outcome}"}}'
        assert after[name] == before[name] + 1
    assert after['modelready_rpc_seconds_count{method="Publish"}'] > 0
    assert after["modelready_redis_up"] == 1
    assert sidecar.get("/healthz")[0] == sidecar.get("/readyz")[0] == 200
    assert sidecar.get("/nowhere")[0] == 404
