"""A connection for callers without an event loop."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Any

from modelready._thread import start
from modelready.redis.cluster import Server
from modelready.redis.pool import Pool

_CONNECTIONS = 8


class BlockingClient:
    """Commands for the owner of a queue, from any thread. The pool's event loop runs in a thread of its own.

    A process that is forked gets connections of its own.
    """

    def __init__(self, make_server: Callable[[], Server]) -> None:
        """Raises what `make_server` raises."""
        self._make_server = make_server
        self._server = make_server()
        self._lock = threading.Lock()
        self._opened: tuple[int, asyncio.AbstractEventLoop, Pool] | None = None

    @property
    def address(self) -> str:
        """Of the node that commands go to."""
        return self._server.address

    def execute_command(self, *command: Any) -> Any:
        """The reply. Raises RedisErrors."""
        loop, pool = self._pool()
        return asyncio.run_coroutine_threadsafe(pool.one(*command), loop).result()

    def close(self) -> None:
        """Close the connections and end the thread; a later command opens others."""
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None and opened[0] == os.getpid():
            _, loop, pool = opened
            asyncio.run_coroutine_threadsafe(pool.close(), loop).result()
            loop.call_soon_threadsafe(loop.stop)

    def _pool(self) -> tuple[asyncio.AbstractEventLoop, Pool]:
        with self._lock:
            if self._opened is None or self._opened[0] != os.getpid():
                if self._opened is not None:
                    self._server = self._make_server()
                loop = asyncio.new_event_loop()
                start("modelready-redis", lambda: _run(loop))
                self._opened = os.getpid(), loop, Pool(self._server, _CONNECTIONS)
            return self._opened[1:]


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()
