"""A publisher and a forwarder over a queue and a spool in memory."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress

from modelready.v1 import publisher_service_pb2 as pb
from sidecar.errors import RequestError, Unavailable
from sidecar.metrics import Metrics
from sidecar.publishing.backoff import Backoff
from sidecar.publishing.event_log import EventObserver
from sidecar.publishing.forwarder import Forwarder
from sidecar.publishing.interfaces import Event, Tracing
from sidecar.publishing.publisher import Publisher
from sidecar.publishing.spool_gate import SpoolGate
from sidecar.publishing.submission import Published
from sidecar.settings import PublishSettings
from tests.fakes import events as fake_events
from tests.fakes.memory_queue import MemoryQueue
from tests.fakes.memory_spool import MemorySpool
from tests.harness.waiting import auntil

SETTINGS = PublishSettings(timeout=2.0, retry_base=0.005, retry_max=0.02, max_pending=1000)
AWAY = Unavailable("away")
UNKNOWN = Unavailable("no answer", ambiguous=True)


def events(first: int, end: int) -> list[Event]:
    """The events of these numbers, with data that the forwarder can read."""
    return [event._replace(data=event.message.SerializeToString()) for event in fake_events.events(first, end)]


class Bench:
    """A publisher and a forwarder with their doubles; the publisher runs."""

    def __init__(
        self,
        max_bytes: int = 1 << 30,
        settings: PublishSettings = SETTINGS,
        *,
        tracing: Tracing | None = None,
        redis_timeout: float = 5,
    ) -> None:
        self.queue = MemoryQueue(redis_timeout)
        self.spool = MemorySpool(max_bytes=max_bytes)
        self.metrics = Metrics()
        self.gate = SpoolGate(self.spool)
        observer = EventObserver(self.metrics, tracing)
        self.publisher = Publisher(self.queue, self.gate, settings, self.metrics, observer)
        self.forwarder = Forwarder(
            self.queue,
            self.spool,
            self.gate,
            self.metrics,
            observer,
            backoff=Backoff(0.005, 0.02, random.Random(1)),
            dedup_seconds=86400,
            max_age=604800,
        )
        self.tasks = [asyncio.create_task(self.publisher.run())]

    def forward(self) -> None:
        self.tasks.append(asyncio.create_task(self.forwarder.run()))

    async def publish(
        self, batch: list[Event], durability: pb.Durability = pb.DURABILITY_SPOOLED, timeout: float = 1.0
    ) -> list[Published | RequestError]:
        return await self.publisher.submit(batch, durability, timeout)

    async def until(self, condition: Callable[[], bool]) -> None:
        await auntil(condition, 5, "the condition")


async def end(bench: Bench) -> None:
    for task in bench.tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
