"""Group commit: the way of an event from memory to Redis or, while Redis is away, to the spool.

One group is under way at a time, so that order is kept; while it is, the next one gathers. The spool's emptiness is the
only mode: while the spool holds anything, events that may be spooled queue behind it, and the others wait for it to be
empty. Each caller is answered before its deadline.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from contextlib import suppress

from sidecar.errors import (
    AuthFailed,
    PublishError,
    QueueError,
    QueueFull,
    Refused,
    SetupFault,
    SpoolError,
    SpoolFull,
    Unavailable,
)
from sidecar.metrics import Metrics
from sidecar.publishing import fates, spans
from sidecar.publishing.backoff import Backoff
from sidecar.publishing.interfaces import Attempts, Queue, Spool
from sidecar.publishing.submission import SPOOLED, Results, Submission, published
from sidecar.settings import PublishSettings

log = logging.getLogger(__name__)

_GROUP_EVENTS = 256
_GROUP_BYTES = 4 * 1024 * 1024
_GROUP_SECONDS = 0.005
_IDLE_PASSES = 8
_YIELD_SECONDS = 0.1


class Committer:
    """Commits submissions in groups. `run` does the work; it must run for a submission to end."""

    def __init__(
        self, queue: Queue, spool: Spool, settings: PublishSettings, metrics: Metrics, *, replicas: int = 0
    ) -> None:
        """`replicas`: how many must confirm what is committed here."""
        self._queue = queue
        self._spool = spool
        self._metrics = metrics
        self._replicas = replicas
        self._backoff = Backoff(settings.retry_base, settings.retry_max)
        self._arrived: deque[Submission] = deque()
        self._held: deque[Submission] = deque()  # not acknowledged by the last attempt, or waiting for an empty spool
        self._under_way: list[Submission] = []
        self._singly = 0  # so many at the front go alone: Redis refused one of them
        self._company = False
        self.pending = 0
        """Events that wait in memory."""
        self.pending_bytes = 0
        """Their size."""
        self._retry_at = 0.0
        self._wake = asyncio.Event()
        self._flight: asyncio.Timeout | None = None
        self._closing = False
        self.fault: tuple[SetupFault, float] | None = None
        """The fault of set-up that the last attempt met, and time.monotonic() of it; None once one succeeded."""
        self.trouble: PublishError | None = None
        """Why the last attempt failed, of this or of the forwarder; None once one succeeded."""
        self.spooled = asyncio.Event()
        """Set when something was put into the spool."""
        self.may_spool = asyncio.Event()
        """Cleared by the forwarder while it makes headway, so that the spool shrinks under any load."""
        self.may_spool.set()

    def add(self, submission: Submission) -> None:
        """Queue a submission behind all others."""
        self._arrived.append(submission)
        self.pending += len(submission.events)
        self.pending_bytes += submission.size
        self._wake.set()
        self._hasten(submission)

    def wake(self) -> None:
        """Look again: the spool may be empty."""
        self._wake.set()

    async def run(self) -> None:
        """Commit group after group until `close`."""
        while True:
            if not self._arrived:
                await self._idle()
            if self._closing and not self._arrived and not self._held:
                return
            if self._arrived and self._company:
                await self._gather()
            self._expire()
            try:
                if self._spool.depth:
                    await self._spool_arrived()
                else:
                    await self._append_group()
            except Exception as error:
                # A defect. Its callers are answered, and the task ends, which ends the process.
                for submission in (*self._under_way, *self._arrived, *self._held):
                    submission.fail(Unavailable("the sidecar failed", ambiguous=True))
                log.exception("the committer failed", exc_info=error)
                raise

    def close(self, seconds: float) -> None:
        """Take no more, and commit or answer what waits within that time. `run` ends."""
        self._closing = True
        last = time.monotonic() + seconds
        for submission in (*self._under_way, *self._arrived, *self._held):
            submission.answer_by = min(submission.answer_by, last)
            self._hasten(submission)
        self._wake.set()

    # -- gathering

    async def _idle(self) -> None:
        """Wait for an arrival, an empty spool, the next attempt or the next deadline of those held."""
        if self._closing and not self._held:
            return
        self._wake.clear()
        if not self._held:
            await self._wake.wait()
            return
        until = min(submission.answer_by for submission in self._held)
        if not self._spool.depth:
            until = min(until, self._retry_at)
        with suppress(TimeoutError):
            async with asyncio.timeout(max(until - time.monotonic(), 0)):
                await self._wake.wait()

    async def _gather(self) -> None:
        """Wait until the event loop has passed some times without an arrival.

        grpc.aio delivers about one call a pass, and a Redis on loopback answers before the next one: without this the
        groups would hold one event each. Who calls alone does not wait: where the last group was one call, and none
        came while it was under way, nobody else is likely to come.
        """
        started, passes, seen = time.monotonic(), 0, len(self._arrived)
        while passes < _IDLE_PASSES and seen < _GROUP_EVENTS and time.monotonic() - started < _GROUP_SECONDS:
            await asyncio.sleep(0)
            passes = passes + 1 if len(self._arrived) == seen else 0
            seen = len(self._arrived)

    def _take(self, source: deque[Submission], group: list[Submission]) -> None:
        """Move submissions from the front of `source` to the group while it has room."""
        events, size = sum(len(s.events) for s in group), sum(s.size for s in group)
        while source:
            first = source[0]
            if group and (
                self._singly or events + len(first.events) > _GROUP_EVENTS or size + first.size > _GROUP_BYTES
            ):
                return
            events, size = events + len(first.events), size + first.size
            group.append(source.popleft())

    def _expire(self) -> None:
        """Answer those held that can wait no longer."""
        now = time.monotonic()
        for submission in [s for s in self._held if s.answer_by <= now]:
            self._held.remove(submission)
            self._settle(submission, submission.error or self._not_tried())

    def _not_tried(self) -> PublishError:
        """For one that waited its turn until its time was up: what the attempt before it met, of the same kind."""
        trouble = self.trouble
        if isinstance(trouble, QueueFull | SetupFault):
            return trouble
        text = f"the call's time is up; the last attempt failed: {trouble or 'Redis is away'}"
        return AuthFailed(text) if isinstance(trouble, AuthFailed) else Unavailable(text)

    def _hasten(self, submission: Submission) -> None:
        """Let the group under way end in time for this one, too, which waits behind it."""
        if self._flight is None:
            return
        when = self._flight.when()
        limit = asyncio.get_running_loop().time() + submission.answer_by - time.monotonic()
        if when is not None and limit < when and not self._flight.expired():
            self._flight.reschedule(limit)

    # -- committing

    async def _append_group(self) -> None:
        if time.monotonic() < self._retry_at and not any(s.may_be_spooled for s in self._arrived):
            self._held.extend(self._arrived)
            self._arrived.clear()
            return
        group = self._under_way = []
        self._take(self._held, group)
        if not self._held:
            self._take(self._arrived, group)
        if group:
            self._singly = max(self._singly - 1, 0)
            await self._append(group)
            self._company = len(group) > 1 or bool(self._arrived)

    async def _append(self, group: list[Submission]) -> None:
        """Append one group, and settle each of its submissions or hold it for another attempt."""
        events = [event for submission in group for event in submission.events]
        self._metrics.group_size.observe(len(events))
        began, began_ms = time.monotonic(), time.time_ns() // 1_000_000
        left = max(min(submission.answer_by for submission in (*group, *self._arrived)) - began, 0.01)
        try:
            try:
                async with asyncio.timeout(left + 0.005) as self._flight:
                    appended, confirmed = await self._queue.append(events, replicas=self._replicas, timeout=left)
            finally:
                self._flight = None  # before a failure is dealt with: that takes time, and calls arrive meanwhile
        except TimeoutError:
            await self._failed(group, Unavailable("Redis did not answer in time", ambiguous=True), began_ms)
            return
        except Refused:
            await self._find_refused(group)
            return
        except QueueError as error:
            await self._failed(group, error, began_ms)
            return
        self._metrics.redis_seconds.observe(time.monotonic() - began)
        if confirmed < self._replicas:
            self._hold(group, self._short(confirmed))
            return
        self._backoff.reset()
        self.trouble = None
        self.fault = None
        position = 0
        for submission in group:
            count = len(submission.events)
            results: Results = [published(where, confirmed) for where in appended[position : position + count]]
            position += count
            self._resolve(submission, results)

    def _short(self, confirmed: int) -> Unavailable:
        return Unavailable(f"{confirmed} of {self._replicas} replicas confirmed in time", ambiguous=True)

    async def _failed(self, group: list[Submission], error: QueueError, began_ms: int) -> None:
        """The group was not acknowledged by Redis: spool what may be spooled, in order, and hold or refuse the rest."""
        if not isinstance(error, Unavailable):
            if isinstance(error, SetupFault):
                self.fault = error, time.monotonic()
            for submission in group:
                self._settle(submission, error)
            return
        for submission in group:
            submission.note(error)
        attempts = Attempts(1, began_ms, time.time_ns() // 1_000_000) if error.ambiguous else Attempts()
        await self._put([submission for submission in group if submission.may_be_spooled], attempts)
        self._hold([submission for submission in group if not submission.may_be_spooled], error)

    async def _find_refused(self, group: list[Submission]) -> None:
        """Redis refused one of the group for good: find out which, so that the others do not share its fate.

        They go back to where they were taken from, and one by one from there: should Redis be away before they are
        through, the rest has to queue behind those that were spooled.
        """
        if len(group) > 1:
            self._singly = len(group)
            (self._held or self._arrived).extendleft(reversed(group))
            return
        submission, results = group[0], Results()
        for event in submission.events:
            began_ms = time.time_ns() // 1_000_000
            left = max(submission.answer_by - time.monotonic(), 0.01)
            try:
                (where,), confirmed = await self._queue.append([event], replicas=self._replicas, timeout=left)
            except Refused as refusal:
                results.append(refusal)
                continue
            except QueueError as failure:
                await self._failed(group, failure, began_ms)
                return
            if confirmed < self._replicas:
                self._hold(group, self._short(confirmed))
                return
            results.append(published(where, confirmed))
        self._resolve(submission, results)

    async def _spool_arrived(self) -> None:
        """While the spool holds anything: queue behind it, or wait for it to be empty."""
        self._singly = 0
        group = self._under_way = []
        self._take(self._arrived, group)
        self._held.extend(submission for submission in group if not submission.may_be_spooled)
        spoolable = [submission for submission in group if submission.may_be_spooled]
        if spoolable and not self.may_spool.is_set():
            patience = min(min(submission.answer_by for submission in spoolable) - time.monotonic(), _YIELD_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(patience, 0)):
                    await self.may_spool.wait()
        if spoolable and not self._spool.depth:
            self._arrived.extendleft(reversed(spoolable))  # emptied meanwhile: straight to Redis
            return
        await self._put(spoolable, Attempts())

    async def _put(self, group: list[Submission], attempts: Attempts) -> None:
        """Spool submissions and acknowledge them; refuse those that do not fit."""
        fitting: list[Submission] = []
        room = self._spool.max_bytes - self._spool.bytes
        for submission in group:
            needed = sum(self._spool.room_for(event) for event in submission.events)
            if needed > room:
                self._settle(submission, SpoolFull(f"the spool is full, SPOOL_MAX_BYTES is {self._spool.max_bytes}"))
                continue
            room -= needed
            fitting.append(submission)
        if not fitting:
            return
        try:
            await self._spool.put([event for submission in fitting for event in submission.events], attempts)
        except SpoolError as error:
            for submission in fitting:
                self._settle(submission, error)
            return
        self.spooled.set()
        for submission in fitting:
            self._resolve(submission, [SPOOLED] * len(submission.events))

    def _hold(self, group: list[Submission], error: PublishError) -> None:
        """Keep for another attempt, before all others, after a pause."""
        if not group:
            return
        self.trouble = error
        self._metrics.retries.labels("publisher").inc(len(group))
        self._retry_at = time.monotonic() + self._backoff.next()
        for submission in group:
            submission.note(error)
        self._held.extendleft(reversed(group))

    def _settle(self, submission: Submission, error: PublishError) -> None:
        """End a submission without an acknowledgement."""
        self._release(submission)
        submission.fail(error)
        spans.end(submission.events, [submission.error or error] * len(submission.events))
        milliseconds = (time.monotonic() - submission.arrived) * 1000
        fates.refused([event.message for event in submission.events], submission.error or error, milliseconds)

    def _resolve(self, submission: Submission, results: Results) -> None:
        """Acknowledge a submission."""
        self._release(submission)
        submission.resolve(results)
        spans.end(submission.events, results)
        fates.acknowledged(submission.events, results, submission.arrived)

    def _release(self, submission: Submission) -> None:
        self.pending -= len(submission.events)
        self.pending_bytes -= submission.size
