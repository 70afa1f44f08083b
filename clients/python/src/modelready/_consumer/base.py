"""What both consumers are made of, without I/O."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta, timezone
from types import TracebackType
from typing import TYPE_CHECKING

from modelready._consumer.in_flight import Entry, InFlight
from modelready._consumer.options import ConsumerOptions, checked_options
from modelready._tracing import ProcessSpans
from modelready.keys import Keys
from modelready.redis.cluster import Server, server_from_env
from modelready.redis.settings import queue_name
from modelready.v1.event_pb2 import ModelReadyToDeploy

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_DETAIL_CHARACTERS = 500


class ConsumerBase:
    """The settings of a consumer."""

    def __init__(self, server: Server, *, group: str, **options: Unpack[ConsumerOptions]) -> None:
        self._server = server
        self._options = checked_options(group=group, **options)
        self._spans = ProcessSpans(Keys(self._options.queue).events, group)
        self._stopping = False

    @classmethod
    def from_env(
        cls, *, group: str, environ: Mapping[str, str] | None = None, **options: Unpack[ConsumerOptions]
    ) -> Self:
        """A consumer of the queue QUEUE_NAME in the Redis that the REDIS_... variables name, as the sidecar's do.

        `options` are those of the class. Raises ValueError, which names the variable or the option.
        """
        environ = os.environ if environ is None else environ
        options.setdefault("queue", queue_name(environ))
        return cls(server_from_env(environ, Keys(options["queue"]).events), group=group, **options)


class DeliveryBase:
    """One event in flight, and what tells a repetition apart."""

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
            raise RuntimeError("the loop that gave this event has ended without it: it comes again")
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
