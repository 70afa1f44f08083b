"""The other end of the mirror list, for a service that reads a list instead of the stream.

    ListConsumer.from_env().run(deploy)

A message is moved to `<list>:processing` while it is in hand, removed from there when `deploy(message)` returns, and
put on `<list>:dlq` when it failed for the last time. Consumers of this kind and plain ones, which BLMOVE or BRPOPLPUSH
to `<list>:processing` and LREM, may share a list; mind `recover_seconds` then.

Delivery is at least once. A new service reads the stream (`modelready.consumer.Consumer`): it has groups, and knows of
every event who has it. `modelready.aio.ListConsumer` is the twin of this one.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from modelready._consumer.base import stopped_by_sigterm
from modelready._consumer.list_reader import ListMessage, ListReader, UndecodableMessage

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ListConsumer", "ListMessage", "UndecodableMessage"]

T = TypeVar("T")

logger = logging.getLogger(__name__)


class ListConsumer:
    """Reads a list, one message at a time, first in, first out; for one thread.

    When the handler raises, the message stays in hand and is tried again, with growing pauses from `retry_seconds` on,
    until it has failed `max_retries` times (of an envelope: its own number), and then goes to `<list>:dlq`. So does, at
    once, what is no message. An envelope's `retry_count` is rewritten with every failure, so it survives a crash; a
    payload's tries are counted here, and begin anew after one.

    While a message is in hand a lease names its holder, `<list>:lease:<hash>`; it is extended while the handler runs. A
    message in `<list>:processing` without one was left by a consumer that died. It is put back, to be the next, when it
    has been seen so for `recover_seconds`, which begin at most `lease_seconds` after the death.

    The limits: a plain consumer has no lease, so where some share the list set `recover_seconds` above their longest
    handling, or None (never). A process that is frozen for longer than lease and recovery may handle a message at the
    same time as another. Equal messages count as one and the same. A message that kills its consumer comes again for
    ever.

    `block_seconds` is how long a read, and so a stop, waits. While Redis is away this waits and connects again. What no
    waiting mends is raised: refused credentials or rights, an untrusted certificate, a key of another type.
    """

    def __init__(self, reader: ListReader) -> None:
        """Use `from_env`."""
        self._reader = reader
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="modelready-list", daemon=True)

    @classmethod
    def from_env(
        cls, list_name: str | None = None, *, environ: Mapping[str, str] | None = None, **options: Any
    ) -> Self:
        """A consumer of QUEUE_LIST, or of the list named, in the Redis that the REDIS_... variables name.

        Raises ValueError, which names the variable. `options`: `max_retries` 3, `retry_seconds` 1.0, `block_seconds`
        2.0, `lease_seconds` 30.0, `recover_seconds` 60.0 or None.
        """
        return cls(ListReader.from_env(list_name, environ, **options))

    def run(self, handler: Callable[[ListMessage], object]) -> None:
        """Handles messages until `stop` or, in the main thread, SIGTERM; the message in hand is finished first.

        One that waits for its next try then is put back, for whoever comes next.
        """
        with stopped_by_sigterm(self.stop):
            while (message := self._wait(self._reader.next())) is not None:
                if self._handled(handler, message):
                    self._wait(self._reader.done(message))
                else:
                    self._wait(self._reader.failed(message))

    def stop(self) -> None:
        """Ends `run` after the message in hand; for any thread or a signal handler. It is for good."""
        self._reader.stop()

    def close(self) -> None:
        """Closes the connections. Again: no effect."""
        if self._thread.is_alive():
            self._wait(self._reader.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        if not self._loop.is_closed():
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @staticmethod
    def _handled(handler: Callable[[ListMessage], object], message: ListMessage) -> bool:
        try:
            handler(message)
        except Exception:
            logger.exception("message %s: its handler raised", message.label)
            return False
        return True

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """In the loop's thread, where the lease is kept while this one handles."""
        if not self._thread.is_alive():
            self._thread.start()
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
