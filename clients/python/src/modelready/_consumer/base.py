"""What the blocking and the asyncio consumer share: settings, how an event is settled, the loop's controls."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime, timedelta, timezone
from types import TracebackType
from typing import TYPE_CHECKING

from modelready._consumer.in_flight import Entry, InFlight
from modelready._consumer.loop import Loop
from modelready._consumer.options import ConsumerOptions, checked_options
from modelready._tracing import ProcessSpans
from modelready.keys import Keys
from modelready.redis.cluster import Server, server_from_env
from modelready.redis.settings import queue_name
from modelready.v1.event_pb2 import ModelReadyToDeploy

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

logger = logging.getLogger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_DETAIL_CHARACTERS = 500


class ConsumerBase:
    """A consumer, but for how it waits and calls a handler."""

    _work: WorkBase | None = None

    def __init__(self, server: Server, *, group: str, **options: Unpack[ConsumerOptions]) -> None:
        self._server = server
        self._options = checked_options(group=group, **options)
        self._spans = ProcessSpans(Keys(self._options.queue).events, group)
        self._stopping = False

    @classmethod
    def from_env(
        cls, *, group: str, environ: Mapping[str, str] | None = None, **options: Unpack[ConsumerOptions]
    ) -> Self:
        """A consumer of the queue QUEUE_NAME in the Redis that the REDIS_... variables name, the same as the sidecar's.

        `options` are those of the class. Raises ValueError, which names the variable or the option.
        """
        environ = os.environ if environ is None else environ
        options.setdefault("queue", queue_name(environ))
        return cls(server_from_env(environ, Keys(options["queue"]).events), group=group, **options)

    def stop(self) -> None:
        """Ends `run` or the iteration after what was begun; for any thread or a signal handler. It is final."""
        self._stopping = True
        if self._work is not None:
            self._work.stop()

    def _check_not_running(self) -> None:
        if self._work is not None and not self._work.by_hand:
            raise RuntimeError("this consumer runs already: raise its concurrency, or make one for each run")

    @contextmanager
    def _settled(self, in_flight: InFlight, entries: Sequence[Entry], *, as_batch: bool = False) -> Iterator[None]:
        """Settles the entries by how the block ends: the call of their handler."""
        try:
            with self._spans.of_batch(entries) if as_batch else self._spans.of(entries[0]):
                yield
        except (Exception, asyncio.CancelledError) as error:
            if self._is_cancelled(error):
                in_flight.put_back(entries)
                raise
            if len(entries) == 1:
                logger.warning("the handler of entry %s raised", entries[0].id, exc_info=True)
                in_flight.failed(entries[0], describe(error))
            else:
                first = entries[0].id
                logger.warning("the handler of %d entries from %s on raised", len(entries), first, exc_info=True)
                in_flight.put_back(entries, alone=True)
        except BaseException:
            in_flight.put_back(entries)
            raise
        else:
            in_flight.done(*entries, report=False)

    def _is_cancelled(self, error: BaseException) -> bool:  # noqa: ARG002 - the asyncio consumer looks at it
        """Whether the handler was cancelled from outside: then it did not fail."""
        return False


class WorkBase:
    """A consumer's loop, as its workers see it. It runs in `loop`, and `ready` wakes the workers (see InFlight)."""

    def __init__(
        self, consumer: ConsumerBase, loop: asyncio.AbstractEventLoop, ready: Callable[[], object], *, by_hand: bool
    ) -> None:
        """`by_hand`: the user's own loop takes events, and does not hold up a close."""
        self._event_loop = loop
        self._loop = Loop(consumer._server, consumer._options, ready, self._wake)  # noqa: SLF001 - its other half
        self.in_flight = self._loop.in_flight
        self.by_hand = by_hand

    def stop(self) -> None:
        """Begin no more, from this moment on; for any thread or a signal handler."""
        self.in_flight.stopping = True  # without its lock, which a signal handler may not wait for
        self._call(self._loop.stop)

    def _call(self, function: Callable[[], object]) -> None:
        """Call it in the event loop, from any thread."""
        with suppress(RuntimeError):  # the event loop is closed
            self._event_loop.call_soon_threadsafe(function)

    def _wake(self) -> None:
        self._call(self._loop.changed)


class DeliveryBase:
    """One event in flight, and what shows whether it is a repetition."""

    def __init__(self, in_flight: InFlight, entry: Entry, spans: ProcessSpans) -> None:
        self._in_flight = in_flight
        self._entry = entry
        self._spans = spans
        self._span: AbstractContextManager[object] | None = None

    @property
    def event(self) -> ModelReadyToDeploy:
        """The event; `event.event_id` is the same in every attempt, and wherever the event was published twice."""
        return self._entry.event

    @property
    def entry_id(self) -> str:
        """The id of its entry in the stream."""
        return self._entry.id

    @property
    def attempts(self) -> int:
        """How many times the event was begun in this group, this time included; a consumer's death counts as one."""
        return self._entry.attempts

    @property
    def first_seen(self) -> datetime:
        """When the queue got the event, by the clock of Redis, in UTC: the time in the entry's id."""
        return _EPOCH + timedelta(milliseconds=int(self._entry.id.partition("-")[0]))

    def _done(self) -> None:
        if self._in_flight.ended:
            raise RuntimeError("the loop that gave this event has ended before it was acknowledged: it comes again")
        self._in_flight.done(self._entry)

    def _entered(self) -> ModelReadyToDeploy:
        self._span = self._spans.of(self._entry)
        self._span.__enter__()
        return self.event

    def _left(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._span is not None:
            self._span.__exit__(kind, error, trace)
        if kind is None:
            self._done()
        elif isinstance(error, Exception):
            self._in_flight.failed(self._entry, describe(error))
        else:
            self._in_flight.put_back([self._entry])


def describe(error: BaseException) -> str:
    """The last line of the traceback, cut: what stands in a dead letter."""
    text = " ".join("".join(traceback.format_exception_only(type(error), error)).split())[:_DETAIL_CHARACTERS]
    return text.encode(errors="backslashreplace").decode()  # a file's name may hold what UTF-8 cannot


@contextmanager
def stopped_by_sigterm(stop: Callable[[], object]) -> Iterator[None]:
    """Calls `stop` on SIGTERM, if this is the main thread, and puts the old handler back at the end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: stop())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if previous is None else previous)
