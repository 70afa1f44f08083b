"""Whether an event can be accepted now, and if not, why: looked at every second."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from sidecar.errors import AuthFailed, QueueError, SetupFault
from sidecar.metrics import Metrics
from sidecar.publishing.interfaces import Queue, Spool
from sidecar.publishing.publisher import Publisher

log = logging.getLogger(__name__)

_PERIOD_SECONDS = 1.0
_FAULT_SECONDS = 10.0
_ROOM_BYTES = 64 * 1024


class State(NamedTuple):
    """What is known. `problem` is one line for people; empty when all is well."""

    redis_up: bool
    accepting: bool
    problem: str


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

    async def look(self) -> None:
        """Look now."""
        error: QueueError | None = None
        try:
            await self._queue.ping()
        except QueueError as failure:
            error = failure
        state = self._judge(error)
        if state.problem != self.state.problem:
            if state.problem:
                log.log(logging.WARNING if state.accepting else logging.ERROR, "%s", state.problem)
            else:
                log.info("Redis answers")
        self.state = state
        self._metrics.redis_up.set(state.redis_up)
        await self._listen(state)

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(_PERIOD_SECONDS)
            await self.look()

    def _judge(self, error: QueueError | None) -> State:
        fault = self._publisher.fault
        if error is None and fault is not None and time.monotonic() - fault[1] < _FAULT_SECONDS:
            return State(redis_up=True, accepting=False, problem=str(fault[0]))
        if error is None:
            return State(redis_up=True, accepting=True, problem="")
        if isinstance(error, AuthFailed | SetupFault):
            return State(redis_up=False, accepting=False, problem=str(error))
        if self._spool.max_bytes - self._spool.bytes < _ROOM_BYTES:
            return State(redis_up=False, accepting=False, problem=f"{error}; the spool is full")
        return State(redis_up=False, accepting=True, problem=f"{error}; events are spooled")
