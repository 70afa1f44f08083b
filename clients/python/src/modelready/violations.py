"""Which rules of the contract an event breaks. By protovalidate: for the sidecar, and for modelready.testing."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from modelready.v1.event_pb2 import ModelReadyToDeploy

if TYPE_CHECKING:
    import protovalidate

MAX_EVENT_BYTES = 512 * 1024
"""What the sidecar takes."""
_FIRST_SECOND, _LAST_SECOND = -62135596800, 253402300799  # years 1 to 9999


class Violation(NamedTuple):
    """One broken rule: the path of the field, as in the .proto, and what is wrong with it."""

    field: str
    description: str


def broken_rules(validator: protovalidate.Validator, message: ModelReadyToDeploy, path: str) -> list[Violation]:
    """Those of the .proto, and that its time is one. `path`: where it stands in the request."""
    message.model.SetInParent()  # so that what is missing is model.name, and not model
    message.artifact.SetInParent()
    violations = [
        Violation(f"{path}.{_path(found)}", "is required" if _is_missing(found) else found.proto.message)
        for found in validator.collect_violations(message)
    ]
    if not is_sensible(message.occurred_at):
        violations.append(Violation(f"{path}.occurred_at", "must be a time in the years 1 to 9999"))
    return violations


def is_sensible(moment: Timestamp) -> bool:
    """Whether it is a time in the years 1 to 9999; one that is not set is 1970."""
    return _FIRST_SECOND <= moment.seconds <= _LAST_SECOND and 0 <= moment.nanos < 1_000_000_000


def _is_missing(violation: protovalidate.Violation) -> bool:
    return violation.proto.rule_id == "string.min_len"


def _path(violation: protovalidate.Violation) -> str:
    """The field's path as in the .proto, e.g. `metrics["auc"]` or `provenance.dataset_uris[2]`."""
    parts = []
    for element in violation.proto.field.elements if violation.proto.field else ():
        name = element.field_name
        subscript = element.subscript
        if subscript is not None:
            key = subscript.value
            name += f'["{key}"]' if isinstance(key, str) else f"[{key}]"
        parts.append(name)
    return ".".join(parts)
