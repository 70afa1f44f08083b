"""What a caller hands over and what it gets back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

from modelready.v1 import publisher_service_pb2 as pb
from sidecar.errors import PublishError, Unavailable
from sidecar.publishing.interfaces import Appended, Event

DURABILITIES: dict[str, pb.Durability] = {
    "spooled": pb.DURABILITY_SPOOLED,
    "primary": pb.DURABILITY_PRIMARY,
    "replicated": pb.DURABILITY_REPLICATED,
}


class Published(NamedTuple):
    """Where an acknowledged event is."""

    outcome: pb.Outcome
    entry_id: str = ""
    replicas: int = 0


SPOOLED = Published(pb.OUTCOME_SPOOLED)
Results = list[Published | PublishError]


def published(where: Appended, replicas: int) -> Published:
    """What a caller learns of an event that the queue has."""
    outcome = pb.OUTCOME_DUPLICATE if where.duplicate else pb.OUTCOME_STORED
    return Published(outcome, where.entry_id, replicas)


class Submission:
    """The events of one call or frame: they share a group, and a fate."""

    __slots__ = ("answer_by", "arrived", "durability", "error", "events", "future", "size")

    def __init__(self, events: Sequence[Event], durability: pb.Durability, answer_by: float) -> None:
        self.events = events
        self.durability = durability
        self.answer_by = answer_by
        self.arrived = time.monotonic()
        self.size = sum(len(event.data) for event in events)
        self.error: PublishError | None = None
        self.future: asyncio.Future[Results] = asyncio.get_running_loop().create_future()

    @property
    def may_be_spooled(self) -> bool:
        """Whether this task's disk is enough for the caller."""
        return self.durability == pb.DURABILITY_SPOOLED

    def resolve(self, results: Results) -> None:
        """Acknowledge. A caller that is gone has cancelled the future; its events are published all the same."""
        if not self.future.done():
            self.future.set_result(results)

    def note(self, error: PublishError) -> None:
        """Remember why the last attempt failed; that an earlier one may have succeeded is never forgotten."""
        if not (isinstance(self.error, Unavailable) and self.error.ambiguous):
            self.error = error

    def fail(self, error: PublishError) -> None:
        """Refuse, or say that the outcome is not known."""
        self.note(error)
        if not self.future.done():
            self.future.set_exception(self.error or error)
