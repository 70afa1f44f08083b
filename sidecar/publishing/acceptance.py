"""Accepting an event: the rules of the contract, then what the caller left empty.

The rules stand in the .proto as protovalidate annotations. What stands here are the few that they cannot say.
"""

from __future__ import annotations

import os
import re
import time
import weakref
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from modelready.entry import encode_data
from modelready.ids import uuid7
from modelready.v1.event_pb2 import ModelReadyToDeploy
from modelready.v1.publisher_service_pb2 import PublishBatchRequest, PublishStreamRequest
from modelready.violations import MAX_EVENT_BYTES, broken_rules, is_sensible
from sidecar.errors import InvalidEvent, Violation
from sidecar.publishing.interfaces import Event, Tracing

if TYPE_CHECKING:
    import protovalidate

_SPARE_DESCRIPTORS = 16  # the import opens one at a time; other threads may take some meanwhile
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_CORRELATION_ID = re.compile(r"[ -~]{1,256}")

Metadata = Callable[[], Mapping[str, str]]
Request = PublishBatchRequest | PublishStreamRequest


class Acceptance:
    """Turns a caller's message into an Event."""

    def __init__(self, source: str, tracing: Tracing | None = None) -> None:
        """`source`: SIDECAR_SOURCE, for events that name none. `tracing`: None where it is off."""
        self._source = source
        self._tracing = tracing
        # An import that finds no free descriptor leaves half of its modules, and fails each time after. It gets these.
        self._spare = [os.open(os.devnull, os.O_RDONLY) for _ in range(_SPARE_DESCRIPTORS)]
        weakref.finalize(self, _close, self._spare)

    @cached_property
    def _validator(self) -> protovalidate.Validator:
        """Loaded for the first event, which takes 0.1 s once: an idle sidecar has 61 MB without it, 76 with it."""
        _close(self._spare)
        import protovalidate  # noqa: PLC0415

        return protovalidate.Validator()

    def accept(self, message: ModelReadyToDeploy, metadata: Metadata, path: str) -> Event:
        """The event, valid and complete. `path`: where it stands in the request, for errors. Raises InvalidEvent."""
        if self._breaks_a_rule(message):
            raise InvalidEvent(broken_rules(self._validator, message, path))
        return self._complete(message, metadata, path)

    def accept_all(self, request: Request, metadata: Metadata) -> list[Event | InvalidEvent]:
        """The events of a batch or a frame, in order; in the place of one that is not valid, the error."""
        # Judged as a whole, which costs an eighth less. Only if that fails, one by one.
        accept = self.accept if self._breaks_a_rule(request) else self._complete
        accepted: list[Event | InvalidEvent] = []
        for index, message in enumerate(request.events):
            try:
                accepted.append(accept(message, metadata, f"events[{index}]"))
            except InvalidEvent as error:
                error.__traceback__ = None  # its frames hold the request
                accepted.append(error)
        return accepted

    def _breaks_a_rule(self, message: Message) -> bool:
        return bool(self._validator.collect_violations(message, fail_fast=True))

    def _complete(self, message: ModelReadyToDeploy, metadata: Metadata, path: str) -> Event:
        """The event with what its caller left empty. Raises InvalidEvent where only protovalidate finds it valid."""
        if not message.HasField("occurred_at"):
            message.occurred_at.FromNanoseconds(time.time_ns())
        elif not is_sensible(message.occurred_at):
            raise InvalidEvent(broken_rules(self._validator, message, path))
        if not message.event_id:
            message.event_id = uuid7()
        if not message.source:
            message.source = self._source
        if not (message.correlation_id and message.traceparent):
            _trace(message, metadata())
        # Before the event is serialized, since the spool keeps those bytes (docs/adr/0017).
        if self._tracing is not None:
            self._tracing.begin(message)
        data = encode_data(message, "protobuf")
        if len(data) > MAX_EVENT_BYTES:
            raise InvalidEvent([Violation(path, f"is {len(data)} bytes, at most {MAX_EVENT_BYTES} are allowed")])
        return Event(message.event_id, message, data)


def _trace(message: ModelReadyToDeploy, sent: Mapping[str, str]) -> None:
    """Take what the event lacks from the call's metadata, a hint: where it breaks the rules, it is left out."""
    traceparent = sent.get("traceparent")
    if traceparent and not message.traceparent and _TRACEPARENT.fullmatch(traceparent):
        message.traceparent = traceparent
    if not message.correlation_id:
        correlation_id = sent.get("x-correlation-id", "")
        message.correlation_id = correlation_id if _CORRELATION_ID.fullmatch(correlation_id) else uuid7()


def _close(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())
