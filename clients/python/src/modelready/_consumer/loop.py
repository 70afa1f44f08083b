"""Owns the steps of a consumer at work: it shows that it lives, acknowledges, lets workers begin, and reads.

One task takes every step that changes anything, over one connection, so that no two answers of Redis can overtake each
other. A second one waits for news of the stream, outside the group: what is read in the group must get its lane in the
same moment. Every step may be repeated after a lost reply.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from modelready._consumer.failures import Failures
from modelready._consumer.in_flight import Entry, Failure, InFlight
from modelready._consumer.lanes import Given, Lanes, Turn
from modelready._consumer.liveness import Liveness
from modelready._consumer.options import Options
from modelready._consumer.reconnect import prepare_retry
from modelready._retry import backoff
from modelready.entry import decode
from modelready.keys import Keys
from modelready.redis.cluster import Server
from modelready.redis.faults import RedisError, is_no_group
from modelready.redis.pool import Pool
from modelready.v1.event_pb2 import ModelReadyToDeploy

logger = logging.getLogger(__name__)

MAX_IN_FLIGHT = 1000
_MAX_A_TURN = 100
_FULL_SECONDS = 0.5
_LANE_SECONDS = 0.1
"""How often a consumer with room looks for a free lane while entries wait in lanes."""
_LAST_WORDS_SECONDS = 3.0


class Loop:
    """One consumer at work, from its first read to its leave; for one event loop, and once."""

    def __init__(
        self,
        server: Server,
        options: Options,
        ready: Callable[[], object],
        wake: Callable[[], object],
        *,
        lanes: Lanes | None = None,
    ) -> None:
        """See InFlight for `ready`. `wake` must call `changed` in the event loop that runs this.

        `lanes`: others than those of `server`, for modelready.testing.
        """
        self.in_flight = InFlight(options.claim_seconds, wake, ready)
        self._server = server
        self._options = options
        self._stream = Keys(options.queue).events
        self._pool, self._news_pool = Pool(server), Pool(server)
        self._lanes = lanes or Lanes(self._pool, options)
        self._liveness = Liveness(self._pool, self._lanes, self.in_flight, options)
        self._failures = Failures(self._lanes, self.in_flight, options)
        self._again, self._stopped, self._waits = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._last_id = "0-0"
        self._read_at = 0.0
        self._may_get_a_lane = False
        self._must_create = "first"
        self._must_recover = "first"
        self._is_forced = False
        self._is_waiting = False
        self._idle_since: float | None = None

    def changed(self) -> None:
        """Something changed in flight."""
        self._again.set()

    def stop(self, *, forced: bool = False) -> None:
        """Begin no more, and end when what was begun has ended; `forced`, at once. In the event loop that runs this."""
        self._is_forced = self._is_forced or forced
        self.in_flight.stop()
        self._stopped.set()
        self._again.set()

    async def run(self) -> None:
        """Work until it is stopped and no worker has anything. Raises RedisErrors that no waiting helps against."""
        tasks = [
            asyncio.create_task(self._wait_for_news()),
            asyncio.create_task(self._server.credentials.watch(self._renew_connections)),
        ]
        try:
            await self._work()
        finally:
            self.in_flight.end()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._pool.close()
            await self._news_pool.close()

    async def _renew_connections(self) -> None:
        self._server.renew()

    # -- steps

    async def _work(self) -> None:
        attempt = 0
        while not self._is_over():
            self._again.clear()
            self.in_flight.looked()
            try:
                goes_on = await self._step()
                attempt, self._is_waiting = 0, False
            except RedisError as error:
                self._must_recover = self._must_recover or "again"
                self._liveness.forget_others()
                await self._after(error, attempt)
                attempt += 1
                continue
            if not goes_on:
                await self._sleep_until(self._next_step_at())
        if not self._must_create:
            with suppress(RedisError):
                await self._liveness.leave(self.in_flight.release())

    def _is_over(self) -> bool:
        """Whether nothing is left to do but to leave."""
        if not self.in_flight.stopping or (self.in_flight.running and not self._is_forced):
            return False
        now = time.monotonic()
        self._idle_since = self._idle_since or now
        if now - self._idle_since > _LAST_WORDS_SECONDS + self._options.block_seconds:
            return True
        return not (self.in_flight.finished(1) or self.in_flight.failures())

    async def _step(self) -> bool:
        """Whether there is more to do at once."""
        in_flight, liveness = self.in_flight, self._liveness
        if self._must_create:
            await self._create_group()
        if self._must_recover:
            await self._recover()
        now = time.monotonic()
        if now >= liveness.renew_at or in_flight.is_doubtful(now):
            await liveness.renew()
        await self._failures.settle()
        goes_on = await self._turn()
        if now >= liveness.sweep_at and not in_flight.stopping:
            await liveness.sweep()
            self._look_again()
        return goes_on

    def _next_step_at(self) -> float:
        now = time.monotonic()
        times = [self._liveness.renew_at]
        times.append(now + 0.05 if self.in_flight.stopping else self._liveness.sweep_at)
        if self._read_at != float("inf"):
            times.append(self._read_at if self._room() else float("inf"))
        if self._failures.memory_full_until is not None:
            times.append(self._failures.memory_full_until)
        due = self.in_flight.next_attempt_at()
        if due is not None and self.in_flight.demand:
            times.append(due)
        return min(times)

    async def _create_group(self) -> None:
        if await self._lanes.create_group(self._options.start if self._must_create == "first" else "0"):
            logger.info("group %s of %s is created", self._options.group, self._stream)
        self._must_create = ""

    async def _recover(self) -> None:
        """Puts back what is pending with this consumer and was not begun: after a lost reply, or in a second life."""
        known, lives = self.in_flight.drop(), self._must_recover != "first"
        await self._liveness.renew()
        await self._lanes.release_own(known, lives=lives)
        self.in_flight.end_lanes(await self._lanes.tidy(leaving=not lives))
        self._must_recover = ""
        self._look_again()

    # -- turns

    async def _turn(self) -> bool:
        """Acknowledge what ended, and get what may begin. Whether the next turn would do more."""
        in_flight = self.in_flight
        asked_at = time.monotonic()
        reads = asked_at >= self._read_at
        with in_flight.lock:  # what a worker ends meanwhile must not let the next begin before it is acknowledged
            handled, ended = in_flight.finished(_MAX_A_TURN), in_flight.ended_lanes(_MAX_A_TURN)
            begins, room = in_flight.to_begin(asked_at), self._room()
            demand = None if in_flight.takes_batches else max(0, in_flight.demand - len(begins))
        if not (handled or ended or begins or (room and reads)):
            return False
        turn = await self._lanes.turn(
            handled,
            ended,
            [(entry.id, entry.attempts + 1) for entry in begins],
            room=room,
            demand=demand,
            reads=reads,
        )
        in_flight.acknowledged(handled)
        in_flight.went_on(ended)
        for entry, is_kept in zip(begins, turn.kept, strict=True):
            if is_kept:
                in_flight.grant(entry)
            else:
                logger.warning("entry %s was taken over by another consumer", entry.id)
                in_flight.lose(entry)
        entries = turn.entries
        while in_flight.takes_batches and turn.left == "more" and turn.entries and len(entries) < room:
            turn = await self._lanes.turn(room=room - len(entries), demand=demand)
            entries += turn.entries
        self._receive(entries, asked_at)
        self._note_what_is_left(turn)
        return bool(turn.left == "more" and self._room()) or len(handled) == _MAX_A_TURN or len(ended) == _MAX_A_TURN

    def _room(self) -> int:
        """How many entries to read now: none while all workers are busy."""
        in_flight, options = self.in_flight, self._options
        if in_flight.stopping or len(in_flight.entries) >= MAX_IN_FLIGHT or in_flight.busy >= options.concurrency:
            return 0
        return options.batch - in_flight.busy

    def _note_what_is_left(self, turn: Turn) -> None:
        if turn.left == "full":
            self._read_at = time.monotonic() + _FULL_SECONDS
        elif turn.left and turn.left != "more":
            self._last_id, self._read_at = turn.left, float("inf")
            self._may_get_a_lane = turn.waiting > 0
            self._waits.set()

    def _look_again(self) -> None:
        """Read with the next turn: there may be something to take."""
        if self._read_at == float("inf"):
            self._read_at = 0.0
            self._again.set()

    async def _wait_for_news(self) -> None:
        """Wakes the loop when the stream has a new entry, and now and then."""
        longest = min(self._options.block_seconds, self._options.claim_seconds / 4)
        while not self.in_flight.ended:  # a cancellation may be lost where it meets the end of a connect
            await self._waits.wait()
            block = min(longest, _LANE_SECONDS) if self._may_get_a_lane else longest
            read = ("XREAD", "COUNT", 1, "BLOCK", max(1, int(block * 1000)), "STREAMS", self._stream, self._last_id)
            try:
                await self._news_pool.one(*read, timeout=block + 5)
            except RedisError:  # the loop meets it, too
                await asyncio.sleep(backoff(0))
            self._waits.clear()
            self._look_again()

    def _receive(self, given: Iterable[Given], asked_at: float) -> None:
        """Put what a turn gave in flight. What can never be begun is a failure."""
        entries, begun = [], []
        for each in given:
            if each.id in self.in_flight.entries:
                continue
            # A batch is noted as begun, and counts as no attempt.
            if each.attempts >= self._options.max_attempts + self.in_flight.takes_batches:
                detail = "its consumer ended, or lost it, in each of its attempts"
                self._give_up(each, "CONSUMER_DIED", detail, each.attempts)
                continue
            try:
                event = self._decode(each.fields)
            except Exception as error:  # noqa: BLE001 - whatever it holds, it must not end the consumer
                self._give_up(each, "UNDECODABLE", str(error), max(1, each.attempts))
                continue
            if event is None:
                self.in_flight.skip(each.id, each.lane)
                self._again.set()
                continue
            entries.append(Entry(each.id, each.lane, event, each.attempts))
            if each.is_begun:
                begun.append(each.id)
        self.in_flight.add(entries, begun, asked_at)

    def _give_up(self, given: Given, reason: str, detail: str, attempts: int) -> None:
        self.in_flight.give_up(Failure(given.id, given.lane, None, reason, detail, attempts))
        self._again.set()

    def _decode(self, pairs: list[bytes]) -> ModelReadyToDeploy | None:
        """The event; None where it is replayed to another group. Raises UndecodableEntry."""
        fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
        group = fields.get(b"replay_group")
        if group is not None and group != self._options.group.encode():
            return None
        return decode(fields)

    # -- faults

    async def _after(self, error: RedisError, attempt: int) -> None:
        """Do what lets the next attempt succeed, and wait a little. Raises the error where no attempt will."""
        if is_no_group(error):
            await self._pool.close()
            self._lose_group()
            return
        await prepare_retry(error, self._server, self._pool)
        if attempt == 0 and not self._is_waiting:
            logger.warning("waiting for Redis: %s", error)
        self._is_waiting = True
        if self.in_flight.stopping:
            await asyncio.sleep(0.05)
            return
        pause = min(backoff(attempt), self._options.claim_seconds / 6)  # the others take over after half a claim
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), pause)

    def _lose_group(self) -> None:
        """Without the group nothing is pending: what is in flight comes again from the group made in its place."""
        if not self._must_create:
            logger.warning(
                "group %s of %s is gone: it is created again, and all in the stream comes again",
                self._options.group,
                self._stream,
            )
        self._must_create = "again"
        for entry in list(self.in_flight.entries.values()):
            self.in_flight.lose(entry)

    async def _sleep_until(self, when: float) -> None:
        """Waits until then (monotonic), or until something changes."""
        timer = asyncio.get_running_loop().call_later(max(when - time.monotonic(), 0), self._again.set)
        await self._again.wait()
        timer.cancel()
