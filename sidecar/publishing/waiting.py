"""The submissions that wait in memory, in order, and which of them go together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from sidecar.publishing.submission import Submission

GROUP_EVENTS = 256
_GROUP_BYTES = 4 * 1024 * 1024

Line = OrderedDict[Submission, None]  # in order, and any of them can be taken out


class Waiting:
    """Those that arrived, behind those that are held: for another attempt, or until the spool is empty.

    None that may be spooled is ever held: the spool is where it waits.
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
        """One that was taken or removed is done."""
        self.events -= len(submission.events)
        self.bytes -= submission.size

    def hold(self, group: list[Submission]) -> None:
        """Before all others, in order."""
        _put_back(self._held, group)

    def isolate(self, group: list[Submission]) -> None:
        """Back to where they were taken from; and from there they go one by one."""
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
