"""The other end of the queue: one consumer of a group. `modelready.aio.Consumer` is its twin.

    Consumer.from_env(group="deployer").run(deploy)

Delivery is at least once: an event comes again if the consumer dies between handling and acknowledging it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from modelready._consumer import ConsumerBase, stopped_by_sigterm
from modelready._redis import RedisError, is_group_there, is_no_group, is_transient, redis
from modelready._retries import backoff
from modelready.v1.event_pb2 import ModelReadyToDeploy

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Delivery:
    """One event in hand. As a context it is acknowledged at the end of the block, and put back if the block raises."""

    def __init__(self, entry_id: str, event: ModelReadyToDeploy, ack: Callable[[str], None]) -> None:
        self.entry_id = entry_id
        self.event = event
        self._ack = ack

    def ack(self) -> None:
        """Tells the group that this event is done. Waits while Redis is away; a stop then ends it unacknowledged."""
        self._ack(self.entry_id)

    def __enter__(self) -> ModelReadyToDeploy:
        return self.event

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.ack()


class Consumer(ConsumerBase[redis.Redis]):
    """Reads the events of `queue` for `group`, one at a time; for one thread.

    The group is made at `start` if it is not there: "0", all that the queue holds, or "$", what comes from then on. An
    event that is not acknowledged comes again to the consumer of the same name: after a restart, and every
    `retry_seconds` in a running one, then possibly after newer events of its model. `consumer_name` is by default the
    host's; a stable one finds its events after a crash. `batch` events are read at once, and those wait for this
    consumer even where another is idle. A read waits `block_seconds`, and so does a stop.

    While Redis is away it waits and connects again. What no waiting mends is raised: refused credentials or rights, an
    untrusted certificate, a key of another type.
    """

    @staticmethod
    def _connect(options: dict[str, Any]) -> redis.Redis:
        return redis.Redis(retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0), **options)

    def run(self, handler: Callable[[ModelReadyToDeploy], object]) -> None:
        """Handles events until `stop` or, in the main thread, SIGTERM; the event in hand is finished first.

        An event is acknowledged when `handler` returns. When it raises, that is logged, the event stays pending and
        comes again, and the next one is handled.
        """
        with stopped_by_sigterm(self.stop):
            for delivery in self:
                if _handled(handler, delivery):
                    delivery.ack()

    def close(self) -> None:
        """Closes the client's connections."""
        self._client.close()

    def __iter__(self) -> Iterator[Delivery]:
        self._group.rewind()
        self._patiently(self._create_group)
        while not self._stopping:
            reply = self._patiently(self._read) or ()
            for entry_id, event in self._group.received(reply, time.monotonic()):
                if self._stopping:
                    return
                yield Delivery(entry_id, event, self._ack)

    def _create_group(self, *, again: bool = False) -> None:
        try:
            self._client.xgroup_create(**self._group.create(again=again))
        except RedisError as error:
            if not is_group_there(error):
                raise

    def _read(self) -> Any:
        try:
            return self._client.xreadgroup(**self._group.read(time.monotonic()))
        except RedisError as error:
            self._group.rewind()
            if not is_no_group(error):
                raise
        return self._create_group(again=True)

    def _ack(self, entry_id: str) -> None:
        self._patiently(lambda: self._client.xack(self._group.stream, self._group.name, entry_id))

    def _patiently(self, command: Callable[[], T]) -> T | None:
        """What the command returns, as soon as Redis answers; None when this is stopped before."""
        attempt = 0
        while True:
            try:
                return command()
            except RedisError as error:
                if not is_transient(error):
                    raise
                if attempt == 0:
                    logger.warning("waiting for Redis: %s", error)
                self._client.connection_pool.disconnect(inuse_connections=False)  # else a demoted node is kept for good
            if self._stopping:
                return None
            time.sleep(backoff(attempt))
            attempt += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _handled(handler: Callable[[ModelReadyToDeploy], object], delivery: Delivery) -> bool:
    try:
        handler(delivery.event)
    except Exception:
        logger.exception("entry %s stays pending: its handler raised", delivery.entry_id)
        return False
    return True
