"""What both consumers are made of, without I/O."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from modelready._group import Group
from modelready._redis import check_client, options_from_env

if TYPE_CHECKING:
    from typing_extensions import Self

Client = TypeVar("Client")


class ConsumerBase(Generic[Client]):
    """The settings of a consumer."""

    def __init__(
        self,
        client: Client,
        *,
        group: str,
        queue: str = "model-ready",
        consumer_name: str | None = None,
        batch: int = 1,
        block_seconds: float = 2.0,
        retry_seconds: float = 30.0,
        start: str = "0",
    ) -> None:
        check_client(client, block_seconds)
        self._client = client
        self._group = Group(
            group,
            queue=queue,
            consumer_name=consumer_name,
            batch=batch,
            block_seconds=block_seconds,
            retry_seconds=retry_seconds,
            start=start,
        )
        self._stopping = False

    @classmethod
    def from_env(
        cls, *, group: str, environ: Mapping[str, str] = os.environ, block_seconds: float = 2.0, **options: Any
    ) -> Self:
        """A consumer of QUEUE_NAME with a client of its own, for the Redis that the REDIS_... variables name.

        Raises ValueError, which names the variable. `options` are those of the class.
        """
        options.setdefault("queue", environ.get("QUEUE_NAME") or "model-ready")
        client = cls._connect(options_from_env(environ, block_seconds))
        return cls(client, group=group, block_seconds=block_seconds, **options)

    @staticmethod
    def _connect(options: dict[str, Any]) -> Client:
        raise NotImplementedError

    def stop(self) -> None:
        """Ends `run` or the iteration after the event in hand; for any thread or a signal handler. It is for good."""
        self._stopping = True


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
