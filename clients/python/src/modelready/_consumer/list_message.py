"""The messages of a mirror list, in either format, by whatever program wrote them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

MESSAGE_TYPE = "model_ready_to_deploy"


class UndecodableMessage(ValueError):
    """A message of the list that is neither an envelope nor a payload."""


@dataclass(frozen=True)
class ListMessage:
    """A message of the list. What its writer left out is empty, and 0 in `retry_count`: how often it failed before.

    A bare payload has neither `message_id` nor `correlation_id`. `payload` has `model_name` and `model_version`, and
    from the sidecar `model_id`, `timestamp` and `message_version`; docs/consuming.md says what else.
    """

    payload: Mapping[str, Any]
    message_id: str
    correlation_id: str
    retry_count: int
    max_retries: int
    raw: bytes
    """As it stands in `<list>:processing`."""

    @property
    def label(self) -> str:
        """What a log calls it."""
        return self.message_id or f"{self.payload['model_name']}/{self.payload['model_version']}"

    def failed(self) -> ListMessage:
        """It after one more failure: an envelope says so itself, a payload has no place for it."""
        count = self.retry_count + 1
        raw, whole = self.raw, json.loads(self.raw)
        if _is_envelope(whole):
            raw = json.dumps({**whole, "retry_count": count}, separators=(",", ":")).encode()
        return replace(self, retry_count=count, raw=raw)


def read_message(raw: bytes, max_retries: int = 3) -> ListMessage:
    """The message, of either format, by whatever program wrote it. `max_retries`: where it does not say how many.

    Raises UndecodableMessage.
    """
    try:
        message = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise UndecodableMessage(f"it is no JSON: {error}") from None
    if not isinstance(message, dict):
        raise UndecodableMessage("it is no JSON object")
    if not _is_envelope(message):
        return ListMessage(_checked(message), "", "", 0, max_retries, raw)
    fields: dict[str, Any] = {"message_id": "", "correlation_id": "", "retry_count": 0, "max_retries": max_retries}
    for name, missing in {"message_type": MESSAGE_TYPE, **fields}.items():
        value = message.get(name)
        if value is not None and type(value) is not type(missing):
            raise UndecodableMessage(f"its {name} is no {type(missing).__name__}")
        fields[name] = missing if value is None else value
    if fields.pop("message_type") != MESSAGE_TYPE:
        raise UndecodableMessage(f"its message_type is not {MESSAGE_TYPE}")
    return ListMessage(_checked(message["payload"]), raw=raw, **fields)


def _is_envelope(message: dict[str, Any]) -> bool:
    return isinstance(message.get("payload"), dict)


def _checked(payload: dict[str, Any]) -> dict[str, Any]:
    for name in ("model_name", "model_version"):
        if not (isinstance(payload.get(name), str) and payload[name]):
            raise UndecodableMessage(f"its payload has no {name}")
    return payload
