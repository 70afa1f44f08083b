"""What publishing needs from Redis and the disk. Contract tests run against every implementation of a Protocol.

All times that are stored are Unix milliseconds of this machine's clock; all durations are seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from modelready.v1.event_pb2 import ModelReadyToDeploy


class Event(NamedTuple):
    """An accepted event: complete, valid, ready to be stored."""

    id: str
    message: ModelReadyToDeploy
    data: bytes
    """The serialized message."""


class Appended(NamedTuple):
    """Where the queue has an event. `duplicate`: an earlier attempt put it there."""

    entry_id: str
    duplicate: bool


class Attempts(NamedTuple):
    """The attempts to append an event whose outcome is not known: how many, and when the first and the last began."""

    count: int = 0  # type: ignore[assignment]
    first_ms: int = 0
    last_ms: int = 0


class Spooled(NamedTuple):
    """One event in the spool. `dead` is why it is a dead letter, as (reason, detail), or None."""

    seq: int
    event_id: str
    data: bytes
    spooled_ms: int
    attempts: Attempts
    dead: tuple[str, str] | None


class DeadLetter(NamedTuple):
    """One dead letter to be written. `data` is the serialized event, or what is left of a damaged one."""

    event_id: str
    data: bytes
    reason: str
    detail: str
    attempts: int
    first_ms: int
    last_ms: int


class Queue(Protocol):
    """The queue in Redis.

    Every method raises Unavailable (or AuthFailed) when a later attempt may succeed, and SetupFault when a person has
    to act first. None retries by itself, and each ends within REDIS_TIMEOUT_SECONDS.
    """

    async def append(self, events: Sequence[Event], *, replicas: int = 0) -> tuple[list[Appended], int]:
        """Append the events in order, each at most once in the dedup window, however often this is called.

        Returns where each is, and how many replicas confirmed all of them (0 when `replicas` is 0; it may be fewer
        than asked for, and then the events are on the primary alone). Raises Refused where Redis can never take one of
        them: the caller finds out which by appending them one by one.
        """

    async def find(self, event_ids: Sequence[str], since_ms: int, until_ms: int) -> dict[str, str]:
        """The entry ids of those events that stand in the stream in this range of time (with room for clock skew)."""

    async def dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        """Write dead letters, each at most once in the dedup window."""

    async def ping(self) -> None:
        """One authenticated round trip. It writes nothing and finds most set-up faults."""

    async def try_write(self) -> None:
        """Raise what an append would meet now: a replica, a full memory, a missing right. It writes nothing."""


class Spool(Protocol):
    """The durable buffer on this task's disk. First in, first out.

    What a method changed is on disk, fsynced, when it returns; when it raises, nothing was changed. All but the
    properties raise SpoolUnavailable when the disk fails.
    """

    @property
    def depth(self) -> int:
        """Events in it, dead ones included."""

    @property
    def bytes(self) -> int:
        """The size of the events in it, each with an allowance for its overhead."""

    @property
    def max_bytes(self) -> int:
        """SPOOL_MAX_BYTES."""

    @property
    def last_seq(self) -> int:
        """The highest sequence number that was ever given out."""

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest event in it was spooled."""

    @property
    def damaged(self) -> int:
        """How many damaged files were set aside since the start."""

    @property
    def free_bytes(self) -> int:
        """The free room of its disk, when it was checked last."""

    async def check(self) -> None:
        """Raise SpoolFull or SpoolUnavailable where an event of the largest size could not be put now."""

    async def put(self, events: Sequence[Event], attempts: Attempts) -> None:
        """Keep the events, in order, after all others. One that is in the spool already is not added again.

        Raises SpoolFull when they do not all fit.
        """

    async def advance(
        self, done: Sequence[int], limit: int, attempt_ms: int | None = None, *, after: int = 0
    ) -> list[Spooled]:
        """Forget the events with the sequence numbers `done` and return the `limit` oldest of the rest, in one commit.

        Only those with a number above `after`, so that a batch can be read while the one before it is on its way.
        With `attempt_ms` those returned that are not dead are marked as being attempted at that time, in the same
        commit: whatever happens to this process next, it is known that they may be in the queue.
        """

    async def mark_dead(self, seqs: Sequence[int], reason: str, detail: str) -> None:
        """Mark these as dead letters; they stay until the dead-letter stream has them."""


class Tracing(Protocol):
    """The sidecar's spans in a caller's trace, one an event (docs/adr/0017). No method waits, and none raises."""

    def begin(self, message: ModelReadyToDeploy) -> None:
        """Begin the span of an event that is being accepted, as a child of its `traceparent`.

        From here on `traceparent` is the span's own: what the entry will have, whatever way it takes to the queue. One
        that says "not sampled" stays as it is, and nothing is recorded.
        """

    def end(self, message: ModelReadyToDeploy, outcome: str, entry_id: str) -> None:
        """End the span that was begun for this event, if there is one: it is acknowledged."""

    def fail(self, message: ModelReadyToDeploy, reason: str) -> None:
        """The same: it is not acknowledged."""

    def forwarded(self, message: ModelReadyToDeploy, spooled_ms: int, outcome: str, entry_id: str) -> None:
        """Record that an event left the spool for the queue, as a child of its `traceparent`."""


class Depth(NamedTuple):
    """The depth of the slowest group, without groups the stream's length, when the newest id was `last_id`.

    That id is a number, see publishing.entry_ids.
    """

    depth: int
    last_id: int


class DepthObserver(Protocol):
    """Shares what one sidecar saw of the queue's depth with all others."""

    async def depth(self) -> Depth:
        """As it was at most some two seconds ago. Raises QueueErrors."""
