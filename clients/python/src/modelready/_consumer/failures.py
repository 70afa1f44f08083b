"""What becomes of an entry whose handler failed, or that was never begun: another attempt, or a dead letter."""

from __future__ import annotations

import logging
import random
import time

from modelready._consumer.in_flight import Failure, InFlight, State
from modelready._consumer.lanes import Lanes
from modelready._consumer.options import Options
from modelready.redis.faults import RedisError, code

logger = logging.getLogger(__name__)

MEMORY_FULL_SECONDS = 0.5
"""How long a dead letter waits that Redis had no memory for."""


class Failures:
    """The failures of one consumer."""

    def __init__(self, lanes: Lanes, in_flight: InFlight, options: Options) -> None:
        self._lanes = lanes
        self._in_flight = in_flight
        self._options = options
        self.memory_full_until: float | None = None
        """Until when no dead letter is written (monotonic), since Redis had no memory for one."""

    async def settle(self) -> None:
        """Settle all that failed. What Redis has no memory for waits with its model, and the other models go on."""
        for failure in self._in_flight.failures():
            entry = failure.entry
            if entry is None or entry.attempts >= self._options.max_attempts:
                if await self._dead_letter(failure):
                    self._in_flight.settled(failure)
            elif entry.state is State.DETACHED:
                await self._lanes.release_one(entry.id, entry.attempts)
                self._in_flight.settled(failure)
            else:
                pause = self._pause(entry.attempts)
                logger.warning("entry %s comes again in %.1f s: %s", entry.id, pause, failure.detail)
                self._in_flight.settled(failure, retry_at=time.monotonic() + pause)

    def _pause(self, attempts: int) -> float:
        """Seconds before the next attempt: full jitter, so that what failed together does not come again together."""
        most = min(self._options.backoff_max_seconds, self._options.backoff_base_seconds * 2.0 ** min(attempts - 1, 30))
        return random.uniform(0, most)  # noqa: S311 - spreads load, hides nothing

    async def _dead_letter(self, failure: Failure) -> bool:
        """Whether the failure is settled: the dead letter is written, or another consumer has the entry."""
        if self.memory_full_until is not None and time.monotonic() < self.memory_full_until:
            return False
        try:
            is_written = await self._lanes.dead_letter(failure.entry_id, self._fields(failure))
        except RedisError as error:
            if code(error) != "OOM":
                raise
            if self.memory_full_until is None:
                logger.warning("the memory of Redis is full: entry %s waits to be a dead letter", failure.entry_id)
            self.memory_full_until = time.monotonic() + MEMORY_FULL_SECONDS
            return False
        self.memory_full_until = None
        if is_written:
            logger.error(
                "entry %s is a dead letter after %d attempts: %s: %s",
                failure.entry_id, failure.attempts, failure.reason, failure.detail,
            )  # fmt: skip
        return True

    def _fields(self, failure: Failure) -> dict[str, str | int]:
        """What a dead letter has besides the entry's own fields."""
        entry, now = failure.entry, int(time.time() * 1000)
        began_at = now - int((time.monotonic() - entry.began_at) * 1000) if entry and entry.began_at else now
        return {
            "dl_reason": failure.reason,
            "dl_detail": failure.detail,
            "dl_attempts": failure.attempts,
            "dl_first_at": began_at,
            "dl_last_at": now,
            "dl_origin": f"group:{self._options.group}",
            "dl_entry_id": failure.entry_id,
        }
