"""Between the committers, which fill the spool, and the forwarder, which empties it (docs/adr/0018)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from sidecar.errors import QueueError, SpoolError, SpoolFull
from sidecar.publishing.interfaces import Attempts, Spool, Spooled
from sidecar.publishing.submission import Submission

_SHARE = 4  # for four events that the forwarder takes away, one may be added


class SpoolGate:
    """Says whether events must queue behind the spool, and how many may be added to it.

    While the forwarder makes headway, less is added than it takes away, in events and in bytes, so that the spool gets
    emptier under any load. Behind its last batch nothing is added: then events go straight to Redis.

    The copy of an event that goes to Redis from memory delays no other: it may be added at any time, and events need
    not queue behind it. The highest sequence number of the other events decides.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._taken = 0  # up to this sequence number all is in Redis
        self._last = spool.last_seq if spool.depth else 0  # up to this one some may reach Redis from here alone
        self._copies: dict[Submission, float] = {}
        self._filled = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []
        self._making_headway = False
        self._events = 0  # that may be added; below 0: that were added at deadlines
        self._bytes = 0
        self.last_error: QueueError | SpoolError | None = None
        """Why the spool is not getting emptier; None while it is."""

    # -- for the committers

    @property
    def queued(self) -> bool:
        """Whether events must queue behind the spool: it holds some that reach Redis from there alone."""
        return self._taken < self._last and self._spool.depth > 0

    @property
    def draining(self) -> bool:
        """Whether what may be added is bounded: events queue, and the forwarder makes headway."""
        return self._making_headway and self.queued

    def listen(self, wake: Callable[[], None]) -> None:
        """Call `wake` whenever the gate may have changed."""
        self._listeners.append(wake)

    def allows(self, events: int, size: int) -> bool:
        """Whether a group of `events` events and `size` bytes may be put now."""
        return not self.draining or (events <= self._events and size <= self._bytes)

    async def put(
        self, group: Sequence[Submission], attempts: Attempts, *, copies: bool = False
    ) -> list[SpoolError | None]:
        """Put submissions into the spool, in order: for each what kept it out, or None. Later ones queue behind them.

        A full spool takes those that fit, and those that it holds already. `copies`: they go on their way to Redis
        nevertheless, so that nobody must queue behind them.
        """
        errors = await self._put(group, attempts)
        if not copies and not all(errors):
            self._last = self._spool.last_seq
        return errors

    async def _put(self, group: Sequence[Submission], attempts: Attempts) -> list[SpoolError | None]:
        try:
            await self._spool.put([event for submission in group for event in submission.events], attempts)
        except SpoolFull as error:
            if len(group) == 1:
                return [error]
            return [found for submission in group for found in await self._put([submission], attempts)]
        except SpoolError as error:
            return [error] * len(group)
        if self.draining:  # one put a turn: each costs the forwarder an fsync
            self._events = min(self._events - sum([len(submission.events) for submission in group]), 0)
            self._bytes = min(self._bytes - sum([submission.size for submission in group]), 0)
        self._filled.set()
        return [None] * len(group)

    def acknowledged_copy(self, submission: Submission) -> None:
        """A copy was acknowledged; `end_copy` follows when its way through memory ends."""
        self._copies[submission] = time.monotonic()

    def end_copy(self, submission: Submission, *, in_redis: bool) -> None:
        """See `acknowledged_copy`. Where Redis may not have it, events queue behind the spool from now on."""
        if self._copies.pop(submission, None) is not None:
            if not in_redis:
                self._last = self._spool.last_seq
            self._wake()

    def settled(self, moment: float) -> bool:
        """Whether Redis has every copy that was acknowledged before that moment: what came after it may go there."""
        return not self._copies or next(iter(self._copies.values())) > moment

    # -- for the forwarder

    async def wait_not_empty(self) -> None:
        """Until the spool holds something."""
        while not self._spool.depth:
            self._making_headway = False
            self._wake()
            self._filled.clear()
            await self._filled.wait()

    def took(self, rows: Sequence[Spooled]) -> None:
        """The forwarder took these, in order."""
        if not self._making_headway:
            self._making_headway, self._events, self._bytes = True, 0, 0
        self._taken = max(self._taken, rows[-1].seq)
        if self._last - self._taken > len(rows):
            self._events += len(rows) // _SHARE
            self._bytes += sum([len(row.data) for row in rows]) // _SHARE
            self._wake()
        else:  # the next batch is the last
            self._events, self._bytes = min(self._events, 0), min(self._bytes, 0)
            if not self.queued:
                self._wake()

    def report(self, error: QueueError | SpoolError | None) -> None:
        """Why the spool is not getting emptier; None: it is."""
        self.last_error = error
        if error is not None:
            self._making_headway = False
            self._wake()

    def _wake(self) -> None:
        for wake in self._listeners:
            wake()
