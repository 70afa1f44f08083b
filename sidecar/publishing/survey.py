"""Keeps the gauges of the queue in Redis fresh: depth and pending of each group, the lengths of both streams."""

from __future__ import annotations

import asyncio
import logging

from sidecar.errors import QueueError, SetupFault
from sidecar.metrics import Metrics
from sidecar.publishing.interfaces import QueueInspector

log = logging.getLogger(__name__)

_PERIOD_SECONDS = 10.0


class Survey:
    """One background task, of no consequence to publishing."""

    def __init__(self, inspector: QueueInspector, metrics: Metrics) -> None:
        self._inspector = inspector
        self._metrics = metrics
        self._complained = False

    async def run(self) -> None:
        """Look every ten seconds, until cancelled."""
        while True:
            try:
                await self.look()
            except SetupFault as error:
                if not self._complained:
                    log.warning("the queue's depth is not known: %s", error)
                self._complained = True
            except QueueError:
                pass  # readiness tells; the gauges keep what was known
            await asyncio.sleep(_PERIOD_SECONDS)

    async def look(self) -> None:
        """Look now. Raises QueueErrors."""
        state = await self._inspector.inspect()
        self._metrics.stream_length.set(state.length)
        self._metrics.dead_letter_depth.set(state.dead_letters)
        self._metrics.queue_depth.clear()  # groups that are gone leave no gauge behind
        self._metrics.queue_pending.clear()
        for group in state.groups:
            self._metrics.queue_depth.labels(group.name).set(group.depth)
            self._metrics.queue_pending.labels(group.name).set(group.pending)
