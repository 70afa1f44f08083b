"""Building events: model_ready and what makes a retry of one safe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TypedDict

from modelready._tracing import current_traceparent
from modelready.errors import Violation, invalid_event
from modelready.ids import uuid7
from modelready.v1.event_pb2 import (
    Artifact,
    Evaluation,
    ModelReadyToDeploy,
    ModelVersion,
    Promotion,
    Provenance,
    Runtime,
)

MAX_EVENT_BYTES = 1 << 20
"""No valid event comes near it; a frame of a stream holds less than twice that, half of gRPC's limit."""


class _RequiredFields(TypedDict):
    name: str
    version: str | int
    uri: str


class EventFields(_RequiredFields, total=False):
    """The keywords of `model_ready`, for functions that pass them on."""

    event_id: str | None
    correlation_id: str
    source: str
    occurred_at: datetime | None
    model_uri: str
    digest: str
    media_type: str
    size_bytes: int
    metric_name: str
    baseline_value: float | None
    current_value: float | None
    environment: str
    alias: str
    previous_version: str | int
    approved_by: str
    reason: str
    framework: str
    framework_version: str
    image: str
    signature: str
    run_id: str
    code_uri: str
    dataset_uris: Iterable[str]
    metrics: Mapping[str, float] | None
    labels: Mapping[str, str] | None
    traceparent: str


def model_ready(
    *,
    name: str,
    version: str | int,
    uri: str,
    event_id: str | None = None,
    correlation_id: str = "",
    source: str = "",
    occurred_at: datetime | None = None,
    model_uri: str = "",
    digest: str = "",
    media_type: str = "",
    size_bytes: int = 0,
    metric_name: str = "",
    baseline_value: float | None = None,
    current_value: float | None = None,
    environment: str = "",
    alias: str = "",
    previous_version: str | int = "",
    approved_by: str = "",
    reason: str = "",
    framework: str = "",
    framework_version: str = "",
    image: str = "",
    signature: str = "",
    run_id: str = "",
    code_uri: str = "",
    dataset_uris: Iterable[str] = (),
    metrics: Mapping[str, float] | None = None,
    labels: Mapping[str, str] | None = None,
    traceparent: str = "",
) -> ModelReadyToDeploy:
    """The event "version `version` of model `name` is ready, its files are at `uri`".

    `event_id` is its idempotency key, made here (a UUIDv7) unless given; `occurred_at` is now unless given, with its
    time zone. `proto/modelready/v1/event.proto` tells what each field means and may hold; the sidecar checks it.
    """
    event = ModelReadyToDeploy(
        event_id=event_id or uuid7(),
        correlation_id=correlation_id,
        source=source,
        model=ModelVersion(name=name, version=str(version), uri=model_uri),
        artifact=Artifact(uri=uri, digest=digest, media_type=media_type, size_bytes=size_bytes),
        evaluation=Evaluation(metric_name=metric_name, baseline_value=baseline_value, current_value=current_value),
        promotion=Promotion(
            environment=environment,
            alias=alias,
            previous_version=str(previous_version),
            approved_by=approved_by,
            reason=reason,
        ),
        runtime=Runtime(framework=framework, framework_version=framework_version, image=image, signature=signature),
        provenance=Provenance(run_id=run_id, code_uri=code_uri, dataset_uris=dataset_uris),
        metrics=metrics,
        labels=labels,
        traceparent=traceparent,
    )
    for part in ("evaluation", "promotion", "runtime", "provenance"):
        if not getattr(event, part).ListFields():
            event.ClearField(part)
    if occurred_at is None:
        event.occurred_at.GetCurrentTime()
    elif occurred_at.tzinfo is None:
        raise ValueError("occurred_at has no time zone")
    else:
        event.occurred_at.FromDatetime(occurred_at)
    return event


def complete(event: ModelReadyToDeploy, source: str) -> ModelReadyToDeploy:
    """A copy of the event with what its retries need: an id, a time and a traceparent that no attempt changes.

    A copy, since a caller that reuses its message for the next version must not reuse the id too. Raises InvalidEvent
    when it is too large for any sidecar.
    """
    event_id = event.event_id or uuid7()
    if (size := event.ByteSize()) > MAX_EVENT_BYTES:
        violation = Violation("event", f"has {size} bytes; the limit is {MAX_EVENT_BYTES}")
        raise invalid_event([violation], event_id=event_id)
    whole = ModelReadyToDeploy()
    whole.CopyFrom(event)
    whole.event_id = event_id
    whole.source = whole.source or source
    whole.traceparent = whole.traceparent or current_traceparent()
    if not whole.HasField("occurred_at"):
        whole.occurred_at.GetCurrentTime()
    return whole
