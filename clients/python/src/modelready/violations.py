"""Which rules of the contract an event breaks. By protovalidate: for the sidecar, and for modelready.testing."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from modelready.v1.event_pb2 import ModelReadyToDeploy

if TYPE_CHECKING:
    import protovalidate

MAX_EVENT_BYTES = 512 * 1024
"""What the sidecar takes."""


class Violation(NamedTuple):
    """One broken rule: the path of the field, as in the .proto, and what is wrong with it."""

    field: str
    description: str


def broken_rules(validator: protovalidate.Validator, message: ModelReadyToDeploy, path: str) -> list[Violation]:
    """The rules of the .proto that it breaks. `path`: where it stands in the request."""
    message.model.SetInParent()  # so that what is missing is model.name, and not model
    message.artifact.SetInParent()
    return [
        Violation(f"{path}.{_path(found)}", "is required" if _is_missing(found) else found.proto.message)
        for found in validator.collect_violations(message)
    ]


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
