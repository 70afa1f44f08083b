"""What a Publish would get at this moment, and why: the same for health, /readyz, the status and the page.

Redis and the spool are checked every second. What changes more often (a full queue, the spool's depth) is read when
needed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from sidecar.errors import AuthFailed, QueueError, RequestError, SetupFault, SpoolError, SpoolUnavailable, Unavailable
from sidecar.metrics import Metrics
from sidecar.publishing.interfaces import Queue, Spool

log = logging.getLogger(__name__)

_PERIOD_SECONDS = 1.0
_SPOOL_SECONDS = 2.0


class State(NamedTuple):
    """What a call that names no durability gets. `summary`: one line for people; `problem`: what is wrong, or empty.

    `accepting`: events are acknowledged; `spooling`: by this task's disk. `reason`: of the problem, a constant such as
    `REDIS_OOM`.
    """

    redis_up: bool
    accepting: bool
    problem: str
    spooling: bool = False
    summary: str = ""
    reason: str = ""


class Readiness:
    """Checks Redis and the spool every second, and calls a listener."""

    def __init__(
        self,
        queue: Queue,
        spool: Spool,
        metrics: Metrics,
        listen: Callable[[State], Awaitable[None]],
        *,
        durability: str,
        replicas: int,
        met: Callable[[], RequestError | None],
    ) -> None:
        """`durability`: PUBLISH_DURABILITY. `met`: the last error of committer and forwarder, if it still holds."""
        self._queue = queue
        self._spool = spool
        self._metrics = metrics
        self._listen = listen
        self._durability = durability
        self._by_redis = "acknowledged by the Redis primary"
        if durability == "replicated":
            self._by_redis += f" and {replicas} of its replicas"
        self._met = met
        self._redis_up = False
        self._redis_error: RequestError | None = Unavailable("starting")
        self._spool_error: SpoolError | None = None
        self._logged: object = None
        self._well = False
        self._away_since = time.monotonic()

    @property
    def state(self) -> State:
        """The state as it is known now."""
        return self._judge(self._error)

    @property
    def spool_error(self) -> str:
        """Why the spool cannot take an event; empty if it can."""
        return str(self._spool_error or "")

    async def refresh(self) -> None:
        """Check now."""
        self._spool_error = await self._ask_spool()
        self._redis_up, self._redis_error = await self._ask_redis()
        state = self.state
        self._log(state)
        self._metrics.redis_up.set(state.redis_up)
        await self._listen(state)

    async def run(self) -> None:
        """Check every second, until cancelled."""
        while True:
            await asyncio.sleep(_PERIOD_SECONDS)
            await self.refresh()

    async def _ask_redis(self) -> tuple[bool, QueueError | None]:
        """Whether Redis answers, and the error that a write would get."""
        answers = False
        try:
            await self._queue.ping()
            answers = True
            await self._queue.try_write()
        except QueueError as error:
            return answers, error
        return True, None

    async def _ask_spool(self) -> SpoolError | None:
        try:
            async with asyncio.timeout(_SPOOL_SECONDS):
                await self._spool.check()
        except TimeoutError:
            return SpoolUnavailable(f"the disk of SPOOL_DIR has not answered for {_SPOOL_SECONDS:g} s")
        except SpoolError as error:
            return error
        return None

    @property
    def _error(self) -> RequestError | None:
        return self._redis_error or self._met()

    def _judge(self, error: RequestError | None) -> State:
        spooled, spool_error = self._spool.depth, self._spool_error
        reason = "" if error is None else error.reason
        behind = f"{spooled} events are on their way from the spool" if spooled else ""
        by_disk = self._durability == "spooled"
        if error is None and not (spooled and by_disk):
            problem = f"the spool takes no event: {spool_error}" if spool_error is not None else ""
            summary = "; ".join(filter(None, (self._by_redis, problem, behind)))
            return State(self._redis_up, True, problem, summary=summary)
        # Report a fault of set-up to the caller at once, unless events are spooled: their order must be kept.
        if by_disk and spool_error is None and (spooled or not isinstance(error, SetupFault)):
            why = str(error) if error is not None else behind
            problem = str(error or "")
            return State(self._redis_up, True, problem, True, f"acknowledged by this task's disk: {why}", reason)
        worst = (error, spool_error) if by_disk and not (isinstance(error, SetupFault) and not spooled) else (error,)
        problem = "; ".join(str(one) for one in worst if one is not None)
        return State(self._redis_up, False, problem, summary=f"refused: {problem}", reason=reason)

    def _log(self, state: State) -> None:
        """Log a change once: a Redis that is away gives several reasons, one after the other."""
        error = self._error
        kind = type(error) if error is None or type(error) is Unavailable else str(error)
        changed = (state.redis_up, state.accepting, kind, type(self._spool_error))
        if changed == self._logged:
            return
        if state.problem:
            grave = not state.accepting or isinstance(error, AuthFailed | SetupFault)
            log.log(logging.ERROR if grave else logging.WARNING, "%s", state.problem)
            if self._well:
                self._away_since = time.monotonic()
        else:
            away = round(time.monotonic() - self._away_since, 1)
            log.info("Redis answers", extra={} if self._logged is None else {"seconds_away": away})
        self._well = not state.problem
        self._logged = changed
