"""Between the committers, which fill the spool, and the forwarder, which empties it (docs/adr/0018)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from sidecar.errors import QueueError, SpoolError, SpoolFull
from sidecar.publishing.interfaces import Attempts, Spool
from sidecar.publishing.submission import Submission

_SHARE = 2  # for two events that the forwarder takes away, one may be added
_OVERDRAFT_EVENTS, _OVERDRAFT_BYTES = 1000, 4 << 20  # a frame's: what may be added beyond that at a deadline
_HEADWAY_SECONDS = 0.5


class SpoolGate:
    """Says whether events must queue behind the spool, and how many may be added to it.

    While the forwarder makes headway, what is added is less than what it takes away, in events and in bytes, so that
    the spool gets emptier under any load. Behind its last batch nothing is added: then the spool is empty, and events
    go straight to Redis again.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._queued = spool.depth > 0
        self._copies: dict[Submission, float] = {}
        self._filled = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []
        self._headway_until = 0.0
        self._events = 0  # that may be added; below 0: that were added at deadlines
        self._bytes = 0
        self.last_error: QueueError | SpoolError | None = None
        """Why the spool is not getting emptier; None while it is."""

    # -- for the committers

    @property
    def queued(self) -> bool:
        """Whether events must queue behind the spool: it holds some that reach Redis from there alone."""
        if not self._spool.depth:
            self._queued = False
        return self._queued

    def listen(self, wake: Callable[[], None]) -> None:
        """Call this when `queued` or `allows` may answer otherwise than before."""
        self._listeners.append(wake)

    def yielding(self) -> float:
        """Until when, by time.monotonic(), additions are bounded; 0 while they are not."""
        return self._headway_until if self._queued and time.monotonic() < self._headway_until else 0.0

    def allows(self, events: int, size: int, *, overdue: bool = False) -> bool:
        """Whether so many events of so many bytes may be put now. `overdue`: they cannot wait for their turn."""
        if not self.yielding():
            return True
        more_events, more_bytes = (_OVERDRAFT_EVENTS, _OVERDRAFT_BYTES) if overdue else (0, 0)
        return events <= self._events + more_events and size <= self._bytes + more_bytes

    async def put(
        self, group: Sequence[Submission], attempts: Attempts, *, copies: bool = False
    ) -> list[SpoolError | None]:
        """Put submissions into the spool, in order: for each what kept it out, or None. Later ones queue behind them.

        A full spool takes those that fit, and those that it holds already. `copies`: they go on their way to Redis
        nevertheless, so that nobody must queue behind them.
        """
        errors = await self._put(group, attempts)
        if not copies and not all(errors):
            self._queued = True
        return errors

    def settled(self, moment: float) -> bool:
        """Whether Redis has every copy that was acknowledged before that moment: what came after it may go there."""
        return not self._copies or next(iter(self._copies.values())) > moment

    def acknowledged_copy(self, submission: Submission) -> None:
        """A copy was acknowledged; call `forget_copy` when it has come to the end of its way through memory."""
        self._copies[submission] = time.monotonic()

    def forget_copy(self, submission: Submission, *, in_redis: bool) -> None:
        """See `acknowledged_copy`. Where Redis may lack it, events queue behind the spool from now on."""
        if self._copies.pop(submission, None) is not None:
            self._queued = self._queued or not in_redis
            self._wake()

    # -- for the forwarder

    async def wait_not_empty(self) -> None:
        """Until the spool holds something."""
        while not self._spool.depth:
            self._queued = False
            self._events = self._bytes = 0
            self._headway_until = 0.0
            self._wake()
            self._filled.clear()
            await self._filled.wait()

    def took(self, events: int, size: int, *, last: bool) -> None:
        """The forwarder took so many events of so many bytes. `last`: so few are left that none may be added."""
        self._headway_until = time.monotonic() + _HEADWAY_SECONDS
        if last:
            self._events, self._bytes = min(self._events, 0), min(self._bytes, 0)
        else:
            self._events += events // _SHARE
            self._bytes += size // _SHARE
            self._wake()

    def report(self, error: QueueError | SpoolError | None) -> None:
        """Why the spool is not getting emptier; None: it is."""
        self.last_error = error
        if error is not None:
            self._headway_until = 0.0
            self._wake()

    # --

    async def _put(self, group: Sequence[Submission], attempts: Attempts) -> list[SpoolError | None]:
        try:
            await self._spool.put([event for submission in group for event in submission.events], attempts)
        except SpoolFull as error:
            if len(group) == 1:
                return [error]
            return [found for submission in group for found in await self._put([submission], attempts)]
        except SpoolError as error:
            return [error] * len(group)
        if self.yielding():  # one put a turn: each costs the forwarder an fsync
            self._events = min(self._events - sum(len(submission.events) for submission in group), 0)
            self._bytes = min(self._bytes - sum(submission.size for submission in group), 0)
        self._filled.set()
        return [None] * len(group)

    def _wake(self) -> None:
        for wake in self._listeners:
            wake()
