"""What a caller submits and what it gets back."""

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
_MARGIN_SHARE, _MAX_MARGIN = 0.25, 0.25


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
    """The events of one call or frame: they share a group and an answer."""

    __slots__ = (
        "answer_by", "answered", "arrived", "durability", "error", "events", "future", "margin", "size", "spooling",
        "timer",
    )  # fmt: skip

    def __init__(self, events: Sequence[Event], durability: pb.Durability, seconds: float) -> None:
        """`seconds`: until the caller's deadline. A part of them, `margin`, is left for the way of the answer."""
        self.events = events
        self.durability = durability
        self.arrived = time.monotonic()
        self.margin = min(seconds * _MARGIN_SHARE, _MAX_MARGIN)
        self.answer_by = self.arrived + seconds - self.margin
        self.size = sum([len(event.data) for event in events])
        self.error: PublishError | None = None
        self.answered = False
        self.spooling = False
        """The disk was asked to keep it."""
        self.timer: asyncio.TimerHandle | None = None
        self.future: asyncio.Future[Results] = asyncio.get_running_loop().create_future()

    @property
    def may_be_spooled(self) -> bool:
        """Whether this task's disk is enough for the caller."""
        return self.durability == pb.DURABILITY_SPOOLED

    def acknowledge(self, results: Results) -> None:
        """Answer. A caller that is gone has cancelled the future; its events are published all the same."""
        self._end()
        if not self.future.done():
            self.future.set_result(results)

    def note(self, error: PublishError) -> PublishError:
        """Remember why the last attempt failed, and return it; that an earlier one may have succeeded outweighs it."""
        if not (isinstance(self.error, Unavailable) and self.error.ambiguous):
            self.error = error
        return self.error or error

    def fail(self, error: PublishError) -> None:
        """Refuse, or say that the outcome is not known."""
        self._end()
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # it counts as retrieved: the caller may have left

    def _end(self) -> None:
        self.answered = True
        if self.timer is not None:
            self.timer.cancel()
