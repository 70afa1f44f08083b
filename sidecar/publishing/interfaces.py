"""What the rules need of the world. Each Protocol's contract is tested against every implementation of it.

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
    """What the dead-letter stream gets. `data` is the serialized event, or what is left of it where it is damaged."""

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
    to act first. None retries by itself, and each ends within `timeout` seconds or the connection's own time limit.
    """

    async def append(self, events: Sequence[Event], *, replicas: int = 0, timeout: float) -> tuple[list[Appended], int]:
        """Append the events in order, each at most once in the dedup window, however often this is called.

        Returns where each is, and how many replicas confirmed all of them (0 when `replicas` is 0; it may be fewer
        than asked for, and then the events are on the primary alone). Raises Refused where Redis can never take one of
        them: the caller finds out which by appending them one by one.
        """

    async def find(self, event_ids: Sequence[str], since_ms: int, until_ms: int) -> dict[str, str]:
        """The entry ids of those events that stand in the stream in this range of time (with room for clock skew)."""

    async def bury(self, letters: Sequence[DeadLetter], *, timeout: float) -> None:
        """Write dead letters, each at most once in the dedup window."""

    async def ping(self) -> None:
        """One authenticated round trip that finds most faults of set-up and writes nothing."""


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
        """The size of the events in it, with an allowance for each one's overhead."""

    @property
    def max_bytes(self) -> int:
        """SPOOL_MAX_BYTES."""

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest event in it was spooled."""

    @property
    def damaged(self) -> int:
        """How many damaged files were set aside since the start."""

    def room_for(self, event: Event) -> int:
        """The bytes that it would take in the spool."""

    async def put(self, events: Sequence[Event], attempts: Attempts) -> None:
        """Keep the events, in order, after all others. One that is in the spool already is not added again.

        Raises SpoolFull when they do not all fit.
        """

    async def advance(self, done: Sequence[int], limit: int, attempt_ms: int | None = None) -> list[Spooled]:
        """Forget the events with the sequence numbers `done` and return the `limit` oldest of the rest, in one commit.

        With `attempt_ms` those returned that are not dead are marked as being attempted at that time, in the same
        commit: whatever happens to this process next, it is known that they may be in the queue.
        """

    async def mark_dead(self, seqs: Sequence[int], reason: str, detail: str) -> None:
        """Note that these are dead letters from now on; they stay until the queue has them as such."""


class GroupState(NamedTuple):
    """How far a consumer group is. `depth`: entries it has not acknowledged, `pending` of them delivered."""

    name: str
    depth: int
    pending: int
    consumers: int
    oldest_ms: int | None


class MirrorState(NamedTuple):
    """The lengths of the mirror list and of its two companions."""

    name: str
    depth: int
    processing: int
    dead_letters: int


class QueueState(NamedTuple):
    """The queue as Redis has it."""

    length: int
    dead_letters: int
    groups: Sequence[GroupState]
    mirror: MirrorState | None


class QueueInspector(Protocol):
    """Looks at the queue in Redis."""

    @property
    def name(self) -> str:
        """QUEUE_NAME."""

    @property
    def stream(self) -> str:
        """The key of the stream."""

    async def inspect(self) -> QueueState:
        """The state now. Raises QueueErrors."""
