"""What a consumer has in hand: its entries, in lanes, from the moment it got them until Redis knows their end.

A lane is a model: of its entries one is at the head, and the others wait behind it, in the stream's order. Workers take
heads that are ready and say how they ended; the event loop, in the core, puts entries in and carries the ends to Redis.
The workers may be threads, so that all of this is under one lock, and nothing here waits for Redis.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from enum import Enum, auto
from typing import NamedTuple

from modelready.v1.event_pb2 import ModelReadyToDeploy

_QUICK_SECONDS = 0.001


class State(Enum):
    """Where an entry is."""

    BEHIND = auto()
    """It waits behind the head of its lane."""
    STALLED = auto()
    """It is a head; another consumer has an earlier entry of the model."""
    SUSPECT = auto()
    """It is a head; its last consumer may have died of it: its attempt is noted before it begins."""
    RESTING = auto()
    """It is a head; its handler raised, and it waits for the next attempt."""
    READY = auto()
    RUNNING = auto()
    LOOSE = auto()
    """Who took it went on without settling it: its lane is free, and it may be settled later."""
    SETTLED = auto()
    """It only waits for Redis to know."""


def order(entry_id: str) -> tuple[int, int]:
    """What ids sort by."""
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number)


class Entry:
    """An entry of the stream in hand. Most are new, and are what the class says."""

    state = State.BEHIND
    attempts = 1
    """The deliveries that Redis has noted."""
    began_now = False
    """Whether the last of those attempts has begun."""
    alone = False
    """Whether it is handled by itself, and not in one batch with others."""
    ahead: Sequence[str] = ()
    """Earlier entries of the model that other consumers have in hand."""
    began_at = 0.0
    """When it was first begun here (monotonic); 0 before."""
    is_lost = False
    """Another consumer has it now."""
    trouble = ""
    """What its handler raised."""

    def __init__(self, entry_id: str, event: ModelReadyToDeploy) -> None:
        self.id = entry_id
        self.event = event
        self.model: str = event.model.name

    def suspect(self, attempts: int) -> None:
        """It comes from another consumer, which may have died of it."""
        self.attempts = attempts
        self.began_now = self.alone = True


class Failure(NamedTuple):
    """An entry that was not handled, and why; `final` where no further attempt may be made."""

    entry_id: str
    entry: Entry | None
    reason: str
    detail: str
    final: bool
    attempts: int = 0


class Hand:
    """The entries of one consumer."""

    def __init__(self, claim_seconds: float, wake: Callable[[], object], ready: Callable[[], object]) -> None:
        """`wake` tells the core that something ended; `ready`, with the lock held, the workers that there is work."""
        self.lock = threading.RLock()
        self.entries: dict[str, Entry] = {}
        self.running = 0
        self.stopping = False
        """No more is begun."""
        self.ended = False
        self.confirmed_at = 0.0
        """When the claim on all that is in hand was last known to be good (monotonic)."""
        self.finished: deque[Entry] = deque()
        """What workers have handled, in their order; what follows from that is drawn later, in one go."""
        self._good_for = 0.8 * claim_seconds
        self._wake = wake
        self._ready_now = ready
        self.is_quick = False
        """Whether the last handler took less than a millisecond an event."""
        self._is_told = False
        self._taken_at = 0.0
        self._heads: dict[str, Entry] = {}
        self._behind: dict[str, deque[Entry]] = {}
        self._ready: deque[Entry] = deque()
        self._suspects: deque[Entry] = deque()
        self._on_trial: Entry | None = None
        self._resting: list[tuple[float, str, Entry]] = []
        self._done: list[str] = []
        self._failures: list[Failure] = []
        self.stalled: list[Entry] = []

    # -- for workers

    def take(self, most: int = 1) -> list[Entry]:
        """Entries to begin now, `most` of them or fewer; none while the claim on them is in doubt."""
        taken: list[Entry] = []
        with self.lock:
            if not self._ready or self.stopping:
                return taken
            if self.is_doubtful(time.monotonic()):
                self._tell()
                return taken
            while self._ready and len(taken) < most:
                if taken and self._ready[0].alone:
                    break
                entry = self._ready.popleft()
                taken.append(entry)
                if entry.alone:
                    break
                if most > 1 and entry.model in self._behind:
                    self._take_followers(entry.model, taken, most)
            for entry in taken:
                entry.state = State.RUNNING
            self.running += len(taken)
        return taken

    def begin(self, entries: Iterable[Entry]) -> None:
        """All of them begin now."""
        now = time.monotonic()
        for entry in entries:
            entry.began_now = True
            entry.began_at = entry.began_at or now

    def each(self, entries: list[Entry]) -> Generator[Entry, None, None]:
        """Each of those taken, when it may begin; who handled it appends it to `finished`, or sets its `trouble`.

        What may not begin any more is put back.
        """
        at_first = now = time.monotonic()
        left = deque(entries)
        try:
            while left and not self.stopping and now < self.confirmed_at + self._good_for:
                entry = left.popleft()
                if entry.is_lost:
                    self.finished.append(entry)
                    continue
                entry.began_now = True
                if not entry.began_at:
                    entry.began_at = now
                yield entry
                if entry.trouble:
                    left = self._break_off(entry, left)
                began, now = now, time.monotonic()
                if now - began > _QUICK_SECONDS:  # quick ones do not wake the core each: it costs more than they do
                    self._tell()
        finally:
            with self.lock:
                self.is_quick = now - at_first < _QUICK_SECONDS * len(entries)
                self._settle()
                if running := [entry for entry in entries if entry.state is State.RUNNING]:
                    self._put_back(running)
            self._tell()  # without the lock: it gives the interpreter to the core's thread, which wants the lock

    def done(self, *entries: Entry) -> None:
        """They were handled."""
        with self.lock:
            self.finished.extend(entries)
            self._settle()
            if len(entries) > 1:
                self.is_quick = time.monotonic() - entries[0].began_at < _QUICK_SECONDS * len(entries)
        self._tell()

    def failed(self, entry: Entry, detail: str) -> None:
        """Its handler raised; its lane waits."""
        with self.lock:
            if entry.is_lost:
                self._left(entry)
                entry.state = State.SETTLED
            else:
                self._failures.append(Failure(entry.id, entry, "HANDLER_FAILED", detail, final=False))
                if entry.state is State.RUNNING:
                    self.running -= 1
                    entry.state = State.RESTING
                if entry is self._on_trial:
                    self._on_trial = None
            self._tell()

    def scatter(self, entries: list[Entry]) -> None:
        """The batch of these failed: each is handled again, by itself, and the batch is no attempt."""
        with self.lock:
            for entry in entries:
                entry.alone = True
            self._put_back(entries)
            self._tell()

    def put_back(self, entries: list[Entry]) -> None:
        """They were taken and are not handled, which counts as no attempt."""
        with self.lock:
            self._put_back(entries)

    def let_go(self, entry: Entry) -> None:
        """A loop by hand goes on without having settled it."""
        with self.lock:
            if entry.state is State.RUNNING:
                self._left(entry)
                entry.state = State.LOOSE
                self._tell()

    # -- for the core

    @property
    def busy(self) -> int:
        """How many are ready or running."""
        with self.lock:
            self._settle()
            return len(self._ready) + self.running

    def told(self) -> None:
        """The core looks: the next end wakes it again."""
        self._is_told = False

    def add(self, entries: Iterable[Entry], asked_at: float, *, in_order: bool = True) -> None:
        """Puts entries in that Redis gave on a request made at `asked_at` (monotonic); those known already stay.

        `in_order`: they are behind all that is in hand.
        """
        with self.lock:
            self.confirmed_at = min(asked_at, self.confirmed_at) if self.entries else asked_at
            for entry in entries:
                if entry.id not in self.entries:
                    self.entries[entry.id] = entry
                    if entry.model not in self._heads:
                        self._place(entry)
                    elif entry.began_now or not in_order:
                        self._insert(entry)
                    else:
                        self._behind.setdefault(entry.model, deque()).append(entry)
            self._ready_now()

    def skip(self, entry_id: str) -> None:
        """An entry that is for another group: it is acknowledged and not handled."""
        with self.lock:
            self._done.append(entry_id)

    def give_up(self, failure: Failure) -> None:
        """An entry that is never begun here."""
        with self.lock:
            self._failures.append(failure)

    def handled(self) -> list[str]:
        """What was handled and Redis does not know of."""
        with self.lock:
            self._settle()
            return list(self._done)

    @property
    def has_failures(self) -> bool:
        """Whether something failed and is not carried to Redis."""
        return bool(self._failures)

    def failures(self) -> list[Failure]:
        """What failed and is not carried to Redis."""
        with self.lock:
            return list(self._failures)

    def acknowledged(self, ids: list[str]) -> None:
        """Redis knows that these were handled."""
        with self.lock:
            known = set(ids)
            self._done = [entry_id for entry_id in self._done if entry_id not in known]
            for entry_id in ids:
                self.entries.pop(entry_id, None)

    def carried(self, failure: Failure, *, rest_until: float | None = None) -> None:
        """The failure is dealt with: the entry rests, or is gone."""
        with self.lock:
            self._failures = [each for each in self._failures if each is not failure]
            entry = failure.entry
            if entry is None or entry.is_lost:
                return
            if rest_until is None:
                del self.entries[entry.id]
                self._left(entry)
            else:
                entry.state = State.RESTING
                heapq.heappush(self._resting, (rest_until, entry.id, entry))

    def next_attempt_at(self) -> float | None:
        """When the first of the resting is due (monotonic)."""
        return self._resting[0][0] if self._resting else None

    def to_allow(self, now: float) -> list[Entry]:
        """Those whose next attempt is to be noted now: the rested, and of the suspects one at a time."""
        with self.lock:
            if self.stopping:
                return []
            found = [entry for due, _, entry in self._resting if due <= now]
            if self._on_trial is None and self._suspects:
                found.append(self._suspects[0])
            return found

    def allow(self, entry: Entry) -> None:
        """Its attempt is noted: it may begin."""
        with self.lock:
            if entry.state is State.SUSPECT:
                self._suspects.remove(entry)
                self._on_trial = entry
            elif entry.state is State.RESTING:
                self._forget_rest(entry)
            else:
                return
            entry.attempts += 1
            entry.began_now = False
            entry.state = State.READY
            self._ready.append(entry)
            self._ready_now()

    def confirm(self, asked_at: float) -> None:
        """The claim on all that is in hand was extended at this time."""
        with self.lock:
            self.confirmed_at = asked_at
            self._ready_now()

    def lose(self, entry: Entry) -> None:
        """Another consumer has it: it is not begun, and not acknowledged."""
        with self.lock:
            if self.entries.pop(entry.id, None) is None:
                return
            entry.is_lost = True
            if entry.state is State.RUNNING:
                return
            if entry.state is State.SETTLED:
                self._done.remove(entry.id)
                return
            if entry.state is State.BEHIND:
                self._behind[entry.model].remove(entry)
                return
            if entry.state is State.READY:
                self._ready.remove(entry)
            elif entry.state is State.SUSPECT:
                self._suspects.remove(entry)
            elif entry.state is State.STALLED:
                self.stalled.remove(entry)
            elif entry.state is State.RESTING:
                self._forget_rest(entry)
                self._failures = [failure for failure in self._failures if failure.entry is not entry]
            self._left(entry)
            self._ready_now()

    def unstall(self, entry: Entry) -> None:
        """Nothing is ahead of it any more."""
        with self.lock:
            if entry.state is State.STALLED and not entry.ahead:
                self.stalled.remove(entry)
                self._place(entry)
                self._ready_now()

    def stop(self) -> None:
        """No more is begun."""
        with self.lock:
            self.stopping = True
            self._ready_now()

    def end(self) -> None:
        """Nothing comes and nothing goes any more."""
        with self.lock:
            self.stopping = self.ended = True
            self._ready_now()

    # -- lanes; with the lock held

    def is_doubtful(self, now: float) -> bool:
        """Whether others may have taken over what is in hand, as after the process was frozen."""
        return now > self.confirmed_at + self._good_for

    def _settle(self) -> None:
        while self.finished:
            entry = self.finished.popleft()
            state = entry.state
            if state is not State.SETTLED:
                self.running -= state is State.RUNNING
                if entry is self._on_trial:
                    self._on_trial = None
                if self._heads.get(entry.model) is entry:
                    self._advance(entry)
                entry.state = State.SETTLED
                if not entry.is_lost:
                    self._done.append(entry.id)

    def _take_followers(self, model: str, taken: list[Entry], most: int) -> None:
        """Those behind a head go with it; its lane waits for the last of them."""
        waiting = self._behind[model]
        while waiting and len(taken) < most and not (waiting[0].alone or waiting[0].ahead):
            self._heads[model] = waiting.popleft()
            taken.append(self._heads[model])

    def _put_back(self, entries: list[Entry]) -> None:
        self.running -= len(entries)
        for entry in entries:
            entry.began_now = False
            entry.trouble = ""
            if entry is self._on_trial:
                self._on_trial = None
            if self._heads.get(entry.model) is entry:
                del self._heads[entry.model]
        for entry in entries:
            if not entry.is_lost:
                self._insert(entry)
        for model in {entry.model for entry in entries} - self._heads.keys():  # all of its were lost
            if waiting := self._behind.get(model):
                self._place(waiting.popleft())
        self._ready_now()

    def _break_off(self, entry: Entry, left: deque[Entry]) -> deque[Entry]:
        """It failed: its followers wait behind it. Returns the others."""
        detail, entry.trouble = entry.trouble, ""
        with self.lock:
            followers = [each for each in left if each.model == entry.model and not each.is_lost]
            if not entry.is_lost:
                self._heads[entry.model] = entry
            if followers and not entry.is_lost:
                self._behind.setdefault(entry.model, deque()).extendleft(reversed(followers))
                self.running -= len(followers)
                for each in followers:
                    each.state = State.BEHIND
            self.failed(entry, detail)
            return deque(each for each in left if each.state is State.RUNNING)

    def _tell(self) -> None:
        if not self._is_told:
            self._is_told = True
            self._wake()

    def _left(self, entry: Entry) -> None:
        """It is no longer with a worker, nor at the head of its lane."""
        if entry.state is State.RUNNING:
            self.running -= 1
        if entry is self._on_trial:
            self._on_trial = None
        self._advance(entry)

    def _advance(self, entry: Entry) -> None:
        """The next of its lane comes to the head, if this is the head."""
        model = entry.model
        if self._heads.get(model) is not entry:
            return
        waiting = self._behind.get(model)
        if waiting:
            self._place(waiting.popleft())
            if self._ready:
                self._ready_now()
            return
        del self._heads[model]
        if waiting is not None:
            del self._behind[model]

    def _place(self, entry: Entry) -> None:
        """Puts it at the head of its lane, which is free."""
        self._heads[entry.model] = entry
        if entry.ahead:
            entry.state = State.STALLED
            self.stalled.append(entry)
        elif entry.began_now:
            entry.state = State.SUSPECT
            self._suspects.append(entry)
        else:
            entry.state = State.READY
            self._ready.append(entry)

    def _insert(self, entry: Entry) -> None:
        """Puts it into its lane where the stream's order wants it; never before one that runs or rests."""
        head = self._heads.get(entry.model)
        if head is None:
            self._place(entry)
            return
        waiting = self._behind.setdefault(entry.model, deque())
        key = order(entry.id)
        if head.state in {State.STALLED, State.SUSPECT, State.READY} and key < order(head.id):
            {State.STALLED: self.stalled, State.SUSPECT: self._suspects, State.READY: self._ready}[head.state].remove(
                head
            )
            head.state = State.BEHIND
            if head is self._on_trial:
                self._on_trial = None  # else the two would wait for each other
            waiting.appendleft(head)
            self._place(entry)
            return
        entry.state = State.BEHIND
        at = len(waiting)
        while at and key < order(waiting[at - 1].id):
            at -= 1
        waiting.insert(at, entry)

    def _forget_rest(self, entry: Entry) -> None:
        self._resting = [each for each in self._resting if each[2] is not entry]
        heapq.heapify(self._resting)
