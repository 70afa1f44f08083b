"""The other end of the mirror list, for a service that reads a list instead of the stream.

    ListConsumer.from_env().run(deploy)

A message is moved to `<list>:processing` while it is in flight, removed from there when `deploy(message)` returns, and
put on `<list>:dlq` when it failed for the last time. Consumers of this kind and plain ones, which BLMOVE or BRPOPLPUSH
to `<list>:processing` and LREM, may share a list; mind `recover_seconds` then.

Delivery is at least once. A new service reads the stream (`modelready.consumer.Consumer`), which has groups and knows
the holder of every event. `modelready.aio.ListConsumer` is the twin of this one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from modelready._consumer.base import stopped_by_sigterm
from modelready._consumer.handler import blocking
from modelready._consumer.list_message import ListMessage, UndecodableMessage
from modelready._consumer.list_reader import ListConsumerBase, ListReader

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ListConsumer", "ListMessage", "UndecodableMessage"]

T = TypeVar("T")


class ListConsumer(ListConsumerBase):
    """Reads a list, one message at a time, first in, first out; for one thread.

    When the handler raises, the message stays in flight and is tried again, with growing pauses from `retry_seconds`
    on, until it has failed `max_retries` times (of an envelope: its own number), and then goes to `<list>:dlq`. What is
    no message goes there at once. An envelope's `retry_count` is rewritten with every failure, so it survives a crash;
    a payload's tries are counted here, and start again after one.

    While a message is in flight a lease names its holder, `<list>:lease:<hash>`; it is extended while the handler runs.
    A message in `<list>:processing` without one was left by a consumer that died. It is put back, to be the next, when
    it has been seen so for `recover_seconds`, which begin at most `lease_seconds` after the death.

    The limits: a plain consumer has no lease, so where some share the list set `recover_seconds` above their longest
    handling, or None (never). A process that is frozen for longer than lease and recovery may handle a message at the
    same time as another. Equal messages count as one and the same. A message that kills its consumer comes again and
    again, without end.

    `block_seconds` is how long a read, and so a stop, waits. While Redis is away this waits and connects again. It
    raises what does not pass by itself: refused credentials or rights, an untrusted certificate, a key of another type.
    """

    def __init__(self, reader: ListReader) -> None:
        """Use `from_env`."""
        super().__init__(reader)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="modelready-list", daemon=True)

    def run(self, handler: Callable[[ListMessage], object]) -> None:
        """Handles messages until `stop` or, in the main thread, SIGTERM; the message in flight is finished first.

        One that waits for its next try then is put back, for the next consumer. Raises TypeError for a coroutine
        function.
        """
        call = blocking(handler)
        with stopped_by_sigterm(self.stop):
            while (message := self._wait(self._reader.next())) is not None:
                self._handle(call, message)

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

    def _handle(self, handler: Callable[[ListMessage], object], message: ListMessage) -> None:
        try:
            handler(message)
        except Exception as error:  # noqa: BLE001 - it is logged, and the message tried again
            self._wait(self._reader.failed(message, error))
        else:
            self._wait(self._reader.done(message))

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """In the loop's thread, where the lease is kept while this one handles."""
        if not self._thread.is_alive():
            self._thread.start()
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
