"""Reads the queue: one consumer of a group. `modelready.aio.Consumer` is its twin.

    Consumer.from_env(group="deployer").run(deploy)

Delivery is at least once: an event comes again if the consumer dies between handling and acknowledging it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from modelready._consumer.base import ConsumerBase, DeliveryBase, WorkBase, stopped_by_sigterm
from modelready._consumer.handler import blocking
from modelready._consumer.in_flight import Entry, InFlight
from modelready.list_consumer import ListConsumer, ListMessage
from modelready.v1.event_pb2 import ModelReadyToDeploy

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Consumer", "Delivery", "ListConsumer", "ListMessage"]

Handle = Callable[[InFlight, list[Entry]], None]


class Delivery(DeliveryBase):
    """One event in flight. As a context it is acknowledged at the end of the block; put back if the block raises."""

    def ack(self) -> None:
        """Acknowledges the event, at once, in the background. Raises RuntimeError when its loop has ended."""
        self._done()

    def __enter__(self) -> ModelReadyToDeploy:
        return self._entered()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left(kind, error, trace)


class Consumer(ConsumerBase):
    """Handles the events of `queue` for `group`. Make it with `from_env`.

    The group is made at `start` if it is not there: "0", all that the queue holds, or "$", what comes from then on.
    `concurrency` events are handled at the same time, those of one model one after the other, in the queue's order, in
    all consumers of the group together. `batch` events (default: `concurrency`) are read at once; those that are not
    begun wait for this consumer. With `run` each event needs a call to Redis before it begins: where a handler takes
    less than a millisecond, `run_batches` is several times as fast.

    A handler that raises is called again for that event after a random time of up to `backoff_base_seconds`, twice that
    and so on up to `backoff_max_seconds`, while later events of the model wait; after `max_attempts` the event becomes
    a dead letter. The attempts are counted in Redis and outlive this consumer.

    What this consumer has in flight is its own while it lives, however long a handler takes. When it was silent for
    `claim_seconds`, others take it over. `consumer_name` is new for each consumer by default; one that is given must
    not be used by two that live at the same time. A read waits `block_seconds`, and so may a stop.

    While Redis is away it waits and connects again. It raises what does not pass by itself: refused credentials or
    rights, an untrusted certificate, a key of another type.
    """

    _work: _Work | None = None

    def run(self, handler: Callable[[ModelReadyToDeploy], object]) -> None:
        """Handles events until `stop` or, in the main thread, SIGTERM; those that were begun are finished first.

        An event is acknowledged when `handler` returns. With a concurrency above 1 it is called in several threads.
        Raises TypeError for a coroutine function.
        """
        call = blocking(handler)

        def handle(in_flight: InFlight, entries: list[Entry]) -> None:
            with self._settled(in_flight, entries):
                call(entries[0].event)

        self._run(handle)

    def run_batches(self, handler: Callable[[list[ModelReadyToDeploy]], object], most: int | None = None) -> None:
        """The same for a handler that takes up to `most` events at once (default: `batch`), acknowledged together.

        They are in the queue's order for each model. When it raises, it is called again for each of them alone: so one
        event that cannot be handled makes no dead letters of the others. The call for all counts as no attempt.
        """
        call = blocking(handler)

        def handle(in_flight: InFlight, entries: list[Entry]) -> None:
            with self._settled(in_flight, entries, as_batch=True):
                call([entry.event for entry in entries])

        self._run(handle, most or self._options.batch, batches=True)

    def close(self) -> None:
        """Stops, and waits for the end. An iteration that is open does not delay it: what it has is put back."""
        self._stopping = True
        if self._work is not None:
            self._work.close()

    def __iter__(self) -> Iterator[Delivery]:
        """Gives one event after the other, in the caller's thread, whatever `concurrency` is.

        One that is not settled when the next is taken stays in flight, and may be acknowledged later; its model goes
        on. When the loop is left, what is not acknowledged is put back, for others to take at once.
        """
        with self._working(by_hand=True) as work:
            while taken := work.take(1):
                try:
                    yield Delivery(work.in_flight, taken[0], self._spans)
                finally:
                    work.in_flight.detach(taken[0])

    @contextmanager
    def _working(self, *, by_hand: bool) -> Iterator[_Work]:
        work = self._work = _Work(self, by_hand=by_hand)
        try:
            with work:
                if self._stopping:
                    work.stop()
                yield work
        finally:
            self._work = None

    def _run(self, handle: Handle, most: int = 1, *, batches: bool = False) -> None:
        self._check_not_running()
        with stopped_by_sigterm(self.stop), self._working(by_hand=False) as work:
            work.in_flight.takes_batches = batches
            others = [
                threading.Thread(target=work.help, args=(handle, most), name="modelready-handler")
                for _ in range(self._options.concurrency - 1)
            ]
            for thread in others:
                thread.start()
            try:
                work.handle(handle, most)
            finally:
                work.stop()
                for thread in others:
                    thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Work(WorkBase):
    """The loop in a thread of its own, so that claims are renewed while handlers run. A context manager."""

    def __init__(self, consumer: ConsumerBase, *, by_hand: bool) -> None:
        super().__init__(consumer, asyncio.new_event_loop(), self._ready, by_hand=by_hand)
        self._changed = threading.Condition(self.in_flight.lock)
        self._thread = threading.Thread(target=self._run_loop, name="modelready-consumer", daemon=True)
        self._error: BaseException | None = None

    def take(self, most: int) -> list[Entry]:
        """The next entries; none at the end."""
        in_flight = self.in_flight
        with self._changed:
            in_flight.hungry += 1
            try:
                while not (taken := in_flight.take(most)) and not in_flight.stopping:
                    self._changed.wait()
                return taken
            finally:
                in_flight.hungry -= 1

    def handle(self, handle: Handle, most: int) -> None:
        """Handle entries until the end."""
        while taken := self.take(most):
            handle(self.in_flight, taken)

    def help(self, handle: Handle, most: int) -> None:
        """The same in another thread. An error there stops all, and is raised in the thread that runs."""
        try:
            self.handle(handle, most)
        except BaseException as error:  # noqa: BLE001 - raised in the thread that runs
            self._error = self._error or error
            self.stop()

    def close(self) -> None:
        """Stop, and wait for the end; an iteration by the user does not delay it."""
        self._call(lambda: self._loop.stop(forced=self.by_hand))
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run_loop(self) -> None:
        try:
            self._event_loop.run_until_complete(self._loop.run())
        except BaseException as error:  # noqa: BLE001 - raised in the thread that runs
            self._error = self._error or error
        finally:
            self.in_flight.end()
            self._event_loop.run_until_complete(self._event_loop.shutdown_default_executor())
            self._event_loop.close()

    def _ready(self) -> None:
        self._changed.notify_all()
