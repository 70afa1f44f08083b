"""The sidecar's part in a caller's trace: a span an event. `sidecar/tracing.py` records it, where tracing is on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from modelready.v1.event_pb2 import ModelReadyToDeploy
from sidecar.errors import PublishError
from sidecar.publishing.interfaces import Appended, Event
from sidecar.publishing.submission import Published


class Span(Protocol):
    """What was recorded of one event so far."""

    def end(self, result: Published | PublishError) -> None:
        """Record what became of it."""


class Tracing(Protocol):
    """Records spans. No method waits, and none raises."""

    def begin(self, message: ModelReadyToDeploy) -> Span:
        """Begin the span of an event that is being accepted, as a child of its `traceparent`.

        From here on `traceparent` is the span's own: what the entry will have, whatever way it takes to the queue. One
        that says "not sampled" stays as it is, and nothing is recorded.
        """

    def forwarded(self, message: ModelReadyToDeploy, spooled_ms: int, place: Appended) -> None:
        """Record that an event left the spool for the queue, as a child of its `traceparent`."""


def end(events: Sequence[Event], results: Sequence[Published | PublishError]) -> None:
    """End the spans of one call's events. All of them have one, or none has."""
    if events[0].span is None:
        return
    for event, result in zip(events, results, strict=True):
        if event.span is not None:
            event.span.end(result)
