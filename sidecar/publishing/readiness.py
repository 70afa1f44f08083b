"""Whether an event can be accepted now, and if not, why: looked at every second."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from sidecar.errors import AuthFailed, QueueError, SetupFault, Unavailable
from sidecar.metrics import Metrics
from sidecar.publishing.interfaces import Queue, Spool
from sidecar.publishing.publisher import Publisher

log = logging.getLogger(__name__)

_PERIOD_SECONDS = 1.0
_FAULT_SECONDS = 10.0
_ROOM_BYTES = 64 * 1024


class State(NamedTuple):
    """What is known. `problem` is one line for people; empty when all is well.

    `accepting`: ready for more. With credentials that Redis refuses it is not, though events are kept: `spooling`.
    """

    redis_up: bool
    accepting: bool
    problem: str
    spooling: bool = False


class Readiness:
    """Asks Redis every second and tells a listener about changes."""

    def __init__(
        self,
        queue: Queue,
        spool: Spool,
        publisher: Publisher,
        metrics: Metrics,
        listen: Callable[[State], Awaitable[None]],
    ) -> None:
        self._queue = queue
        self._spool = spool
        self._publisher = publisher
        self._metrics = metrics
        self._listen = listen
        self.state = State(False, False, "starting")
        self._told: object = None
        self._away_since = time.monotonic()

    async def look(self) -> None:
        """Look now."""
        error: QueueError | None = None
        try:
            await self._queue.ping()
        except QueueError as failure:
            error = failure
        state = self._judge(error)
        self._tell(state, error)
        self.state = state
        self._metrics.redis_up.set(state.redis_up)
        await self._listen(state)

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(_PERIOD_SECONDS)
            await self.look()

    def _tell(self, state: State, error: QueueError | None) -> None:
        """Say what has changed, once: a Redis that is away gives several reasons, one after the other."""
        told = (state.redis_up, state.accepting, "" if type(error) is Unavailable else state.problem)
        if told == self._told:
            return
        if state.problem:
            log.log(logging.WARNING if state.accepting else logging.ERROR, "%s", state.problem)
            if not self.state.problem:
                self._away_since = time.monotonic()
        else:
            away = round(time.monotonic() - self._away_since, 1)
            log.info("Redis answers", extra={} if self._told is None else {"seconds_away": away})
        self._told = told

    def _judge(self, error: QueueError | None) -> State:
        fault = self._publisher.fault
        if error is None and fault is not None and time.monotonic() - fault[1] < _FAULT_SECONDS:
            return State(redis_up=True, accepting=False, problem=str(fault[0]))
        if error is None:
            return State(redis_up=True, accepting=True, problem="")
        if isinstance(error, SetupFault):
            return State(redis_up=False, accepting=False, problem=str(error))
        if self._spool.max_bytes - self._spool.bytes < _ROOM_BYTES:
            return State(redis_up=False, accepting=False, problem=f"{error}; the spool is full")
        ready = not isinstance(error, AuthFailed)  # somebody must act, and soon
        return State(redis_up=False, accepting=ready, problem=f"{error}; events are spooled", spooling=True)
