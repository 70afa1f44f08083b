"""A queue in memory: it runs a handler as a consumer does, by the consumer's own loop, and without waiting."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, TypeVar, cast

from modelready._consumer.base import ConsumerBase
from modelready._consumer.handler import blocking
from modelready._consumer.in_flight import Entry
from modelready._consumer.lanes import Given, Turn
from modelready._consumer.loop import Loop
from modelready.entry import encode
from modelready.event import complete
from modelready.v1.event_pb2 import ModelReadyToDeploy

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from modelready._consumer.lanes import Lanes
    from modelready.redis.cluster import Server

Result = TypeVar("Result")


class QueueOptions(TypedDict, total=False):
    """The keywords of a queue besides its handler; they mean the same as a consumer's."""

    group: str
    max_attempts: int
    batch: int


@dataclass(frozen=True)
class DeadLetter:
    """An event that the handler did not get done."""

    event: ModelReadyToDeploy
    reason: str
    """HANDLER_FAILED or CONSUMER_DIED."""
    detail: str
    """The last line of the handler's traceback."""
    attempts: int


@dataclass
class Delivered:
    """What became of the events of one `deliver`."""

    acknowledged: list[ModelReadyToDeploy] = field(default_factory=list)
    """Those for which the handler returned, in the order in which it did."""
    dead_letters: list[DeadLetter] = field(default_factory=list)
    calls: list[list[ModelReadyToDeploy]] = field(default_factory=list)
    """The events of each call of the handler; one event each, unless it takes batches."""
    errors: list[Exception] = field(default_factory=list)
    """What the handler raised."""


class _Stored(NamedTuple):
    id: str
    event: ModelReadyToDeploy
    attempts: int


class MemoryLanes:
    """What `Lanes` does in Redis for a group of one consumer, in memory."""

    def __init__(self) -> None:
        self.delivered = Delivered()
        self._number = 0
        self._new: deque[_Stored] = deque()
        self._taken: dict[str, _Stored] = {}

    @property
    def has_new(self) -> bool:
        """Whether there is something that no turn has given."""
        return bool(self._new)

    def put(self, event: ModelReadyToDeploy, attempts: int) -> None:
        """Append it to the queue; `attempts`: how many times it was begun before."""
        self._number += 1
        self._new.append(_Stored(f"{int(time.time() * 1000)}-{self._number}", event, attempts))

    async def turn(
        self,
        handled: Sequence[str] = (),
        ended: Sequence[bytes] = (),  # noqa: ARG002 - nothing waits behind a lane of another consumer
        begins: Sequence[tuple[str, int]] = (),
        *,
        room: int = 0,
        demand: int | None = 0,
        reads: bool = True,
    ) -> Turn:
        """See `Lanes.turn`."""
        for entry_id in handled:
            self.delivered.acknowledged.append(self._taken.pop(entry_id).event)
        given: list[Given] = []
        while reads and self._new and len(given) < room:
            stored = self._new.popleft()
            self._taken[stored.id] = stored
            is_begun = stored.attempts == 0 and (demand is None or len(given) < demand)
            pairs = [part for name, value in encode(stored.event).items() for part in (name.encode(), value)]
            given.append(Given(stored.id, stored.event.model.name.encode(), stored.attempts, is_begun, pairs))
        left = "" if not reads else "more" if self._new else f"{int(time.time() * 1000)}-{self._number}"
        return Turn(left, given, [True] * len(begins), 0)

    async def dead_letter(self, entry_id: str, fields: Mapping[str, Any]) -> bool:
        """See `Lanes.dead_letter`."""
        event = self._taken.pop(entry_id).event
        self.delivered.dead_letters.append(
            DeadLetter(event, fields["dl_reason"], fields["dl_detail"], fields["dl_attempts"])
        )
        return True


class QueueBase:
    """A queue, but for how it calls the handler."""

    def __init__(self, consumer: type[ConsumerBase], *, batches: bool, options: QueueOptions) -> None:
        """Raises ValueError, which names the option."""
        no_server = cast("Server", None)  # what the lanes do is all that a loop needs of Redis here
        given = {"group": "testing", **options}
        # Nobody waits for the next attempt.
        self._consumer = consumer(no_server, **given, backoff_base_seconds=0.0, backoff_max_seconds=0.0)  # type: ignore[arg-type]
        self._batches = batches
        self._is_calling = False
        self._lanes = MemoryLanes()
        settings = self._consumer._options  # noqa: SLF001 - this drives the consumer's own parts
        self._loop = Loop(no_server, settings, _nothing, _nothing, lanes=cast("Lanes", self._lanes))
        self._most = settings.batch if batches else 1
        self._in_flight = self._loop.in_flight
        self._in_flight.takes_batches = batches
        self._in_flight.hungry = 1

    def _put(self, events: Iterable[ModelReadyToDeploy], begun_before: int) -> Delivered:
        if self._is_calling:
            raise RuntimeError("a handler cannot deliver to its own queue: make another FakeQueue")
        self._lanes.delivered = delivered = Delivered()
        for event in events:
            self._lanes.put(complete(event, ""), begun_before)
        return delivered

    async def _next(self) -> list[Entry]:
        """The entries that the handler gets now; none when all are settled. This never waits."""
        loop, in_flight = self._loop, self._in_flight
        while in_flight.entries or in_flight.failures() or self._lanes.has_new:
            loop._look_again()  # noqa: SLF001 - see above
            await loop._failures.settle()  # noqa: SLF001
            await loop._turn()  # noqa: SLF001
            in_flight.confirm(time.monotonic())  # however long the handler before took: nobody else takes them
            if taken := in_flight.take(self._most):
                return taken
        return []

    @contextmanager
    def _call(self, entries: Sequence[Entry]) -> Iterator[Any]:
        """Around a call of the handler; yields its argument, and settles the entries by how it ends."""
        delivered = self._lanes.delivered
        events = [entry.event for entry in entries]
        delivered.calls.append(events)
        with self._consumer._settled(self._in_flight, entries, as_batch=self._batches):  # noqa: SLF001 - see above
            self._is_calling = True
            try:
                yield events if self._batches else events[0]
            except Exception as error:
                delivered.errors.append(error)
                raise
            finally:
                self._is_calling = False


class FakeQueue(QueueBase):
    """Runs `handler` for the events that it delivers, as `Consumer.run` does; `batches`: as `run_batches` does.

    `group`, `max_attempts` and `batch` are those of a consumer. The next attempt comes at once.
    """

    def __init__(
        self, handler: Callable[[Any], object], *, batches: bool = False, **options: Unpack[QueueOptions]
    ) -> None:
        super().__init__(ConsumerBase, batches=batches, options=options)
        self._handler = blocking(handler)

    def deliver(self, *events: ModelReadyToDeploy, begun_before: int = 0) -> Delivered:
        """Runs the handler until each event is acknowledged or a dead letter; returns what became of them.

        `begun_before`: how many times each was begun already, by consumers that died. What is no Exception, such as
        pytest's failures, ends it and is raised.
        """
        delivered = self._put(events, begun_before)
        while entries := _at_once(self._next()):
            with self._call(entries) as argument:
                self._handler(argument)
        return delivered


def _at_once(work: Coroutine[Any, Any, Result]) -> Result:
    """What a coroutine returns that waits for nothing: so it needs no event loop, and may run within one."""
    try:
        work.send(None)
    except StopIteration as end:
        return cast("Result", end.value)
    raise RuntimeError("the queue waits, which it never should")


def _nothing() -> None:
    """Nobody sleeps who must be woken."""
