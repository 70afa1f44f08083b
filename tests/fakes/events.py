"""Events to put into spools and queues, without the cost of making them complete."""

from __future__ import annotations

from modelready.v1.event_pb2 import ModelReadyToDeploy
from sidecar.publishing.interfaces import Event


def event(number: int, size: int = 450) -> Event:
    """The event of this number; its data are `size` bytes that tell it from others."""
    event_id = f"event-{number:09d}"
    data = (event_id.encode() * (size // len(event_id) + 1))[:size]
    return Event(event_id, ModelReadyToDeploy(event_id=event_id), data)


def events(first: int, end: int, size: int = 450) -> list[Event]:
    """The events of these numbers, in order."""
    return [event(number, size) for number in range(first, end)]
