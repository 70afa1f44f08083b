"""Keeps the gauges of what is in Redis fresh: depth, pending and age of each group, both streams, and its memory."""

from __future__ import annotations

import itertools
import logging
import time

from sidecar.metrics import Metrics
from sidecar.operations.background import repeat
from sidecar.operations.interfaces import GroupState, QueueInspector, QueueObserver
from sidecar.operations.trimmer import held_back

log = logging.getLogger(__name__)

_PERIOD_SECONDS = 10.0
_PERIODS_OF_MEMORY = 6


class QueueMetrics:
    """One background task, of no consequence to publishing."""

    def __init__(self, inspector: QueueInspector, observer: QueueObserver, metrics: Metrics, retention: float) -> None:
        """`retention`: QUEUE_RETENTION_SECONDS; a group that holds entries past this is reported."""
        self._inspector = inspector
        self._observer = observer
        self._metrics = metrics
        self._retention = retention
        self._late = ""

    async def run(self) -> None:
        """Refresh every ten seconds, the memory every minute, until cancelled."""
        periods = itertools.count()

        async def refresh() -> None:
            period = next(periods)
            await self.refresh()
            if period % _PERIODS_OF_MEMORY == 0:
                await self.refresh_memory()

        # Where it fails the gauges keep what was known.
        await repeat(refresh, _PERIOD_SECONDS, log, "the queue's depth is not known: %s")

    async def refresh(self) -> None:
        """Set the gauges. Raises QueueErrors."""
        state, dead = await self._observer.observe()
        self._metrics.stream_length.set(state.length)
        self._metrics.dead_letter_depth.set(state.dead_letters)
        self._metrics.queue_depth.clear()  # groups that are gone leave no gauge behind
        self._metrics.queue_pending.clear()
        self._metrics.queue_age.clear()
        for group in state.groups:
            self._metrics.queue_depth.labels(group.name).set(group.depth)
            self._metrics.queue_pending.labels(group.name).set(group.pending)
            self._metrics.queue_age.labels(group.name).set(group.age(time.time()))
        for one in state.lists:
            self._metrics.list_depth.labels(one.mirror.name).set(one.depth)
            self._metrics.list_processing.labels(one.mirror.name, one.mirror.processing).set(one.processing)
            self._metrics.list_dead_letters.labels(one.mirror.name, one.mirror.dead_letters).set(one.dead_letters)
        self._report_late(held_back(state.groups, self._retention))
        self._metrics.dead_letters_by_reason.clear()
        for reason, count in dead.reasons:
            self._metrics.dead_letters_by_reason.labels(reason).set(count)

    async def refresh_memory(self) -> None:
        """Set the gauges of Redis' memory; what the rights hide has none. Raises QueueErrors."""
        redis = await self._inspector.redis()
        self._metrics.eviction_policy.clear()
        if redis.eviction_policy:
            self._metrics.eviction_policy.labels(redis.eviction_policy).set(1)
            self._metrics.redis_used_memory.set(redis.used_memory)
            self._metrics.redis_max_memory.set(redis.max_memory)

    def _report_late(self, group: GroupState | None) -> None:
        """Log once that a group keeps the stream from being trimmed; it may have been abandoned."""
        self._metrics.held_back.clear()
        if group is not None:
            age = group.age(time.time())
            self._metrics.held_back.labels(group.name).set(age)
            if group.name != self._late:
                text = "the group %s keeps entries older than QUEUE_RETENTION_SECONDS, the oldest of %.0f s"
                log.warning(text, group.name, age, extra={"group": group.name, "depth": group.depth})
        self._late = group.name if group is not None else ""
