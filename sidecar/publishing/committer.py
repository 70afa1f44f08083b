"""Group commit: takes events from memory to Redis or, while Redis is away, to the spool.

One group is under way at a time, which keeps the order; meanwhile the next one gathers. A group takes as long as Redis
does. Each submission has a timer that answers it alone when its time is up: one that may be spooled is copied to the
disk then, and still goes on to Redis (docs/adr/0018).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

from sidecar.errors import AuthFailed, QueueError, QueueFull, Refused, RequestError, SetupFault, Unavailable
from sidecar.metrics import Metrics
from sidecar.publishing.backoff import Backoff
from sidecar.publishing.event_log import EventObserver
from sidecar.publishing.interfaces import Appended, Attempts, Event, Queue
from sidecar.publishing.spool_gate import SpoolGate
from sidecar.publishing.submission import (
    GROUP_EVENTS,
    SPOOLED,
    Line,
    Results,
    Submission,
    Waiting,
    published,
    take,
)
from sidecar.settings import PublishSettings

log = logging.getLogger(__name__)

_DISK_SHARE = 0.75  # of a submission's margin
_GROUP_SECONDS = 0.005
_IDLE_PASSES = 8


class Committer:
    """Commits submissions in groups. Submissions are answered only while `run` runs."""

    def __init__(
        self,
        queue: Queue,
        gate: SpoolGate,
        settings: PublishSettings,
        metrics: Metrics,
        observer: EventObserver,
        *,
        released: Callable[[], None],
        replicas: int,
    ) -> None:
        """`released` is called whenever less waits in memory.

        `replicas`: how many must confirm what is committed here; 0 where none need.
        """
        self._queue = queue
        self._gate = gate
        self._metrics = metrics
        self._observer = observer
        self._released = released
        self._replicas = replicas
        self._backoff = Backoff(settings.retry_base, settings.retry_max)
        self.waiting = Waiting()
        self._group: list[Submission] = []  # under way to Redis or to the disk
        self._appending_since_ms = 0  # 0: not to Redis
        self._overdue: Line = OrderedDict()  # to be copied to the disk
        self._some_overdue = asyncio.Event()
        self._concurrent = False
        self._retry_at = 0.0
        self._wake = asyncio.Event()
        self._closing = False
        self._last_error: RequestError | None = None  # of the last attempt; None once one succeeded
        self.fault: tuple[SetupFault, float] | None = None
        """The fault of set-up that the last attempt met, and time.monotonic() of it; None once one succeeded."""
        gate.listen(self._wake.set)

    def add(self, submission: Submission) -> None:
        """Queue a submission behind all others."""
        self.waiting.add(submission)
        self._set_timer(submission, submission.answer_by)
        self._wake.set()

    async def run(self) -> None:
        """Commit group after group until `close`."""
        tasks = [asyncio.create_task(self._commit()), asyncio.create_task(self._copy_overdue())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except Exception as error:
            # A defect: answer the callers; the end of this task ends the process.
            for submission in (*self._group, *self.waiting):
                self._refuse(submission, Unavailable("the sidecar failed", ambiguous=True))
            log.exception("the committer failed", exc_info=error)
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def close(self, seconds: float) -> None:
        """Take no more; commit or answer within that time what waits. `run` ends then."""
        self._closing = True
        last = time.monotonic() + seconds
        for position, submission in enumerate((*self._group, *self.waiting)):
            if not submission.answered and submission.answer_by > last:
                self._set_timer(submission, last + position * 1e-6)  # in their order
        self._wake.set()

    # -- the timers

    def _set_timer(self, submission: Submission, moment: float) -> None:
        if submission.timer is not None:
            submission.timer.cancel()
        loop = asyncio.get_running_loop()
        submission.timer = loop.call_later(moment - time.monotonic(), self._expire, submission)

    def _expire(self, submission: Submission) -> None:
        """Answer one submission, whose time is up. One that may be spooled gets some time to reach the disk first."""
        if submission.may_be_spooled and not submission.spooling:
            submission.spooling = True
            self._overdue[submission] = None
            self._some_overdue.set()
            self._set_timer(submission, time.monotonic() + submission.margin * _DISK_SHARE)
            return
        self._overdue.pop(submission, None)
        if submission.spooling:
            error: RequestError = Unavailable("the disk did not answer in time", ambiguous=True)
        else:
            error = submission.error or self._not_tried()
        self._give_up(submission, error)

    def _give_up(self, submission: Submission, error: RequestError) -> None:
        """Refuse one and never send it. If it is on its way to Redis, the answer is that the outcome is not known."""
        if self._appending_since_ms and submission in self._group:
            error = Unavailable("Redis did not answer in time", ambiguous=True)
        if self.waiting.remove(submission):
            self._fail(submission, error)
        else:
            self._refuse(submission, error)

    def _not_tried(self) -> RequestError:
        """The error for one whose turn did not come in time: of the kind that the last attempt met."""
        error = self._gate.last_error if self._gate.queued else self._last_error
        if isinstance(error, QueueFull | SetupFault):
            return error
        reason = f"the last attempt failed: {error}" if error else "those before it are not in Redis yet"
        text = f"the call's time is up; {reason}"
        return AuthFailed(text) if isinstance(error, AuthFailed) else Unavailable(text)

    async def _copy_overdue(self) -> None:
        """Put overdue submissions into the spool, in groups: one fsync serves all that gather meanwhile."""
        while True:
            await self._some_overdue.wait()
            self._some_overdue.clear()
            while self._overdue:
                group: list[Submission] = []
                take(self._overdue, group, lambda _: True)
                await self._copy(group)

    async def _copy(self, group: list[Submission]) -> None:
        now_ms = _now_ms()
        # Those that wait may be on their way to Redis before the disk has them.
        attempts = Attempts(1, self._appending_since_ms or now_ms, now_ms)
        errors = await self._gate.put(group, attempts, copies=True)
        for submission, error in zip(group, errors, strict=True):
            if submission.answered:
                continue
            if error is None:
                self._gate.acknowledged_copy(submission)  # it goes on to Redis in its turn
                self._answer(submission, [SPOOLED] * len(submission.events))
            else:
                self._give_up(submission, error)
        self._wake.set()

    # -- gathering

    async def _commit(self) -> None:
        while True:
            self._wake.clear()
            if self._concurrent and self.waiting.arrived and not self._gate.draining:
                await self._gather()
            queued, now = self._gate.queued, time.monotonic()
            if queued:
                self._group = self.waiting.next_to_spool(self._gate.allows)
            else:
                self._group = self.waiting.next_to_append(self._may_append, after_failure=now < self._retry_at)
            if self._group:
                submissions = len(self._group)
                await (self._spool(self._group, Attempts()) if queued else self._append(self._group))
                self._concurrent = submissions > 1 or self.waiting.arrived > 0
                self._group = []
            elif self._closing and all(submission.answered for submission in self.waiting):
                return
            else:
                await self._idle(self._retry_at - now if not queued and now < self._retry_at else None)

    async def _idle(self, seconds: float | None) -> None:
        """Wait for an arrival or for the gate, for at most that time; None: without a limit."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _gather(self) -> None:
        """Wait until the event loop has made some passes without an arrival.

        grpc.aio delivers about one call a pass, and a Redis on loopback answers before the next one: without this the
        groups would hold one event each. A lone caller is not delayed: if the last group was one call, and no other
        came meanwhile, none is likely to come now.
        """
        started, passes, seen = time.monotonic(), 0, self.waiting.arrived
        while passes < _IDLE_PASSES and seen < GROUP_EVENTS and time.monotonic() - started < _GROUP_SECONDS:
            await asyncio.sleep(0)
            before, seen = seen, self.waiting.arrived
            passes = passes + 1 if before == seen else 0

    def _may_append(self, submission: Submission) -> bool:
        return not self._replicas or self._gate.settled(submission.arrived)

    # -- committing

    async def _append(self, group: list[Submission]) -> None:
        """Append one group, and answer each of its submissions or hold it for another attempt."""
        events = [event for submission in group for event in submission.events]
        self._metrics.group_size.observe(len(events))
        began, began_ms = time.monotonic(), _now_ms()
        try:
            appended, confirmed = await self._attempt(events)
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
        if self._last_error is not None:
            self._backoff.reset()
        self._last_error = self.fault = None
        position = 0
        for submission in group:
            count = len(submission.events)
            results: Results = [published(where, confirmed) for where in appended[position : position + count]]
            position += count
            self._acknowledge(submission, results, in_redis=True)

    async def _attempt(self, events: list[Event]) -> tuple[list[Appended], int]:
        self._appending_since_ms = _now_ms()
        try:
            return await self._queue.append(events, replicas=self._replicas)
        finally:
            self._appending_since_ms = 0

    def _short(self, confirmed: int) -> Unavailable:
        return Unavailable(f"{confirmed} of {self._replicas} replicas confirmed in time", ambiguous=True)

    async def _failed(self, group: list[Submission], error: QueueError, began_ms: int) -> None:
        """Redis did not acknowledge the group: spool what may be spooled, in order; hold or refuse the rest."""
        if not isinstance(error, Unavailable):
            answer: QueueError = error
            if isinstance(error, SetupFault):
                self.fault = error, time.monotonic()
                answer = Unavailable(str(error), ambiguous=True) if error.ambiguous else error
            for submission in group:
                self._fail(submission, answer)
            return
        for submission in group:
            submission.note(error)
        attempts = Attempts(1, began_ms, _now_ms()) if error.ambiguous else Attempts()
        self._hold([submission for submission in group if not submission.may_be_spooled], error)
        self._group = [submission for submission in group if submission.may_be_spooled]
        await self._spool(self._group, attempts)

    async def _find_refused(self, group: list[Submission]) -> None:
        """Redis can never take one event of the group: find out which, so that only that one is refused.

        The submissions go back to the line and are taken from there one by one: if Redis goes away meanwhile, the rest
        must queue behind those that were spooled.
        """
        if len(group) > 1:
            self.waiting.isolate(group)
            return
        submission, results = group[0], Results()
        for event in submission.events:
            if submission.answered:  # the spool has it, or its caller knows that the outcome is not known
                self._release(submission, in_redis=False)
                return
            began_ms = _now_ms()
            try:
                (where,), confirmed = await self._attempt([event])
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
        self._acknowledge(submission, results, in_redis=True)

    async def _spool(self, group: list[Submission], attempts: Attempts) -> None:
        """Spool submissions and acknowledge them; refuse those that do not fit. Those that are answered have a copy."""
        missing = [submission for submission in group if not submission.answered]
        for submission in missing:
            submission.spooling = True
        errors = dict(zip(missing, await self._gate.put(missing, attempts), strict=True)) if missing else {}
        for submission in group:
            error = errors.get(submission)
            if error is not None:
                self._fail(submission, error)
            else:
                self._acknowledge(submission, [SPOOLED] * len(submission.events), in_redis=False)

    def _hold(self, group: list[Submission], error: RequestError) -> None:
        """Keep for another attempt, before all others, after a pause."""
        if not group:
            return
        self._last_error = error
        self._metrics.retries.labels("publisher").inc(len(group))
        self._retry_at = time.monotonic() + self._backoff.next()
        for submission in group:
            submission.note(error)
            if submission.answered:
                self._release(submission, in_redis=False)
        self.waiting.hold([submission for submission in group if not submission.answered])

    # -- answering

    def _acknowledge(self, submission: Submission, results: Results, *, in_redis: bool) -> None:
        """End a submission; its caller may have been answered before."""
        self._release(submission, in_redis=in_redis)
        self._answer(submission, results)

    def _fail(self, submission: Submission, error: RequestError) -> None:
        """End a submission without an acknowledgement."""
        self._release(submission, in_redis=False)
        self._refuse(submission, error)

    def _answer(self, submission: Submission, results: Results) -> None:
        if not submission.answered:
            submission.acknowledge(results)
            self._observer.acknowledged(submission.events, results, submission.arrived)

    def _refuse(self, submission: Submission, error: RequestError) -> None:
        if not submission.answered:
            error = submission.note(error)
            submission.fail(error)
            messages = [event.message for event in submission.events]
            self._observer.refused(messages, error, submission.arrived, kept=submission.kept)

    def _release(self, submission: Submission, *, in_redis: bool) -> None:
        self.waiting.release(submission)
        if submission.spooling:
            self._gate.end_copy(submission, in_redis=in_redis)
        self._released()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
