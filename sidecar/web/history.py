"""Samples of the last hour, in memory, for the plots."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from sidecar.errors import QueueError
from sidecar.metrics import Metrics
from sidecar.operations.interfaces import QueueObserver
from sidecar.publishing.interfaces import Spool

PERIOD_SECONDS = 15.0
HOUR_SECONDS = 3600
_POINTS = int(HOUR_SECONDS / PERIOD_SECONDS)
_ACKNOWLEDGED = ("stored", "duplicate", "spooled")


class Sample(NamedTuple):
    """One moment, in Unix seconds. None where it is not known.

    `depth`: of the slowest group; `rate`: events acknowledged a second since the sample before; `spooled`: events.
    """

    at: float
    depth: int | None
    rate: float | None
    spooled: int


class History:
    """Samples of the last hour, the oldest first."""

    def __init__(self, observer: QueueObserver, spool: Spool, metrics: Metrics) -> None:
        self._observer = observer
        self._spool = spool
        self._metrics = metrics
        self._samples: deque[Sample] = deque(maxlen=_POINTS)
        self._before: tuple[float, float] | None = None

    async def run(self) -> None:
        """Take a sample every 15 s until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(PERIOD_SECONDS)

    async def refresh(self) -> None:
        """Take a sample now."""
        depth = None
        with suppress(QueueError):
            depth = (await self._observer.observe()).state.depth
        now, total = time.monotonic(), _acknowledged(self._metrics)
        rate = None
        if self._before is not None and now > self._before[0]:
            rate = (total - self._before[1]) / (now - self._before[0])
        self._before = now, total
        self._samples.append(Sample(time.time(), depth, rate, self._spool.depth))

    def add(self, sample: Sample) -> None:
        """Add a sample that was taken elsewhere."""
        self._samples.append(sample)

    def samples(self, clock: Callable[[], float] = time.time) -> list[Sample]:
        """The samples of the last hour. Any thread may call it."""
        since = clock() - HOUR_SECONDS
        return [sample for sample in self._samples.copy() if sample.at >= since]


def _acknowledged(metrics: Metrics) -> float:
    (family,) = metrics.published.collect()
    return sum(
        sample.value
        for sample in family.samples
        if sample.name.endswith("_total") and sample.labels["outcome"] in _ACKNOWLEDGED
    )
