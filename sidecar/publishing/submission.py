"""What a caller submits and what it gets back; the line in which it waits, and which of it goes together."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from modelready.v1 import publisher_service_pb2 as pb
from sidecar.errors import RequestError, Unavailable
from sidecar.publishing.interfaces import Appended, Event

DURABILITIES: dict[str, pb.Durability] = {
    "spooled": pb.DURABILITY_SPOOLED,
    "primary": pb.DURABILITY_PRIMARY,
    "replicated": pb.DURABILITY_REPLICATED,
}
GROUP_EVENTS = 256
_GROUP_BYTES = 4 * 1024 * 1024
_MARGIN_SHARE, _MAX_MARGIN = 0.25, 0.25


class Published(NamedTuple):
    """Where an acknowledged event is."""

    outcome: pb.Outcome
    entry_id: str = ""
    replicas: int = 0


SPOOLED = Published(pb.OUTCOME_SPOOLED)
Results = list[Published | RequestError]


def published(where: Appended, replicas: int) -> Published:
    """What a caller learns of an event that the queue has."""
    outcome = pb.OUTCOME_DUPLICATE if where.duplicate else pb.OUTCOME_STORED
    return Published(outcome, where.entry_id, replicas)


class Submission:
    """The events of one call or frame: they share a group and an answer."""

    __slots__ = (
        "answer_by", "answered", "arrived", "durability", "error", "events", "future", "kept", "margin", "size",
        "spooling", "timer",
    )  # fmt: skip

    def __init__(
        self, events: Sequence[Event], durability: pb.Durability, seconds: float, *, kept: bool = False
    ) -> None:
        """`seconds`: until the caller's deadline. A part of them, `margin`, is left for the way of the answer.

        `kept`: see Publisher.submit.
        """
        self.events = events
        self.durability = durability
        self.kept = kept
        self.arrived = time.monotonic()
        self.margin = min(seconds * _MARGIN_SHARE, _MAX_MARGIN)
        self.answer_by = self.arrived + seconds - self.margin
        self.size = sum([len(event.data) for event in events])
        self.error: RequestError | None = None
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
        """Answer. If the caller has left, the future is cancelled; its events are published nevertheless."""
        self._end()
        if not self.future.done():
            self.future.set_result(results)

    def note(self, error: RequestError) -> RequestError:
        """Remember why the last attempt failed, and return it; that an earlier one may have succeeded outweighs it."""
        if not (isinstance(self.error, Unavailable) and self.error.ambiguous):
            self.error = error
        return self.error or error

    def fail(self, error: RequestError) -> None:
        """Refuse, or say that the outcome is not known."""
        self._end()
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # it counts as retrieved: the caller may have left

    def _end(self) -> None:
        self.answered = True
        if self.timer is not None:
            self.timer.cancel()


Line = OrderedDict[Submission, None]  # in order, and any of them can be taken out


class Waiting:
    """Submissions that arrived, behind those that are held for another attempt or until the spool is empty.

    One that may be spooled is never held: it waits in the spool.
    """

    def __init__(self) -> None:
        self._held: Line = OrderedDict()
        self._arrived: Line = OrderedDict()
        self._isolate_next = 0  # how many at the front go alone
        self.events = 0
        """How many events wait, or are in a group that was taken and is not released."""
        self.bytes = 0
        """Their size."""

    def __iter__(self) -> Iterator[Submission]:
        yield from self._held
        yield from self._arrived

    def __len__(self) -> int:
        return len(self._held) + len(self._arrived)

    @property
    def arrived(self) -> int:
        """How many are not held."""
        return len(self._arrived)

    def add(self, submission: Submission) -> None:
        """Behind all others."""
        self._arrived[submission] = None
        self.events += len(submission.events)
        self.bytes += submission.size

    def remove(self, submission: Submission) -> bool:
        """Whether it was there."""
        return any(line.pop(submission, self) is None for line in (self._held, self._arrived))

    def release(self, submission: Submission) -> None:
        """Count one no longer: it was taken or removed, and is done."""
        self.events -= len(submission.events)
        self.bytes -= submission.size

    def hold(self, group: list[Submission]) -> None:
        """Put these before all others, in order."""
        _put_back(self._held, group)

    def isolate(self, group: list[Submission]) -> None:
        """Put these back to where they were taken from; from there they go one by one."""
        self._isolate_next = len(group)
        _put_back(self._held or self._arrived, group)

    def next_to_append(self, may: Callable[[Submission], bool], *, after_failure: bool) -> list[Submission]:
        """The next group for Redis. `after_failure`: only if one is there that need not wait for Redis."""
        group: list[Submission] = []
        if after_failure:
            self._hold_leading()
            if not self._arrived:
                return group
        most = 1 if self._isolate_next else GROUP_EVENTS
        take(self._held, group, may, most)
        if not self._held:
            take(self._arrived, group, may, most)
        self._isolate_next = max(self._isolate_next - 1, 0)
        return group

    def next_to_spool(self, allows: Callable[[int, int], bool]) -> list[Submission]:
        """The next group for the spool, as large as `allows` says; those that may not be spooled are held."""
        self._isolate_next = events = size = 0

        def may(submission: Submission) -> bool:
            nonlocal events, size
            events, size = events + len(submission.events), size + submission.size
            return submission.may_be_spooled and allows(events, size)

        group: list[Submission] = []
        self._hold_leading()
        take(self._arrived, group, may)
        return group

    def _hold_leading(self) -> None:
        """Let those at the front that may not be spooled make room for those that may."""
        while self._arrived and not (first := next(iter(self._arrived))).may_be_spooled:
            self._held[first] = None
            self._arrived.popitem(last=False)


def take(source: Line, group: list[Submission], may: Callable[[Submission], bool], most: int = GROUP_EVENTS) -> None:
    """Move submissions from the front of `source` to the group while they may go and it has room, for one at least."""
    events, size = sum([len(s.events) for s in group]), sum([s.size for s in group])
    while source:
        first = next(iter(source))
        events, size = events + len(first.events), size + first.size
        if (group and (events > most or size > _GROUP_BYTES)) or not may(first):
            return
        source.popitem(last=False)
        group.append(first)


def _put_back(line: Line, group: list[Submission]) -> None:
    for submission in reversed(group):
        line[submission] = None
        line.move_to_end(submission, last=False)
