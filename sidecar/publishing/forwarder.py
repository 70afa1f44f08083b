"""Empties the spool into the queue, in order, and turns what can never succeed into dead letters."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress

from google.protobuf.message import DecodeError

from modelready.v1.event_pb2 import ModelReadyToDeploy
from sidecar.errors import QueueError, Refused, SpoolError
from sidecar.metrics import Metrics
from sidecar.publishing.backoff import Backoff
from sidecar.publishing.event_log import EventObserver
from sidecar.publishing.interfaces import DeadLetter, Event, Queue, Spool, Spooled
from sidecar.publishing.spool_gate import SpoolGate

log = logging.getLogger(__name__)

_BATCH = 1000  # each turn costs an fsync and some changes of thread, and Redis 10 ms
_CALL_BYTES = 4 * 1024 * 1024  # what a slow link takes well within the timeout: a call too large would fail for ever
_CLOCK_MARGIN_MS = 60_000


class Forwarder:
    """One background task. It forgets an event only when the queue has it, or has it as a dead letter."""

    def __init__(
        self,
        queue: Queue,
        spool: Spool,
        gate: SpoolGate,
        metrics: Metrics,
        observer: EventObserver,
        *,
        backoff: Backoff,
        dedup_seconds: float,
        max_age: float,
    ) -> None:
        """`max_age`: seconds after which a spooled event is dead."""
        self._queue = queue
        self._spool = spool
        self._gate = gate
        self._metrics = metrics
        self._observer = observer
        self._backoff = backoff
        self._dedup_ms = int(dedup_seconds * 1000)
        self._max_age_ms = int(max_age * 1000)

    async def run(self) -> None:
        """Forward until cancelled."""
        done: list[int] = []  # forwarded, and to be forgotten
        rows: list[Spooled] = []  # read, and marked as attempted at `now`
        now = 0
        while True:
            await self._gate.wait_not_empty()
            try:
                if self._gate.last_error is not None:
                    await self._queue.ping()  # before anything is marked as attempted
                if not rows:
                    now = _now_ms()
                    rows, done = await self._spool.advance(done, self._batch(), now), []
                taken = rows
                if rows:
                    rows, done, now = await self._forward_and_read(rows, done, now)
            except (QueueError, SpoolError) as error:
                rows = []
                await self._pause(error)
            else:
                if self._gate.last_error is not None:
                    log.info("the spool is being emptied again", extra={"spooled": self._spool.depth})
                self._gate.report(None)
                self._backoff.reset()
                if taken:
                    self._gate.took(taken)

    async def _forward_and_read(
        self, rows: list[Spooled], done: list[int], now: int
    ) -> tuple[list[Spooled], list[int], int]:
        """Forward a batch, and meanwhile forget the one before it and read the one behind it.

        Returns the next batch, what of this one is done, and the time of the next one's attempt.
        """
        later = _now_ms()
        limit = self._batch() if self._gate.last_error is None else 0  # after an outage, one step first
        reading = asyncio.create_task(self._spool.advance(done, limit, later, after=rows[-1].seq))
        try:
            forwarded = await self._forward(rows, now)
        except (QueueError, SpoolError):
            with suppress(SpoolError):  # it is met again
                await reading
            raise
        return await reading, forwarded, later

    async def _pause(self, error: QueueError | SpoolError) -> None:
        if type(self._gate.last_error) is not type(error):
            log.warning("the spool cannot be emptied: %s", error, extra={"spooled": self._spool.depth})
        self._gate.report(error)
        self._metrics.retries.labels("forwarder").inc()
        await asyncio.sleep(self._backoff.next())

    async def _forward(self, rows: Sequence[Spooled], now: int) -> list[int]:
        """Append these or write them as dead letters; return those that may be forgotten."""
        done = await self._already_there(rows, now)
        dead = [row for row in rows if row.dead is not None]
        live: list[tuple[Spooled, Event]] = []
        for row in rows:
            if row.dead is not None or row.seq in done:
                continue
            if self._too_old(row, now):
                dead.append(await self._mark(row, "TOO_OLD", f"spooled for more than {self._max_age_ms // 1000} s"))
                continue
            try:
                live.append((row, Event(row.event_id, ModelReadyToDeploy.FromString(row.data), row.data)))
            except DecodeError as error:
                dead.append(await self._mark(row, "UNDECODABLE", str(error)))
        dead += await self._append(live)
        done |= {row.seq for row, _ in live}
        if dead:
            await self._dead_letter(dead)
            done |= {row.seq for row in dead}
        return sorted(done)

    def _batch(self) -> int:
        """How many events to read: fewer where they are large."""
        return max(1, min(_BATCH, 2 * _CALL_BYTES * self._spool.depth // max(self._spool.bytes, 1)))

    async def _append(self, live: Sequence[tuple[Spooled, Event]]) -> list[Spooled]:
        """Append in calls of a bounded size; return those that Redis can never take."""
        refused: list[Spooled] = []
        group: list[tuple[Spooled, Event]] = []
        size = 0
        for row, event in live:
            if group and size + len(event.data) > _CALL_BYTES:
                refused += await self._append_group(group)
                group, size = [], 0
            group.append((row, event))
            size += len(event.data)
        return refused + (await self._append_group(group) if group else [])

    async def _append_group(self, group: Sequence[tuple[Spooled, Event]]) -> list[Spooled]:
        """Append, one by one where Redis refuses one of them; return those refused."""
        try:
            places, _ = await self._queue.append([event for _, event in group])
        except Refused as error:
            if len(group) == 1:
                return [await self._mark(group[0][0], error.reason, str(error))]
            return [row for pair in group for row in await self._append_group([pair])]
        self._observer.forwarded(group, places)
        return []

    async def _already_there(self, rows: Sequence[Spooled], now: int) -> set[int]:
        """Those that an earlier attempt put into the queue, where the dedup window may have ended since."""
        doubtful = [
            row
            for row in rows
            if row.dead is None
            and row.attempts.count > 1  # the last is the one that begins now
            and (self._outlived(row, now) or self._too_old(row, now))
        ]
        if not doubtful:
            return set()
        times = [moment for row in doubtful for moment in (row.attempts.first_ms, row.attempts.last_ms)]
        found = await self._queue.find([row.event_id for row in doubtful], min(times), max(times))
        there = [row for row in doubtful if row.event_id in found]
        self._observer.found(there, found)
        return {row.seq for row in there}

    def _outlived(self, row: Spooled, now: int) -> bool:
        """Whether the dedup window may have ended since its first attempt; so where the clock was set back since."""
        return not 0 <= now - row.attempts.first_ms <= max(self._dedup_ms - _CLOCK_MARGIN_MS, 0)

    def _too_old(self, row: Spooled, now: int) -> bool:
        return now - row.spooled_ms > self._max_age_ms

    async def _mark(self, row: Spooled, reason: str, detail: str) -> Spooled:
        await self._spool.mark_dead([row.seq], reason, detail)
        return row._replace(dead=(reason, detail))

    async def _dead_letter(self, rows: Sequence[Spooled]) -> None:
        letters = []
        for row in rows:
            reason, detail = row.dead or ("UNKNOWN", "")
            attempts = row.attempts
            first, last = attempts.first_ms or row.spooled_ms, attempts.last_ms or row.spooled_ms
            letters.append(DeadLetter(row.event_id, row.data, reason, detail, attempts.count, first, last))
        with suppress(Refused):  # Redis refuses one of them: write them one by one
            await self._queue.dead_letter(letters)
            for letter in letters:
                self._observer.dead(letter)
            return
        for letter in letters:
            try:
                await self._queue.dead_letter([letter])
            except Refused:
                cut = letter._replace(data=b"", detail=f"{letter.detail}; {len(letter.data)} bytes of data left out")
                await self._queue.dead_letter([cut])
            self._observer.dead(letter)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
