"""The codec of entries: an event as it stands in the stream and in a mirror list, and back.

A stream entry carries CloudEvents attributes in the manner of its binary mode (`ce_...`), the correlation id, the trace
context and the event itself in `data`, as protobuf or as JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Literal, get_args

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from modelready.v1.event_pb2 import ModelReadyToDeploy

Encoding = Literal["protobuf", "json"]
ListFormat = Literal["envelope", "payload"]
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
LIST_FORMATS: tuple[ListFormat, ...] = get_args(ListFormat)

EVENT_TYPE = "modelready.v1.ModelReadyToDeploy"
CONTENT_TYPES: dict[Encoding, str] = {"protobuf": "application/protobuf", "json": "application/json"}

_PROTOBUF, _JSON = (CONTENT_TYPES[encoding].encode() for encoding in ENCODINGS)
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - its text has no offset, which is what is wanted


class UndecodableEntry(ValueError):
    """An entry that is no ModelReadyToDeploy, or not in an encoding that is known."""


class UnencodableEvent(ValueError):
    """An event that no entry or message can hold. The rules of acceptance let none in; a damaged disk may make one."""


def iso(time: Timestamp) -> str:
    """RFC 3339 in UTC, with microseconds. Raises UnencodableEvent outside the years 1 to 9999."""
    try:
        second = _second(time.seconds)
    except OverflowError as error:
        raise UnencodableEvent(f"{time.seconds} s are no time in the years 1 to 9999") from error
    if not 0 <= time.nanos < 1_000_000_000:
        raise UnencodableEvent(f"{time.nanos} ns are no part of a second")
    return f"{second}.{time.nanos // 1000:06d}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    """The time up to the second: the events of a moment share it."""
    return (_EPOCH + timedelta(seconds=seconds)).isoformat(timespec="seconds")


def subject(event: ModelReadyToDeploy) -> str:
    """`<model>/<version>`."""
    return f"{event.model.name}/{event.model.version}"


def encode_data(event: ModelReadyToDeploy, encoding: Encoding) -> bytes:
    """The content of `data`. Protobuf in field order, so that equal events have equal bytes.

    Raises UnencodableEvent.
    """
    if encoding == "json":
        try:
            return json_format.MessageToJson(event, indent=None, preserving_proto_field_name=True).encode()
        except json_format.SerializeToJsonError as error:
            raise UnencodableEvent(f"JSON cannot hold it: {error}") from error
    return event.SerializeToString(deterministic=True)


def encode(event: ModelReadyToDeploy, encoding: Encoding = "protobuf") -> dict[str, bytes]:
    """All fields of the event's entry in the stream. Raises UnencodableEvent."""
    fields = {
        "ce_id": event.event_id.encode(),
        "ce_source": event.source.encode(),
        "ce_type": EVENT_TYPE.encode(),
        "ce_specversion": b"1.0",
        "ce_time": iso(event.occurred_at).encode(),
        "ce_subject": subject(event).encode(),
        "correlationid": event.correlation_id.encode(),
        "partitionkey": event.model.name.encode(),
        "content-type": CONTENT_TYPES[encoding].encode(),
        "data": encode_data(event, encoding),
    }
    if event.traceparent:
        fields["traceparent"] = event.traceparent.encode()
    return fields


def decode(fields: Mapping[bytes, bytes]) -> ModelReadyToDeploy:
    """The event of an entry, whichever encoding it has. Raises UndecodableEntry."""
    data = fields.get(b"data")
    if data is None:
        raise UndecodableEntry("the entry has no field data")
    return decode_data(fields.get(b"content-type", b""), data)


def decode_data(content_type: bytes, data: bytes) -> ModelReadyToDeploy:
    """The event in `data`. Raises UndecodableEntry."""
    try:
        if content_type == _PROTOBUF:
            event = ModelReadyToDeploy.FromString(data)
        elif content_type == _JSON:
            event = json_format.Parse(data, ModelReadyToDeploy(), ignore_unknown_fields=True)
        else:
            raise UndecodableEntry(f"content-type {content_type.decode(errors='replace')!r} is not known")
    except (DecodeError, json_format.ParseError, UnicodeDecodeError) as error:
        raise UndecodableEntry(f"data is no {EVENT_TYPE}: {error}") from error
    if not event.model.name or not event.event_id:
        raise UndecodableEntry(f"data is no complete {EVENT_TYPE}")
    return event


def list_payload(event: ModelReadyToDeploy, labels: Collection[str] | None = None) -> dict[str, Any]:
    """The flat object that consumers of a mirror list read, its keys in a fixed order; what is absent is left out.

    `labels`: those that go into it; None: all.
    """
    evaluation = event.evaluation
    known: dict[str, Any] = {
        "model_id": event.labels.get("model_id") or subject(event),
        "model_name": event.model.name,
        "model_version": event.model.version,
        "mlflow_run_id": event.provenance.run_id or None,
        "metric_name": evaluation.metric_name or None,
        "baseline_value": _number(evaluation.baseline_value) if evaluation.HasField("baseline_value") else None,
        "current_value": _number(evaluation.current_value) if evaluation.HasField("current_value") else None,
        "improvement_percentage": improvement(event),
        "timestamp": _list_time(event),
        "message_version": "1.0",
    }
    payload = {name: value for name, value in known.items() if value is not None}
    for name in sorted(event.labels):
        if name not in known and (labels is None or name in labels):
            payload[name] = event.labels[name]
    return payload


def improvement(event: ModelReadyToDeploy) -> float | None:
    """By how many per cent the current value is above the baseline; None unless the baseline is above 0."""
    evaluation = event.evaluation
    if not (evaluation.HasField("baseline_value") and evaluation.HasField("current_value")):
        return None
    if evaluation.baseline_value <= 0:
        return None
    percentage = (evaluation.current_value - evaluation.baseline_value) / evaluation.baseline_value * 100
    return _number(percentage) if math.isfinite(percentage) else None


def encode_list_message(
    event: ModelReadyToDeploy, list_format: ListFormat = "envelope", labels: Collection[str] | None = None
) -> bytes:
    """The event as a message of a mirror list, JSON. `labels`: as for list_payload. Raises UnencodableEvent."""
    payload = list_payload(event, labels)
    message = payload
    if list_format == "envelope":
        message = {
            "message_id": event.event_id,
            "message_type": "model_ready_to_deploy",
            "correlation_id": event.correlation_id,
            "timestamp": payload["timestamp"],
            "retry_count": 0,
            "max_retries": 3,
            "payload": payload,
        }
    try:
        return json.dumps(message, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except ValueError as error:
        raise UnencodableEvent(f"JSON cannot hold it: {error}") from error


def first_try(raw: bytes) -> bytes:
    """A message that a consumer gave up as it was before: out of its wrapper, its failures not counted.

    Consumers wrap it with an error, as text in `original_message` or as an object in `originalMessage`, and count in
    `retry_count`, or in a bare payload in `_retryCount`. What cannot be read stays as it is.
    """
    try:
        message = json.loads(raw)
    except (ValueError, RecursionError):
        return raw
    if not isinstance(message, dict):
        return raw
    if not message.keys() & {"payload", "model_name"}:
        inner = message.get("original_message", message.get("originalMessage"))
        if isinstance(inner, str):
            return first_try(inner.encode(errors="replace"))
        if isinstance(inner, dict):
            return first_try(json.dumps(inner, separators=(",", ":")).encode())
    fresh = {name: value for name, value in message.items() if name != "_retryCount"}
    if "retry_count" in fresh:
        fresh["retry_count"] = 0
    return raw if fresh == message else json.dumps(fresh, separators=(",", ":")).encode()


def _list_time(event: ModelReadyToDeploy) -> str:
    """With an offset in numbers: Python below 3.11 does not read the Z of `iso`."""
    return f"{iso(event.occurred_at)[:-1]}+00:00"


def _number(value: float) -> float:
    """A whole number without a point, as readers that want an integer need it; from 2**53 on a float has gaps."""
    return int(value) if value.is_integer() and abs(value) < 2**53 else value
