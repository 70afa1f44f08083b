"""What operators see of the queue in Redis, and what their commands, metrics and background tasks need from it.

All times that are stored are Unix milliseconds of this machine's clock; all durations are seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from enum import Enum
from typing import NamedTuple, Protocol

from modelready.entry import UndecodableEntry, decode_data
from modelready.redis.lists import MirrorList
from modelready.v1.event_pb2 import ModelReadyToDeploy


class GroupState(NamedTuple):
    """How far a consumer group is. `depth`: entries it has not acknowledged, `pending` of them delivered.

    `oldest_ms`: the time of the oldest of them. `idle`: seconds since a consumer of it last asked for something.
    """

    name: str
    depth: int
    pending: int
    consumers: int
    oldest_ms: int | None
    undelivered: int
    idle: float | None

    def age(self, now: float) -> float:
        """Seconds that the oldest of them is old at `now`, in seconds since the epoch; 0 where there is none."""
        return 0.0 if self.oldest_ms is None else max(now - self.oldest_ms / 1000, 0.0)


class ConsumerState(NamedTuple):
    """One name in a consumer group. `idle`: seconds since it asked for something; None for names no process has."""

    name: str
    pending: int
    idle: float | None


class MirrorState(NamedTuple):
    """The lengths of a mirror list and of its two companions."""

    mirror: MirrorList
    depth: int
    processing: int
    dead_letters: int


class QueueState(NamedTuple):
    """The queue as Redis has it. `oldest_ms`: the time of the oldest entry; None where there is none."""

    length: int
    dead_letters: int
    oldest_ms: int | None
    groups: Sequence[GroupState]
    lists: Sequence[MirrorState] = ()

    @property
    def depth(self) -> int:
        """Entries of the slowest group; without groups messages of the longest list, and without lists all entries."""
        return max((one.depth for one in self.groups or self.lists), default=self.length)


class DeadLetterCounts(NamedTuple):
    """The number of dead letters by reason, the most frequent first, and the time of the oldest."""

    reasons: Sequence[tuple[str, int]]
    oldest_ms: int | None


class Observed(NamedTuple):
    """The queue as a sidecar last saw it."""

    state: QueueState
    dead: DeadLetterCounts


class RedisState(NamedTuple):
    """The node that holds the queue; what the rights hide is empty. `latency`: of a round trip, in seconds."""

    latency: float
    engine: str = ""
    version: str = ""
    role: str = ""
    used_memory: int = 0
    max_memory: int = 0
    eviction_policy: str = ""
    replicas: int = 0
    cluster: bool = False


class QueueInspector(Protocol):
    """Looks at the queue in Redis now. What looks periodically uses a QueueObserver.

    The depth of a group in the middle of a long stream is an estimate until its entries are counted, at 1,000 a second.
    """

    @property
    def name(self) -> str:
        """QUEUE_NAME."""

    @property
    def stream(self) -> str:
        """The key of the stream."""

    async def inspect(self) -> QueueState:
        """The state now. Raises QueueErrors."""

    async def dead_letter_counts(self) -> DeadLetterCounts:
        """Of the oldest 10,000 dead letters, the 20 most frequent reasons and the rest as one. Raises QueueErrors."""

    async def dedup_keys(self) -> int:
        """About how many dedup keys there are; see the implementation. Raises QueueErrors."""

    async def redis(self) -> RedisState:
        """The node that answers. Raises QueueErrors."""


class QueueObserver(Protocol):
    """Shares what one sidecar saw of the queue with all others."""

    async def observe(self) -> Observed:
        """As it was at most some 20 seconds ago. The consumers include those of a replay. Raises QueueErrors."""


class StoredDeadLetter(NamedTuple):
    """A dead letter as it stands in its stream. Other programs write some, too."""

    id: str
    event_id: str
    reason: str
    detail: str
    origin: str
    group: bytes
    """The consumer group that gave it up; empty where none did. No text: it may have any name."""
    attempts: int
    first_ms: int | None
    last_ms: int | None
    entry_id: str
    subject: str
    correlation_id: str
    content_type: str
    data: bytes

    @property
    def event(self) -> ModelReadyToDeploy | None:
        """The event in its data, decoded at each use; None where that is not legible."""
        with suppress(UndecodableEntry):
            return decode_data(self.content_type.encode(), self.data)
        return None

    @property
    def dead_ms(self) -> int:
        """When it became a dead letter."""
        return int(self.id.partition("-")[0])


class Replayed(Enum):
    """What became of one dead letter: put back; gone already; still there, since it cannot be put back."""

    DONE = "done"
    MISSING = "missing"
    SKIPPED = "skipped"


class DeadLetterStore(Protocol):
    """The stream of dead letters. Every method raises QueueErrors."""

    async def read(self, first: str, last: str, count: int) -> Sequence[StoredDeadLetter]:
        """The oldest `count` dead letters of a range of ids, in order.

        Ids as XRANGE takes them: `-`, `+`, `<ms>` for all of a millisecond, `(` before what is left out.
        """

    async def read_back(self, last: str, first: str, count: int) -> Sequence[StoredDeadLetter]:
        """The newest `count` dead letters of a range of ids, the newest first."""

    async def get(self, ids: Sequence[str]) -> Sequence[StoredDeadLetter | None]:
        """These, in order; None for each that is gone."""

    async def last_id(self) -> str | None:
        """The id of the newest; None where there is none."""

    async def groups(self) -> set[bytes]:
        """The names of the queue's consumer groups."""

    async def check_rights(self) -> None:
        """Raise SetupFault where a right to replay or to discard is missing; nothing is changed."""

    async def replay(self, letter: StoredDeadLetter, *, everyone: bool) -> Replayed:
        """Put one back in one atomic step, and at most once however often this is called.

        To the one group that gave it up, unless `everyone` is set or the sidecar did. What goes to everyone must be
        legible. When it raises an ambiguous Unavailable, it is either replayed or still a dead letter.
        """

    async def given_up(self, list_name: str, count: int) -> tuple[int, Sequence[bytes]]:
        """The number of messages that consumers of a mirror list gave up, and the oldest `count` of them, in order.

        Raises InvalidRequest where there is no such mirror list.
        """

    async def replay_to_list(self, list_name: str, message: bytes) -> Replayed:
        """Put one of them back into its list in one atomic step, to be tried as if for the first time."""

    async def discard(self, letters: Sequence[StoredDeadLetter]) -> int:
        """Remove these; returns how many were still there."""


class Changed(Enum):
    """What became of a consumer group: changed; there is none; or left alone, since it is being read."""

    DONE = "done"
    MISSING = "missing"
    READ = "read"


class GroupStore(Protocol):
    """The consumer groups in Redis. Every method raises QueueErrors."""

    async def names(self) -> Sequence[str]:
        """Of all groups."""

    async def consumers(self, groups: Sequence[str]) -> Sequence[Sequence[ConsumerState]]:
        """All names in each group; none where there is no such group, or without the right to ask."""

    async def create(self, group: str, start: str) -> bool:
        """Create the group behind the entry id `start`, or at the end for `$`. Whether it was not there."""

    async def remove(self, group: str, start: str, *, unread_seconds: float) -> Changed:
        """Remove the group and its lanes; if `start` is not empty, create it again there. All in one atomic step.

        Nothing is done where a consumer asked for something within `unread_seconds`; 0: it is done in any case.
        """

    async def forget_consumers(self, group: str, idle_seconds: float) -> int:
        """Remove names that asked for nothing for that long and have nothing pending. Returns how many.

        Names that no process has stay, and so does the one that asked last.
        """


class Entry(NamedTuple):
    """An entry of the stream; `event` is None where it is not legible. `only_for`: the one group that it is for."""

    id: str
    event: ModelReadyToDeploy | None
    only_for: str


class StreamReader(Protocol):
    """Reads the stream outside any group: nothing is acknowledged by it. Every method raises QueueErrors."""

    async def after(self, entry_id: str, count: int) -> Sequence[Entry]:
        """The oldest `count` entries behind an id, in order."""

    async def newest(self, count: int, after: str = "0-0") -> Sequence[Entry]:
        """The newest `count` entries behind an id, in order."""

    async def last_delivered(self, group: str) -> str | None:
        """The last id that a group was given; None where there is no such group."""

    async def pending(self, group: str, last: str) -> Sequence[str]:
        """The ids up to `last` that a group was given and has not acknowledged, in order."""

    async def get(self, ids: Sequence[str]) -> Sequence[Entry]:
        """These entries, in order, without those that are gone."""


class StreamTrimmer(Protocol):
    """Removes entries from the stream. Every method raises QueueErrors."""

    async def take_turn(self, seconds: float) -> bool:
        """Whether it is this sidecar's turn to trim. If so, no other sidecar gets a turn for that many seconds."""

    async def trim(self, before_ms: int) -> int:
        """Remove entries that are older and that every group has acknowledged, a bounded number. Returns how many.

        Returns 0 when nothing is left to remove. Without groups, what the mirror lists have is removed; without either,
        nothing is.
        """
