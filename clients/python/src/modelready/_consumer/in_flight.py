"""Owns what a consumer has in flight: its entries, lane by lane, from their arrival until Redis knows their end.

Of a lane one entry is at the head, and the others are behind it in the stream's order. Workers take heads and report
how they ended. The loop adds entries, notes each attempt in Redis before it begins, and acknowledges. Workers may be
threads, so all of this is under one lock, and nothing here waits for Redis.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import NamedTuple

from modelready.v1.event_pb2 import ModelReadyToDeploy


class State(Enum):
    """Where an entry is."""

    QUEUED = auto()
    """Behind the head of its lane."""
    READY = auto()
    """A head that may begin."""
    QUARANTINED = auto()
    """A head that was begun before and did not end: its consumer may have died of it. They begin one at a time, each
    when the one before it has ended or has run for a claim."""
    BACKING_OFF = auto()
    """A head whose handler raised: it waits for its next attempt."""
    GRANTED = auto()
    """Its attempt is noted in Redis, and the next worker begins it."""
    RUNNING = auto()
    DETACHED = auto()
    """The user's loop went on without settling it: its lane goes on, and it may be settled later."""
    FINISHED = auto()
    """It was handled, and is not yet acknowledged."""


class Entry:
    """An entry of the stream that this consumer has in flight."""

    def __init__(self, entry_id: str, lane: bytes, event: ModelReadyToDeploy, attempts: int = 0) -> None:
        self.id = entry_id
        self.lane = lane
        self.event = event
        self.attempts = attempts
        """How many times it was begun in this group, the current time included."""
        self.is_suspect = attempts > 0
        """It was begun before by a consumer that died, or left."""
        self.is_alone = self.is_suspect
        """It is handled by itself, and not in one batch with others; each of its attempts is noted before it begins."""
        self.is_lost = False
        """Another consumer has it now."""
        self.began_at = 0.0
        """When it was first begun here (monotonic); 0 before."""
        self.state = State.QUEUED


class Failure(NamedTuple):
    """An entry that was not handled, and why; `entry` is None where it was never begun here."""

    entry_id: str
    lane: bytes
    entry: Entry | None
    reason: str
    detail: str
    attempts: int = 0


class InFlight:
    """The entries of one consumer."""

    def __init__(self, claim_seconds: float, wake: Callable[[], object], ready: Callable[[], object]) -> None:
        """`wake` wakes the loop after a change. `ready`, called with the lock held, wakes the workers."""
        self.lock = threading.RLock()
        self.entries: dict[str, Entry] = {}
        self.takes_batches = False
        """Workers take several at once, whose attempts are not noted before."""
        self.hungry = 0
        """How many workers wait for an entry."""
        self.running = 0
        self.stopping = False
        """No more is begun."""
        self.ended = False
        self.confirmed_at = 0.0
        """When the claim on all that is in flight was last known to be good (monotonic)."""
        self._good_for = 0.8 * claim_seconds
        self._trial_seconds = claim_seconds
        self._wake = wake
        self._ready_now = ready
        self._is_reported = False
        self._lanes: dict[bytes, deque[Entry]] = {}
        self._ended_lanes: dict[bytes, None] = {}
        self._ready: deque[Entry] = deque()
        self._granted: deque[Entry] = deque()
        self._quarantined: deque[Entry] = deque()
        self._on_trial: Entry | None = None
        self._trial_ends_at = 0.0
        self._backing_off: list[tuple[float, str, Entry]] = []
        self._finished: dict[str, Entry] = {}
        self._failures: list[Failure] = []

    # -- for workers

    def take(self, most: int = 1) -> list[Entry]:
        """Entries that begin now, `most` of them or fewer; none while the claim on them is in doubt."""
        with self.lock:
            taken: list[Entry] = []
            if self.stopping:
                return taken
            now = time.monotonic()
            if not self.is_doubtful(now):
                if self._granted:
                    taken = [self._granted.popleft()]
                elif self.takes_batches:
                    taken = self._take_batch(most)
            for entry in taken:
                entry.state = State.RUNNING
                entry.attempts += 1
                entry.began_at = entry.began_at or now
            self.running += len(taken)
            if not taken or (self.takes_batches and self._finished):
                self._report()
            return taken

    def done(self, *entries: Entry, report: bool = True) -> None:
        """They were handled. A worker that takes the next one at once need not wake the loop for it."""
        with self.lock:
            for entry in entries:
                self._leave_lane(entry)
                self._finish(entry)
                self._failures = [failure for failure in self._failures if failure.entry is not entry]
            if report or self.stopping:
                self._report()

    def failed(self, entry: Entry, detail: str) -> None:
        """Its handler raised; its lane waits. What was acknowledged before that is done."""
        with self.lock:
            if entry.state is State.FINISHED:
                return
            if entry.is_lost:
                self._leave_lane(entry)
            else:
                if entry.state is State.RUNNING:
                    self._withdraw(entry)
                    entry.state = State.BACKING_OFF
                self._failures.append(Failure(entry.id, entry.lane, entry, "HANDLER_FAILED", detail, entry.attempts))
            self._report()

    def put_back(self, entries: Iterable[Entry], *, alone: bool = False) -> None:
        """They were taken and not handled, which counts as no attempt; `alone`: next time each by itself."""
        with self.lock:
            entries = [entry for entry in entries if entry.state is State.RUNNING]
            for entry in entries:
                self._withdraw(entry)
                entry.attempts -= 1
                entry.is_alone = entry.is_alone or alone
                entry.state = State.QUEUED
            for entry in entries:
                if entry.is_lost:
                    self._leave_lane(entry)
            for lane in {entry.lane for entry in entries}:
                self._advance(lane)
            self._report()

    def detach(self, entry: Entry) -> None:
        """The user's loop goes on without having settled it."""
        with self.lock:
            if entry.state is State.RUNNING:
                self._leave_lane(entry)
                entry.state = State.DETACHED
                self._report()

    # -- for the loop

    @property
    def busy(self) -> int:
        """How many are about to begin or have begun."""
        with self.lock:
            return len(self._ready) + len(self._granted) + self.running

    def looked(self) -> None:
        """The loop looks: the next change wakes it again."""
        self._is_reported = False

    def is_doubtful(self, now: float) -> bool:
        """Whether others may have taken what is in flight, as after the process was frozen."""
        return bool(self.entries) and now > self.confirmed_at + self._good_for

    def confirm(self, asked_at: float) -> None:
        """The claim on all that is in flight was good at this time."""
        with self.lock:
            self.confirmed_at = asked_at
            self._ready_now()

    def add(self, entries: Iterable[Entry], begun: Iterable[str], asked_at: float) -> None:
        """Takes what Redis gave on a request made at `asked_at` (monotonic). Of those `begun` the attempt is noted."""
        with self.lock:
            if not self.entries:
                self.confirmed_at = asked_at
            added = [entry for entry in entries if entry.id not in self.entries]
            for entry in added:
                self.entries[entry.id] = entry
                self._lanes.setdefault(entry.lane, deque()).append(entry)
                self._advance(entry.lane)
            for entry_id in begun:
                head = self.entries.get(entry_id)
                if head is not None and head.state is State.READY and not self.takes_batches:
                    self.grant(head)
            self._ready_now()

    def skip(self, entry_id: str, lane: bytes) -> None:
        """An entry that is for another group: it is acknowledged and not handled."""
        with self.lock:
            self._finished[entry_id] = Entry(entry_id, lane, ModelReadyToDeploy())
            self._end_lane(lane)

    def give_up(self, failure: Failure) -> None:
        """An entry that is never begun here."""
        with self.lock:
            self._failures.append(failure)

    def failures(self) -> list[Failure]:
        """What failed and is not settled."""
        with self.lock:
            return list(self._failures)

    def finished(self, most: int) -> list[str]:
        """What was handled and is not acknowledged, `most` entries or fewer."""
        with self.lock:
            return [entry_id for entry_id, _ in zip(self._finished, range(most), strict=False)]

    def acknowledged(self, ids: Iterable[str]) -> None:
        """Redis has these acknowledgements."""
        with self.lock:
            for entry_id in ids:
                self._finished.pop(entry_id, None)
                self.entries.pop(entry_id, None)

    def ended_lanes(self, most: int) -> list[bytes]:
        """Lanes of which nothing is in flight here, and all but the first `most` are acknowledged: more may wait."""
        with self.lock:
            unknown = {entry.lane for entry in list(self._finished.values())[most:]}
            open_lanes = (lane for lane in self._ended_lanes if lane not in unknown)
            return [lane for lane, _ in zip(open_lanes, range(most), strict=False)]

    def end_lanes(self, lanes: Iterable[bytes]) -> None:
        """These lanes are this consumer's in Redis: those of which nothing is in flight here must go on."""
        with self.lock:
            for lane in lanes:
                self._end_lane(lane)

    def went_on(self, lanes: Iterable[bytes]) -> None:
        """Redis gave what it has of these lanes."""
        with self.lock:
            for lane in lanes:
                self._ended_lanes.pop(lane, None)

    def settled(self, failure: Failure, *, retry_at: float | None = None) -> None:
        """What follows from the failure is done: the entry waits for its next attempt, or is gone."""
        with self.lock:
            self._failures = [each for each in self._failures if each is not failure]
            entry = failure.entry
            if retry_at is not None and entry is not None:
                if entry.state is State.BACKING_OFF and not entry.is_lost:
                    heapq.heappush(self._backing_off, (retry_at, entry.id, entry))
                return
            if entry is not None:
                self._leave_lane(entry)
                self.entries.pop(entry.id, None)
            else:
                self._end_lane(failure.lane)

    def next_attempt_at(self) -> float | None:
        """When the next that backs off, or is in quarantine, is due (monotonic)."""
        with self.lock:
            times = [due for due, _, _ in self._backing_off[:1]]
            if self._quarantined:
                times.append(self._trial_ends_at if self._on_trial else 0.0)
            return min(times, default=None)

    @property
    def demand(self) -> int:
        """How many workers wait for an entry that is not on its way."""
        with self.lock:
            return 0 if self.stopping else max(0, self.hungry - len(self._granted))

    def to_begin(self, now: float) -> list[Entry]:
        """Those whose attempt is to be noted now, for the workers that wait."""
        with self.lock:
            most = self.demand
            found = [entry for due, _, entry in sorted(self._backing_off) if due <= now]
            if self._quarantined and (self._on_trial is None or self._trial_ends_at <= now):
                found.append(self._quarantined[0])
            found += [entry for entry in self._ready if entry.is_alone or not self.takes_batches]
            return found[:most]

    def grant(self, entry: Entry) -> None:
        """Its attempt is noted: it may begin."""
        with self.lock:
            if entry.state not in {State.READY, State.QUARANTINED, State.BACKING_OFF}:
                return
            was_suspect = entry.state is State.QUARANTINED
            self._withdraw(entry)
            if was_suspect:
                self._on_trial = entry
                self._trial_ends_at = time.monotonic() + self._trial_seconds
            entry.state = State.GRANTED
            self._granted.append(entry)
            self._ready_now()

    def lose(self, entry: Entry) -> None:
        """Another consumer has it: it is not begun, and not acknowledged."""
        with self.lock:
            if self.entries.pop(entry.id, None) is None:
                return
            entry.is_lost = True
            self._finished.pop(entry.id, None)
            self._failures = [failure for failure in self._failures if failure.entry is not entry]
            if entry.state is not State.RUNNING:
                self._leave_lane(entry)

    def drop(self) -> dict[str, int | str]:
        """Forgets all that is not begun. Returns how many times each entry was begun; "" for one that is kept."""
        with self.lock:
            known: dict[str, int | str] = {}
            for entry in list(self.entries.values()):
                if entry.state in {State.QUEUED, State.READY, State.QUARANTINED, State.GRANTED}:
                    known[entry.id] = entry.attempts
                    del self.entries[entry.id]
                    self._leave_lane(entry, advance=False)
                else:
                    known[entry.id] = ""
            known |= dict.fromkeys(self._finished, "")
            known |= {failure.entry_id: "" for failure in self._failures}
            return known

    def release(self) -> dict[str, int | str]:
        """How many times each entry was begun that is not handled, for a leave."""
        with self.lock:
            return {entry.id: entry.attempts for entry in self.entries.values() if entry.id not in self._finished}

    def stop(self) -> None:
        """No more is begun."""
        with self.lock:
            self.stopping = True
            self._ready_now()

    def end(self) -> None:
        """The loop has ended: nothing is begun or settled any more."""
        with self.lock:
            self.stopping = self.ended = True
            self._ready_now()

    # -- with the lock held

    def _report(self) -> None:
        if not self._is_reported:
            self._is_reported = True
            self._wake()

    def _take_batch(self, most: int) -> list[Entry]:
        taken: list[Entry] = []
        for head in [entry for entry in self._ready if not entry.is_alone]:
            if len(taken) == most:
                break
            self._ready.remove(head)
            taken.append(head)
            for follower in list(self._lanes[head.lane])[1:]:  # they go with their head
                if len(taken) == most or follower.is_alone:
                    break
                taken.append(follower)
        return taken

    def _finish(self, entry: Entry) -> None:
        entry.state = State.FINISHED
        if not entry.is_lost:
            self._finished[entry.id] = entry

    def _withdraw(self, entry: Entry) -> None:
        """Takes it out of where its state has it."""
        if entry is self._on_trial:
            self._on_trial = None
        if entry.state is State.RUNNING:
            self.running -= 1
        elif entry.state is State.READY:
            self._ready.remove(entry)
        elif entry.state is State.GRANTED:
            self._granted.remove(entry)
        elif entry.state is State.QUARANTINED:
            self._quarantined.remove(entry)
        elif entry.state is State.BACKING_OFF:
            self._backing_off = [each for each in self._backing_off if each[2] is not entry]
            heapq.heapify(self._backing_off)

    def _leave_lane(self, entry: Entry, *, advance: bool = True) -> None:
        """It is no longer in its lane; what is behind it may come to the head."""
        self._withdraw(entry)
        lane = self._lanes.get(entry.lane)
        if lane is None or entry not in lane:
            return
        lane.remove(entry)
        if not lane:
            del self._lanes[entry.lane]
            self._ended_lanes[entry.lane] = None
        elif advance:
            self._advance(entry.lane)

    def _end_lane(self, lane: bytes) -> None:
        if lane not in self._lanes:
            self._ended_lanes[lane] = None

    def _advance(self, lane: bytes) -> None:
        """Moves the first of the lane to the head, unless it is there."""
        entries = self._lanes.get(lane)
        if not entries or entries[0].state is not State.QUEUED:
            return
        self._ended_lanes.pop(lane, None)
        head = entries[0]
        if head.is_suspect:
            head.state = State.QUARANTINED
            self._quarantined.append(head)
        else:
            head.state = State.READY
            self._ready.append(head)
        self._ready_now()
