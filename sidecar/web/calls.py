"""Calls from the page's event loop into the sidecar's: each takes a bounded time, and few are made at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from modelready.v1 import queue_service_pb2 as pb
from sidecar.errors import NotFound, SidecarError
from sidecar.operations.dead_letters import DeadLetters, Filter, Outcome, Page
from sidecar.publishing.interfaces import StoredDeadLetter

_T = TypeVar("_T")
_Work = Callable[[], Coroutine[Any, Any, _T]]

_STATUS_SECONDS = 1.5  # that Redis has for the status; the rest of it is known here
_CACHE_SECONDS = 1.0
_READ_SECONDS = 1.8
_WRITE_SECONDS = 10.0
_MAX_READS = 2
MAX_IDS = 1000


class Busy(SidecarError):
    """The answer takes too long, or too much is going on."""


class SidecarCalls:
    """What the page reads and does. All raise PublishErrors and Busy."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        status: Callable[[float], Coroutine[Any, Any, pb.GetQueueStatusResponse]],
        dead_letters: DeadLetters,
    ) -> None:
        """`loop`: the sidecar's. `status`: takes the seconds that Redis has to answer."""
        self._loop = loop
        self._status = status
        self._dead_letters = dead_letters
        self._status_lock = asyncio.Lock()
        self._cached: tuple[float, pb.GetQueueStatusResponse] | None = None
        self._reads = asyncio.Semaphore(_MAX_READS)
        self._writing: Future[Outcome] | None = None

    async def status(self) -> pb.GetQueueStatusResponse:
        """The status as it was at most a second ago."""
        return await self._within(self._refresh)

    async def find(self, selected: Filter, size: int, token: str = "", *, newest_first: bool = True) -> Page:
        """One page of dead letters."""
        return await self._read(lambda: self._dead_letters.list(selected, size, token, newest_first=newest_first))

    async def get(self, letter_id: str) -> StoredDeadLetter:
        """One dead letter. Raises NotFound."""
        return await self._read(lambda: self._dead_letters.get(letter_id))

    async def get_all(self, ids: Sequence[str]) -> list[StoredDeadLetter]:
        """Those that are there."""

        async def get_all() -> list[StoredDeadLetter]:
            found = []
            for letter_id in ids[:MAX_IDS]:
                with suppress(NotFound):
                    found.append(await self._dead_letters.get(letter_id))
            return found

        return await self._read(get_all)

    async def try_replay(self, ids: Sequence[str], *, everyone: bool) -> Outcome:
        """What a replay would do."""
        return await self._read(
            lambda: self._dead_letters.replay(ids, everyone=everyone, dry_run=True, max_per_second=0)
        )

    async def replay(self, ids: Sequence[str], *, everyone: bool) -> Outcome:
        """Put these back. A replay that takes more than ten seconds goes on, and Busy is raised."""
        return await self._write(
            lambda: self._dead_letters.replay(ids, everyone=everyone, dry_run=False, max_per_second=0)
        )

    async def discard(self, ids: Sequence[str]) -> Outcome:
        """Delete these; as `replay` where it takes long."""
        return await self._write(lambda: self._dead_letters.discard(ids, dry_run=False))

    async def _refresh(self) -> pb.GetQueueStatusResponse:
        async with self._status_lock:
            if self._cached is None or time.monotonic() - self._cached[0] > _CACHE_SECONDS:
                answer = await self._result(self._start(lambda: self._status(_STATUS_SECONDS)))
                self._cached = time.monotonic(), answer
            return self._cached[1]

    async def _read(self, work: _Work[_T]) -> _T:
        async def read() -> _T:
            async with self._reads:
                return await self._result(self._start(work))

        return await self._within(read)

    async def _within(self, read: _Work[_T]) -> _T:
        try:
            async with asyncio.timeout(_READ_SECONDS):
                return await read()
        except TimeoutError:
            raise Busy(
                f"no answer within {_READ_SECONDS:g} s: Redis is slow or away, or there is much to read"
            ) from None

    async def _write(self, work: _Work[Outcome]) -> Outcome:
        """One at a time. One that takes long is not cut in the middle, and no other begins before its end."""
        if self._writing is not None and not self._writing.done():
            raise Busy("another replay or discard is going on; nothing was changed")
        self._writing = self._start(work)
        try:
            async with asyncio.timeout(_WRITE_SECONDS):
                return await asyncio.shield(self._result(self._writing))
        except TimeoutError:
            raise Busy(f"it takes more than {_WRITE_SECONDS:g} s and goes on; look again later") from None
        finally:
            self._cached = None

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
