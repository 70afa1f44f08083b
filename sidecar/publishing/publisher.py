"""Takes events from callers and passes them to the committers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from modelready.v1 import publisher_service_pb2 as pb
from sidecar.errors import Overloaded, SetupFault, ShuttingDown
from sidecar.metrics import Metrics
from sidecar.publishing.committer import Committer
from sidecar.publishing.event_log import EventObserver
from sidecar.publishing.interfaces import Event, Queue
from sidecar.publishing.spool_gate import SpoolGate
from sidecar.publishing.submission import DURABILITIES, Results, Submission
from sidecar.settings import PublishSettings

_PENDING_BYTES = 16 << 20  # a waiting event takes several times its size
_STREAMS_SHARE = 0.75  # of what may wait: streams alone would fill it, and single calls would be refused


class Publisher:
    """Two committers: events that need replicas have one of their own, so that a slow replica delays no other caller.

    Each keeps the order of its events; between the two, the order is that of the acknowledgements.
    """

    def __init__(
        self,
        queue: Queue,
        gate: SpoolGate,
        settings: PublishSettings,
        metrics: Metrics,
        observer: EventObserver,
        *,
        min_replicas: int = 1,
    ) -> None:
        self._settings = settings
        self._default = DURABILITIES[settings.durability]
        self._released = asyncio.Event()
        plain, replicated = (
            Committer(
                queue,
                gate,
                settings,
                metrics,
                observer,
                released=self._released.set,
                replicas=replicas,
            )
            for replicas in (0, min_replicas)
        )
        self._plain, self._replicated, self._both = plain, replicated, (plain, replicated)
        self._closing = False

    @property
    def pending(self) -> int:
        """Events that wait in memory."""
        return self._plain.waiting.events + self._replicated.waiting.events

    @property
    def fault(self) -> tuple[SetupFault, float] | None:
        """The fault of set-up that a last attempt met, and time.monotonic() of it; None once one succeeded."""
        return self._plain.fault or self._replicated.fault

    def check_room(self, count: int, size: int) -> None:
        """Raise Overloaded where `count` more events, of `size` bytes together, may not wait in memory."""
        if not self._fits(count, size):
            most = f"SIDECAR_MAX_PENDING, {self._settings.max_pending}, and {_PENDING_BYTES >> 20} MiB"
            raise Overloaded(f"{self.pending} events wait already; at most {most} may")

    async def wait_for_room(self, count: int, size: int) -> None:
        """Wait until a frame of a stream fits, with room left for single calls, or until nothing waits any more.

        PUBLISH_TIMEOUT_SECONDS at most.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.timeout):
                while self.pending and not self.has_room(count, size):
                    self._released.clear()
                    await self._released.wait()

    def has_room(self, count: int, size: int) -> bool:
        """Whether a frame of a stream fits now, with room left for single calls."""
        return self._fits(count, size, _STREAMS_SHARE)

    def _fits(self, count: int, size: int, share: float = 1.0) -> bool:
        pending_bytes = self._plain.waiting.bytes + self._replicated.waiting.bytes
        most, most_bytes = self._settings.max_pending * share, _PENDING_BYTES * share
        return self.pending + count <= most and pending_bytes + size <= most_bytes

    def submit(
        self, events: Sequence[Event], durability: pb.Durability, timeout: float | None, *, kept: bool = False
    ) -> asyncio.Future[Results]:
        """Take events, in order; the future ends within `timeout` seconds: a result for each, or a RequestError.

        Cancelling the future withdraws nothing. `kept`: the caller has them on a disk and tries again, so that no
        event counts as refused when Redis is away. Raises Overloaded and ShuttingDown.
        """
        if self._closing:
            raise ShuttingDown("the sidecar is stopping")
        most = self._settings.timeout
        seconds = most if timeout is None else min(timeout, most)
        submission = Submission(events, durability or self._default, seconds, kept=kept)
        self.check_room(len(events), submission.size)
        (self._replicated if submission.durability == pb.DURABILITY_REPLICATED else self._plain).add(submission)
        return submission.future

    async def run(self) -> None:
        """Commit group after group until `close`."""
        await asyncio.gather(*(committer.run() for committer in self._both))

    async def close(self, seconds: float) -> None:
        """Take no more, and commit or answer what waits within that time. `run` ends."""
        self._closing = True
        for committer in self._both:
            committer.close(seconds)
