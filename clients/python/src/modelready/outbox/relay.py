"""Empties the outbox: publishes its rows in their order, and deletes those that the sidecar acknowledged.

Any number of relays may run on one table. Each publishes rows in the order of their ids, and the queue takes an event
id once; so the order per model, and "once", hold even where two relays send the same rows. A lock in the database,
except on SQLite, spares them that waste: one relay works, the others wait. It ends with its connection. A host that
vanishes can keep its connection open for hours, so a relay waits only LOCK_SECONDS for the lock and then works without.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from google.protobuf.json_format import Parse, ParseError
from sqlalchemy import Connection, Engine

from modelready._retry import backoff, delay_after
from modelready.errors import InvalidEvent, PublishError
from modelready.outbox import store
from modelready.outbox.wakeup import Wakeup
from modelready.outbox.writer import commits
from modelready.receipt import Durability, Receipt, checked_durability
from modelready.v1.event_pb2 import ModelReadyToDeploy

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger("modelready.outbox")

LOCK_SECONDS = 15.0
PUBLISH_SECONDS = 5.0
"""How long a batch may go without a receipt; a transaction is open meanwhile."""


class PublishesMany(Protocol):
    """What a relay publishes through: `modelready.Publisher`, or anything else with this method."""

    def publish_many(
        self, events: Iterable[ModelReadyToDeploy], *, durability: Durability, timeout: float
    ) -> Iterator[Receipt | PublishError]:
        """Yield a result for each event, in their order; raise a PublishError where there are no more results."""
        ...


class Batch:
    """Rows under way, and what became of them. `error` is the first failure that a later attempt may not meet."""

    def __init__(self, rows: Sequence[store.Row]) -> None:
        self.acknowledged: list[int] = []
        self.refused: dict[int, str] = {}
        self.error: PublishError | None = None
        self.events: list[ModelReadyToDeploy] = []
        self._ids: list[int] = []
        for row in rows:
            try:
                event = Parse(row.event, ModelReadyToDeploy())
            except ParseError as error:
                self.refused[row.id] = f"not a ModelReadyToDeploy in JSON: {error}"
                continue
            event.event_id = row.event_id
            if not event.HasField("occurred_at"):
                event.occurred_at.FromDatetime(row.created_at)
            self._ids.append(row.id)
            self.events.append(event)
        self._results = 0

    def note(self, result: Receipt | PublishError) -> None:
        """Note the result of the next event."""
        number = self._ids[self._results]
        self._results += 1
        if isinstance(result, Receipt):
            self.acknowledged.append(number)
        elif isinstance(result, InvalidEvent):
            self.refused[number] = result.message
        else:
            self.error = self.error or result

    def end(self, error: PublishError) -> None:
        """Note that the events which are left get no result."""
        self.error = self.error or error


class RelayBase:
    """What both relays share: everything but waiting, and the publisher's call."""

    def __init__(self, durability: Durability | str, batch: int, poll_seconds: float) -> None:
        if batch < 1 or poll_seconds <= 0:
            raise ValueError(f"batch is {batch} and poll_seconds {poll_seconds}; both must be above 0")
        self._durability = checked_durability(durability)
        self._batch = batch
        self._poll_seconds = poll_seconds
        self._failures = 0
        self._locked_since: float | None = None
        self.last_error = ""
        """Why the last attempt did not empty the outbox; empty once one worked."""

    def _claim(self, connection: Connection) -> Batch:
        """The rows to publish now; none where another relay works."""
        if not store.lock(connection):
            now = time.monotonic()
            self._locked_since = self._locked_since or now
            if now - self._locked_since < LOCK_SECONDS:
                return Batch(())
        self._locked_since = None
        # After a failure one row shows whether it is over; a whole batch would be refused again, event by event.
        return Batch(store.oldest(connection, 1 if self._failures else self._batch))

    def _settle(self, connection: Connection, batch: Batch) -> int:
        """Write down what became of them. Returns how many are done; raises the error of those that are not."""
        store.settle(connection, batch.acknowledged, batch.refused)
        connection.commit()
        store.unlock(connection)
        for number, reason in batch.refused.items():
            logger.error("row %d was refused, and is kept as failed: %s", number, reason)
        if batch.error is not None:
            raise batch.error
        return len(batch.acknowledged) + len(batch.refused)

    def _pause_after(self, error: Exception) -> float:
        """Log the first failure in a row; return the seconds to wait before the next attempt."""
        said = getattr(error, "orig", None) or error  # SQLAlchemy's own text repeats the statement
        self.last_error = f"{type(said).__name__}: {said}"
        if self._failures == 0:
            logger.warning("the outbox is not being emptied: %s", self.last_error)
        failures, self._failures = self._failures, self._failures + 1
        return delay_after(error, failures) if isinstance(error, PublishError) else backoff(failures)

    def _worked(self) -> None:
        if self._failures:
            logger.info("the outbox is being emptied again")
        self._failures, self.last_error = 0, ""


class Relay(RelayBase):
    """Publishes the rows of the outbox in `engine`'s database through `publisher`, in a thread or in `run`.

    A row is deleted when the sidecar has acknowledged it with `durability` at least: PRIMARY, since the row is safer
    than the disk of the sidecar's task. `batch` is the number of rows that are published at once, `poll_seconds` the
    longest that a row waits which nothing announced. A context manager: started on entry, stopped on exit.
    """

    def __init__(
        self,
        engine: Engine,
        publisher: PublishesMany,
        *,
        durability: Durability | str = Durability.PRIMARY,
        batch: int = 500,
        poll_seconds: float = 1.0,
    ) -> None:
        super().__init__(durability, batch, poll_seconds)
        self._engine = engine
        self._publisher = publisher
        self._stopping = threading.Event()
        self._wakeup: Wakeup | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> Self:
        """Work in a thread until `stop`. A child that is forked later needs a relay of its own."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self.run, name="modelready-relay", daemon=True)
        self._thread.start()
        return self

    def stop(self, timeout: float = 10.0) -> None:
        """End after the batch under way, and wait `timeout` seconds for that; what is left stays in the table."""
        self._stopping.set()
        self.wake()
        if self._thread is not None:
            self._thread.join(timeout)

    def wake(self) -> None:
        """Look at the table now. From any thread."""
        if self._wakeup is not None:
            self._wakeup.set()

    def run(self) -> None:
        """Work until `stop`, in this thread. A failure is logged, and the attempt made again after a pause."""
        self._wakeup = Wakeup(self._engine)
        commits.listen(self.wake)
        try:
            while not self._stopping.is_set():
                self._wakeup.clear()
                try:
                    done = self.run_once()
                except Exception as error:  # noqa: BLE001 - each driver has its own for a database that is away
                    self._stopping.wait(self._pause_after(error))
                    continue
                self._worked()
                if not done:
                    self._wakeup.wait(self._poll_seconds)
        finally:
            commits.forget(self.wake)
            self._wakeup.close()

    def run_once(self) -> int:
        """Publish one batch; return how many rows were published or refused, 0 where another relay works.

        Raises PublishError where the sidecar did not acknowledge all of them, and the error of SQLAlchemy or the driver
        where the database failed. The rest stays in the table, and a row that was published without being deleted is
        published again with the same id, which makes no second entry.
        """
        with self._engine.connect() as connection:
            try:
                batch = self._claim(connection)
                if batch.events:
                    self._publish(batch)
                return self._settle(connection, batch)
            except BaseException:
                connection.invalidate()  # a lock of MySQL would outlive the transaction
                raise

    def _publish(self, batch: Batch) -> None:
        try:
            for result in self._publisher.publish_many(
                batch.events, durability=self._durability, timeout=PUBLISH_SECONDS
            ):
                batch.note(result)
        except PublishError as error:
            batch.end(error)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
