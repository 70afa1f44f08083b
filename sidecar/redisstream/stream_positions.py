"""How many entries of a stream stand behind an id: counted once, and then remembered.

The position of an id is the number of entries that were ever appended up to it, so behind it stand all that were ever
appended less its position. Redis knows the positions of the first and the last entry, and each look adds these two to
what is remembered. Any other is counted from the nearest one that is known.

A position stays right while entries are appended, and while the stream is trimmed before it. Where an entry behind it
was deleted it is forgotten. Redis 6.2 does not count what was appended or deleted: there all is forgotten whenever the
first entry is another, and after ten minutes.
"""

from __future__ import annotations

import time
from bisect import bisect, insort
from collections.abc import Sequence
from typing import NamedTuple

from sidecar.publishing.entry_ids import LAST

_MAX_KNOWN = 2000
_KEEP_SECONDS = 6 * 3600.0  # a failover within one period may have lost entries unseen
_KEEP_UNCOUNTED_SECONDS = 600.0


class Snapshot(NamedTuple):
    """The stream at one moment. Ids are numbers, see publishing.entry_ids."""

    length: int
    first: int
    """The oldest entry; where there is none, behind `last`."""
    last: int
    """The highest id that was ever given."""
    appended: int
    """Entries ever appended; `length` on Redis 6.2, which does not know."""
    deleted: int
    """The highest id that was removed by XDEL; on Redis 6.2 the highest that can be."""

    @property
    def removed(self) -> int:
        """Entries ever removed."""
        return self.appended - self.length


class Gap(NamedTuple):
    """What is to be counted: from an entry whose position is known to the one that is wanted."""

    known: int
    wanted: int

    @property
    def backward(self) -> bool:
        """Whether the known one is the later."""
        return self.known > self.wanted


class Positions:
    """The positions of one stream that are known."""

    def __init__(self) -> None:
        self.snapshot = Snapshot(0, 1, 0, 0, 0)
        self._ids: list[int] = []
        self._at: dict[int, int] = {}
        self._unproven: dict[int, int] = {}
        """Learned since the last snapshot, and the lowest id that each was counted from."""
        self._since = time.monotonic()

    def forget(self) -> None:
        """Begin again: Redis was away, and may have lost entries."""
        self._keep([])
        self._since = time.monotonic()

    def known(self) -> Sequence[tuple[int, int, int]]:
        """Ids, their positions, and the lowest id that each was counted from since the last snapshot."""
        return [(entry, self._at[entry], self._unproven.get(entry, entry)) for entry in self._ids]

    def load(self, snapshot: Snapshot, known: Sequence[tuple[int, int, int]]) -> None:
        """Go on from what another sidecar knew at that snapshot, if that is not older than ours."""
        if snapshot.appended >= self.snapshot.appended and snapshot.last >= self.snapshot.last:
            self.forget()
            self.snapshot = snapshot
            self._ids = [entry for entry, _, _ in known]
            self._at = {entry: position for entry, position, _ in known}
            self._unproven = {entry: low for entry, _, low in known}

    def observe(self, now: Snapshot) -> None:
        """Take the stream as it is now, and forget what that makes doubtful."""
        was, self.snapshot = self.snapshot, now
        counted = now.deleted < LAST
        if time.monotonic() - self._since > (_KEEP_SECONDS if counted else _KEEP_UNCOUNTED_SECONDS):
            self.forget()
        trimmed, removed = now.first != was.first, now.removed != was.removed
        # Made again, set back, or its counters set: none of these is what was known.
        other = now.last < was.last or now.appended < was.appended or now.first < was.first
        if other or (counted and trimmed != removed and now.deleted < now.first):
            self.forget()
        elif trimmed or removed:
            low = max(now.first, now.deleted)
            self._keep([entry for entry in self._ids if min(entry, self._unproven.get(entry, entry)) >= low])
        self._unproven.clear()
        if len(self._ids) > _MAX_KNOWN:
            self._keep(self._ids[::2])  # where one is missed, little is to be counted
        if now.length:
            self._add(now.first, now.removed + 1)
            self._add(now.last, now.appended)

    def behind(self, entry: int, lag: int | None = None) -> int:
        """How many entries stand behind this id; where that is not known, `lag` if it is possible, else by time."""
        now = self.snapshot
        if not now.length or entry >= now.last:
            return 0
        if entry < now.first:
            return now.length
        if entry in self._at:
            return now.appended - self._at[entry]
        low, high = self._around(entry)
        fewest, most = now.appended - self._at[high], now.appended - self._at[low]
        if lag is not None and fewest <= lag <= most:
            return lag
        return round(fewest + (most - fewest) * (high - entry) / (high - low))

    def gap(self, entry: int) -> Gap | None:
        """What to count next, to know this one exactly; None where nothing is left to count."""
        now = self.snapshot
        if not now.length or not now.first <= entry < now.last or entry in self._at:
            return None
        low, high = self._around(entry)
        estimate = now.appended - self.behind(entry)
        return Gap(low if estimate - self._at[low] < self._at[high] - estimate else high, entry)

    def cost(self, entry: int) -> int:
        """About how many entries are to be counted to know this one exactly."""
        gap = self.gap(entry)
        return 0 if gap is None else abs(self.behind(gap.known) - self.behind(entry))

    def learn(self, gap: Gap, found: int, reached: int) -> None:
        """`found` entries stand from behind the gap's earlier end, and were counted up to `reached`, both included.

        `reached` is the wanted one where all were counted. Counted backward, the later end counts and the earlier not.
        """
        position = self._at[gap.known]
        if not gap.backward:
            position += found
        else:
            position -= found - (reached != gap.wanted)
        low = min(reached, gap.known)
        self._unproven[reached] = min(low, self._unproven.get(gap.known, low))
        self._add(reached, position)

    def _around(self, entry: int) -> tuple[int, int]:
        at = bisect(self._ids, entry)
        return self._ids[at - 1], self._ids[at]

    def _add(self, entry: int, position: int) -> None:
        if entry not in self._at:
            insort(self._ids, entry)
        self._at[entry] = position

    def _keep(self, ids: list[int]) -> None:
        self._ids = ids
        self._at = {entry: self._at[entry] for entry in ids}
