"""Building events: model_ready and what makes a retry of one safe."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, SupportsFloat, TypedDict

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
    previous_version: str | int | None
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
    previous_version: str | int | None = "",
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

    `event_id` is made here (a UUIDv7) unless given; `occurred_at` is now unless given, with its time zone. The sidecar
    checks the values by the rules in `modelready/v1/event.proto`. Raises TypeError, which says what a keyword may be,
    for a value of a wrong type.

    Args:
        name: The model's name. Events of one name stay in order. 1 to 256 characters, no control characters.
        version: The version: a string, since registries disagree about what a version is. 1 to 128 characters, no
            control characters.
        uri: The location, e.g. "s3://models/fraud/7/". No password and no pre-signed query: the event is kept for
            longer than they are valid, and every consumer reads it.
        event_id: The idempotency key: an event with the same id is not queued again within the dedup window. 1 to
            128 visible ASCII characters.
        correlation_id: Follows the event through logs, entries, receipts and dead letters.
        source: The registry that publishes, as a URI reference, e.g. "//registry.prod".
        occurred_at: When the version became ready.
        model_uri: Where the registry shows this version, e.g. "models:/fraud/7". No password and no pre-signed
            query.
        digest: The digest of the content, "sha256:" and 64 lower-case hexadecimal digits.
        media_type: The media type, e.g. "application/vnd.mlflow.model".
        size_bytes: The size in bytes; 0 if it is not known.
        metric_name: The metric's name, e.g. "auc".
        baseline_value: The metric of the version that was in use before.
        current_value: The metric of this version.
        environment: The environment, e.g. "production".
        alias: The alias or stage that it gets, e.g. "champion".
        previous_version: The version to roll back to.
        approved_by: Who approved it.
        reason: Why, as free text.
        framework: The framework, e.g. "xgboost".
        framework_version: The framework's version, e.g. "2.1.3".
        image: The container image to serve it with.
        signature: The signature of inputs and outputs, as JSON. At most 32 KiB.
        run_id: The run that trained it, e.g. an MLflow run id.
        code_uri: The code, e.g. a repository with its commit. No password and no pre-signed query.
        dataset_uris: The data it was trained on. At most 32, none with a password or a pre-signed query.
        metrics: Further metrics by name. At most 100, each finite.
        labels: Free labels, e.g. team or token_symbol. At most 64. Never credentials: consumers and logs see them.
        traceparent: The W3C trace context of the caller, "00-<trace id>-<parent id>-<flags>".
    """
    given = dict(locals())
    if not _is_version(version) or not (previous_version is None or _is_version(previous_version)):
        raise TypeError(_wrong_keyword(given))
    if isinstance(dataset_uris, str) or not isinstance(occurred_at, (datetime, type(None))):
        raise TypeError(_wrong_keyword(given))
    try:
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
                previous_version="" if previous_version is None else str(previous_version),
                approved_by=approved_by,
                reason=reason,
            ),
            runtime=Runtime(framework=framework, framework_version=framework_version, image=image, signature=signature),
            provenance=Provenance(run_id=run_id, code_uri=code_uri, dataset_uris=dataset_uris),
            metrics=metrics,
            labels=labels,
            traceparent=traceparent,
        )
    except (TypeError, ValueError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(_wrong_keyword(given) or str(error)) from error
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


def checked_text(name: str, text: object) -> str:
    """It. Raises TypeError."""
    if isinstance(text, str):
        return text
    raise TypeError(f"{name} is {reprlib.repr(text)}: it may be text")


def _wrong_keyword(given: Mapping[str, Any]) -> str:
    """Which keyword of `model_ready` has a value that it may not have, and what it may be; None is "not known"."""
    for name, value in given.items():
        is_good, may_be = _KINDS.get(name, (_is_text, "text"))
        if not is_good(value) and (value is not None or name == "version"):
            return f"{name} is {reprlib.repr(value)}: it may be {may_be}"
    return ""


def _is_text(value: object) -> bool:
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _is_version(value: object) -> bool:
    if isinstance(value, str):
        return _is_text(value)
    return value is not None and not isinstance(value, (bool, float))  # 1.10 would be published as "1.1"


def _is_number(value: object) -> bool:
    return isinstance(value, SupportsFloat) and not isinstance(value, str)


def _is_mapping(of: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, Mapping) and all(map(_is_text, value)) and all(map(of, value.values()))


_Kind = tuple[Callable[[Any], bool], str]
_VERSION: _Kind = (_is_version, "text or an int")
_NUMBER: _Kind = (_is_number, "a number")
_KINDS: dict[str, _Kind] = {
    "version": _VERSION,
    "previous_version": _VERSION,
    "occurred_at": (lambda value: isinstance(value, datetime), "a datetime with its time zone"),
    "size_bytes": (lambda value: isinstance(value, int) and 0 <= value < 1 << 63, "an int, 0 or more"),
    "baseline_value": _NUMBER,
    "current_value": _NUMBER,
    "dataset_uris": (lambda value: not isinstance(value, str) and all(map(_is_text, value)), "a list of texts"),
    "metrics": (_is_mapping(_is_number), 'a mapping of names to numbers, such as {"auc": 0.93}'),
    "labels": (_is_mapping(_is_text), 'a mapping of names to texts, such as {"team": "risk"}'),
}
"""What a keyword of `model_ready` may be; all others are texts."""


def complete(event: ModelReadyToDeploy, source: str) -> ModelReadyToDeploy:
    """A copy of the event with what its retries need: an id, a time and a traceparent that no attempt changes.

    A copy, since a caller that reuses its message for the next version must not reuse the id too. Raises InvalidEvent
    when it is too large for any sidecar, and TypeError for what is no event.
    """
    if not isinstance(event, ModelReadyToDeploy):
        raise TypeError(
            f"the event is a {type(event).__name__}: it may be a ModelReadyToDeploy, as model_ready() makes"
        )
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
