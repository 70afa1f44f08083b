"""What both consumers are made of, without I/O."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta, timezone
from types import TracebackType
from typing import TYPE_CHECKING, TypedDict

from modelready._core import Options
from modelready._hand import Entry, Hand, order
from modelready._tracing import ProcessSpans
from modelready.keys import Keys
from modelready.redis.cluster import Server, server_from_env
from modelready.redis.settings import queue_name
from modelready.v1.event_pb2 import ModelReadyToDeploy

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_DETAIL_CHARACTERS = 500


class ConsumerOptions(TypedDict, total=False):
    """The keywords of a consumer besides its group."""

    queue: str
    consumer_name: str | None
    concurrency: int
    batch: int | None
    max_attempts: int
    backoff_base_seconds: float
    backoff_max_seconds: float
    claim_seconds: float
    block_seconds: float
    start: str


class ConsumerBase:
    """The settings of a consumer."""

    def __init__(
        self,
        server: Server,
        *,
        group: str,
        queue: str = "model-ready",
        consumer_name: str | None = None,
        concurrency: int = 1,
        batch: int | None = None,
        max_attempts: int = 5,
        backoff_base_seconds: float = 1.0,
        backoff_max_seconds: float = 60.0,
        claim_seconds: float = 60.0,
        block_seconds: float = 2.0,
        start: str = "0",
    ) -> None:
        if not group:
            raise ValueError("a consumer needs the name of its group")
        if start not in {"0", "$"}:
            raise ValueError(f'start is {start!r}; it may be "0" (all that is in the queue) or "$" (what comes)')
        batch = concurrency if batch is None else batch
        if concurrency < 1 or max_attempts < 1 or batch < concurrency:
            raise ValueError("concurrency and max_attempts are at least 1, and batch is not below concurrency")
        if min(backoff_base_seconds, backoff_max_seconds) < 0 or block_seconds <= 0 or claim_seconds < 0.5:
            raise ValueError("backoffs are not below 0, block_seconds is above 0, claim_seconds at least 0.5")
        self._server = server
        self._options = Options(
            group=group,
            queue=queue,
            consumer_name=consumer_name or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}",
            concurrency=concurrency,
            batch=batch,
            max_attempts=max_attempts,
            backoff_base_seconds=backoff_base_seconds,
            backoff_max_seconds=backoff_max_seconds,
            claim_seconds=claim_seconds,
            block_seconds=block_seconds,
            start=start,
        )
        self._spans = ProcessSpans(Keys(queue).events, group)
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
    """One event in hand, and what tells a repetition apart."""

    def __init__(self, hand: Hand, entry: Entry, spans: ProcessSpans) -> None:
        self._hand = hand
        self._entry = entry
        self._spans = spans
        self._span: AbstractContextManager[object] | None = None
        hand.begin((entry,))

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
        return _EPOCH + timedelta(milliseconds=order(self._entry.id)[0])

    def _done(self) -> None:
        if self._hand.ended:
            raise RuntimeError("the loop that gave this event has ended without it: it comes again")
        self._hand.done(self._entry)

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
            self._hand.failed(self._entry, describe(error))
        else:
            self._hand.put_back([self._entry])


def describe(error: BaseException) -> str:
    """The last line of the traceback, cut: what stands in a dead letter."""
    text = "".join(traceback.format_exception_only(type(error), error))
    return " ".join(text.split())[:_DETAIL_CHARACTERS]


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
