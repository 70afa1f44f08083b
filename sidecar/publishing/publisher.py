"""Takes events from callers and hands them to the committers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from modelready.v1 import publisher_service_pb2 as pb
from sidecar.errors import Overloaded, QueueError, SetupFault, ShuttingDown, SpoolError
from sidecar.metrics import Metrics
from sidecar.publishing import spans
from sidecar.publishing.committer import Committer
from sidecar.publishing.interfaces import Event, Queue, Spool
from sidecar.publishing.submission import DURABILITIES, Results, Submission
from sidecar.settings import PublishSettings

_PENDING_BYTES = 16 << 20  # a waiting event takes several times its size
_MARGIN_SHARE, _MARGIN_MOST = 0.25, 0.25


class Publisher:
    """Two committers: those who need replicas have one of their own, so that a slow replica keeps nobody else waiting.

    Order is kept among the events of each; between the two it is that of the acknowledgements.
    """

    def __init__(
        self, queue: Queue, spool: Spool, settings: PublishSettings, metrics: Metrics, *, min_replicas: int = 1
    ) -> None:
        self._settings = settings
        self._default = DURABILITIES[settings.durability]
        self._plain = Committer(queue, spool, settings, metrics)
        self._replicated = Committer(queue, spool, settings, metrics, replicas=min_replicas)
        self._both = (self._plain, self._replicated)
        self._closing = False
        self.spooled = self._plain.spooled
        """Set when something was put into the spool."""
        self.may_spool = self._plain.may_spool
        """Cleared by the forwarder while it makes headway, so that the spool shrinks under any load."""

    @property
    def pending(self) -> int:
        """Events that wait in memory."""
        return self._plain.pending + self._replicated.pending

    @property
    def fault(self) -> tuple[SetupFault, float] | None:
        """The fault of set-up that a last attempt met, and time.monotonic() of it; None once one succeeded."""
        return self._plain.fault or self._replicated.fault

    def has_room(self, count: int, size: int) -> bool:
        """Whether so many more events of so many bytes may wait in memory."""
        waiting = self._plain.pending_bytes + self._replicated.pending_bytes
        return self.pending + count <= self._settings.max_pending and waiting + size <= _PENDING_BYTES

    def submit(
        self, events: Sequence[Event], durability: pb.Durability, timeout: float | None
    ) -> asyncio.Future[Results]:
        """Hand over events, in order; the future ends within `timeout` seconds: a result for each, or a PublishError.

        Cancelling the future withdraws nothing. Raises Overloaded and ShuttingDown.
        """
        try:
            return self._submit(events, durability, timeout)
        except (Overloaded, ShuttingDown) as error:
            spans.end(events, [error] * len(events))
            raise

    def _submit(
        self, events: Sequence[Event], durability: pb.Durability, timeout: float | None
    ) -> asyncio.Future[Results]:
        if self._closing:
            raise ShuttingDown("the sidecar is stopping")
        span = min(timeout if timeout is not None else self._settings.timeout, self._settings.timeout)
        answer_by = time.monotonic() + span - min(span * _MARGIN_SHARE, _MARGIN_MOST)
        submission = Submission(events, durability or self._default, answer_by)
        if not self.has_room(len(events), submission.size):
            most = f"SIDECAR_MAX_PENDING, {self._settings.max_pending}, and {_PENDING_BYTES >> 20} MiB"
            raise Overloaded(f"{self.pending} events wait already; at most {most} may")
        (self._replicated if submission.durability == pb.DURABILITY_REPLICATED else self._plain).add(submission)
        return submission.future

    def tell(self, error: QueueError | SpoolError | None) -> None:
        """Why the spool is not emptied, for those who wait for that; None: it is."""
        for committer in self._both:
            committer.trouble = error

    def wake(self) -> None:
        """Look again: the spool may be empty."""
        for committer in self._both:
            committer.wake()

    async def run(self) -> None:
        """Commit group after group until `close`."""
        await asyncio.gather(*(committer.run() for committer in self._both))

    async def close(self, seconds: float) -> None:
        """Take no more, and commit or answer what waits within that time. `run` ends."""
        self._closing = True
        for committer in self._both:
            committer.close(seconds)
