"""Calls from the page's event loop into the sidecar's: each takes a bounded time, and few are made at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from modelready.v1 import queue_service_pb2 as pb
from sidecar.errors import SidecarError

_T = TypeVar("_T")
_Work = Callable[[], Coroutine[Any, Any, _T]]

_STATUS_SECONDS = 1.5  # that Redis has for the status; the rest of it is known here
_CACHE_SECONDS = 1.0
_READ_SECONDS = 1.8
_WRITE_SECONDS = 10.0
_MAX_READS = 2


class Busy(SidecarError):
    """The answer takes too long, or too much is going on."""


class SidecarCalls:
    """Runs what the page reads and does in the sidecar's loop. All raise what the work raises, and Busy."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        status: Callable[[float], Coroutine[Any, Any, pb.GetQueueStatusResponse]],
    ) -> None:
        """`status`: takes the seconds that Redis has to answer."""
        self._loop = loop
        self._status = status
        self._status_lock = asyncio.Lock()
        self._cached: tuple[float, pb.GetQueueStatusResponse] | None = None
        self._reads = asyncio.Semaphore(_MAX_READS)
        self._writing: Future[Any] | None = None

    async def status(self) -> pb.GetQueueStatusResponse:
        """The status as it was at most a second ago."""
        return await self._within(self._refresh)

    async def read(self, work: _Work[_T]) -> _T:
        """What the work gives, within two seconds."""

        async def read() -> _T:
            async with self._reads:
                return await self._result(self._start(work))

        return await self._within(read)

    async def write(self, work: _Work[_T]) -> _T:
        """One at a time. Work that takes more than ten seconds goes on, and Busy is raised."""
        if self._writing is not None and not self._writing.done():
            raise Busy("another change is going on; nothing was changed")
        self._writing = self._start(work)
        try:
            async with asyncio.timeout(_WRITE_SECONDS):
                return await asyncio.shield(self._result(self._writing))
        except TimeoutError:
            raise Busy(f"it takes more than {_WRITE_SECONDS:g} s and goes on; look again later") from None
        finally:
            self._cached = None

    async def _refresh(self) -> pb.GetQueueStatusResponse:
        async with self._status_lock:
            if self._cached is None or time.monotonic() - self._cached[0] > _CACHE_SECONDS:
                answer = await self._result(self._start(lambda: self._status(_STATUS_SECONDS)))
                self._cached = time.monotonic(), answer
            return self._cached[1]

    async def _within(self, read: _Work[_T]) -> _T:
        try:
            async with asyncio.timeout(_READ_SECONDS):
                return await read()
        except TimeoutError:
            raise Busy(
                f"no answer within {_READ_SECONDS:g} s: Redis is slow or away, or there is much to read"
            ) from None

    def _start(self, work: _Work[_T]) -> Future[_T]:
        coroutine = work()
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise Busy("the sidecar is stopping") from None

    async def _result(self, future: Future[_T]) -> _T:
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise Busy("the sidecar is stopping") from None
