"""What is published: one event with everything that a careful registry says."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from modelready.entry import encode
from modelready.keys import Keys
from modelready.v1 import publisher_service_pb2 as pb
from modelready.v1.event_pb2 import ModelReadyToDeploy

SERVICE = "/modelready.v1.PublisherService/"
KEYS = Keys("model-ready")
Entry = dict[Any, Any]  # names and bytes; redis-py wants wider types of a dict


def event(event_id: str = "") -> ModelReadyToDeploy:
    message = ModelReadyToDeploy(
        event_id=event_id, correlation_id="0198c0de-0000-7000-8000-5eed5eed5eed", source="//registry.prod"
    )
    message.occurred_at.FromJsonString("2026-01-02T03:04:05.678901Z")
    message.model.name, message.model.version, message.model.uri = "fraud", "7", "models:/fraud/7"
    message.artifact.uri = "s3://models/fraud/7/"
    message.artifact.digest = "sha256:" + "0123456789abcdef" * 4
    message.artifact.media_type = "application/vnd.mlflow.model"
    message.artifact.size_bytes = 48_231_115
    message.evaluation.metric_name = "auc"
    message.evaluation.baseline_value, message.evaluation.current_value = 0.912, 0.931
    message.promotion.environment, message.promotion.alias = "production", "champion"
    message.provenance.run_id = "6f1c2d3e4b5a69788796a5b4c3d2e1f0"
    message.metrics["auc"], message.metrics["logloss"] = 0.931, 0.214
    message.labels["team"] = "risk"
    return message


def request() -> bytes:
    """A PublishRequest without an id: the sidecar makes one, so that the same bytes are a new event each time."""
    return pb.PublishRequest(event=event()).SerializeToString()


def grpc_frame(message: bytes) -> bytes:
    """A message as it stands in the body of an HTTP/2 request."""
    return struct.pack(">BI", 0, len(message)) + message


def events(count: int, *, models: int = 1, first: int = 0) -> Iterator[ModelReadyToDeploy]:
    """Events with ids of the usual length, each of its own, counted from `first`; of several models in turns."""
    for number in range(first, first + count):
        message = event(f"0198c0de-0000-7000-8000-{number:012x}")
        if models > 1:
            message.model.name = f"fraud-{number % models}"
        yield message


def frames(count: int, size: int, *, models: int = 1, first: int = 0) -> list[bytes]:
    """Serialized PublishStreamRequests: `count` events, `size` a frame."""
    every = list(events(count, models=models, first=first))
    return [
        pb.PublishStreamRequest(sequence=start, events=every[start : start + size]).SerializeToString()
        for start in range(0, count, size)
    ]


def batch(size: int) -> bytes:
    """A PublishBatchRequest of events without ids, like `request`."""
    return pb.PublishBatchRequest(events=[event()] * size).SerializeToString()


def entries(count: int) -> list[Entry]:
    """The same events as the nine fields of an entry: what a registry without the sidecar gives to XADD."""
    return [encode(message) for message in events(count)]
