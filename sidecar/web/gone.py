"""From the HTTP thread into the event loop: each question takes a bounded time, and few are asked at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any, TypeVar

from modelready.v1 import queue_service_pb2 as pb
from sidecar.errors import NotFound, SidecarError
from sidecar.operations.dead_letters import DeadLetters, Filter, Outcome, Page
from sidecar.publishing.interfaces import StoredDeadLetter

Answer = TypeVar("Answer")

_STATUS_SECONDS = 1.5  # that Redis has for the status; the rest of it is known here
_CACHE_SECONDS = 1.0
_READ_SECONDS = 1.8
_WRITE_SECONDS = 10.0
_MAX_READS = 2
MAX_IDS = 1000


class Busy(SidecarError):
    """It was not answered in time; or too much is going on."""


class Backstage:
    """What the page knows and does. Raises PublishErrors, and Busy."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        status: Callable[[float], Coroutine[Any, Any, pb.GetQueueStatusResponse]],
        dead_letters: DeadLetters,
    ) -> None:
        """`status`: takes the seconds that Redis has to answer."""
        self._loop = loop
        self._status = status
        self._dead_letters = dead_letters
        self._status_lock = threading.Lock()
        self._cached: tuple[float, pb.GetQueueStatusResponse] | None = None
        self._reads = threading.BoundedSemaphore(_MAX_READS)
        self._writing = threading.Lock()

    def status(self) -> pb.GetQueueStatusResponse:
        """As it was at most a second ago."""
        if not self._status_lock.acquire(timeout=_READ_SECONDS):
            raise Busy("the status is being asked for, and takes long")
        try:
            if self._cached is None or time.monotonic() - self._cached[0] > _CACHE_SECONDS:
                self._cached = None
                answer = self._wait(self._start(self._status(_STATUS_SECONDS)), _READ_SECONDS)
                self._cached = time.monotonic(), answer
            return self._cached[1]
        finally:
            self._status_lock.release()

    def forget(self) -> None:
        """Let the next status be a new one: something was changed."""
        self._cached = None

    def find(self, selected: Filter, size: int, token: str = "", *, newest_first: bool = True) -> Page:
        """One page of dead letters."""
        return self._read(lambda: self._dead_letters.list(selected, size, token, newest_first=newest_first))

    def get(self, letter_id: str) -> StoredDeadLetter:
        """One dead letter. Raises NotFound."""
        return self._read(lambda: self._dead_letters.get(letter_id))

    def get_all(self, ids: Sequence[str]) -> list[StoredDeadLetter]:
        """Those of them that are there."""

        async def get_all() -> list[StoredDeadLetter]:
            found = []
            for letter_id in ids[:MAX_IDS]:
                with suppress(NotFound):
                    found.append(await self._dead_letters.get(letter_id))
            return found

        return self._read(get_all)

    def replayable(self, ids: Sequence[str], *, everyone: bool) -> Outcome:
        """What a replay of these would do."""
        return self._read(
            lambda: self._dead_letters.replay(ids, everyone=everyone, dry_run=True, max_per_second=0),
        )

    def replay(self, ids: Sequence[str], *, everyone: bool) -> Outcome:
        """Put these back. Where that takes more than ten seconds it goes on, and Busy is raised."""
        return self._write(
            lambda: self._dead_letters.replay(ids, everyone=everyone, dry_run=False, max_per_second=0),
        )

    def discard(self, ids: Sequence[str]) -> Outcome:
        """Remove these for good. As `replay` where it takes long."""
        return self._write(lambda: self._dead_letters.discard(ids, dry_run=False))

    def _read(self, question: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        began = time.monotonic()
        if not self._reads.acquire(timeout=_READ_SECONDS / 2):
            raise Busy("too many dead letters are being read at the same time")
        try:
            return self._wait(self._start(question()), _READ_SECONDS - (time.monotonic() - began))
        finally:
            self._reads.release()

    def _write(self, deed: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        """One at a time; a deed that takes long is not cut in the middle, and holds its place until its end."""
        if not self._writing.acquire(blocking=False):
            raise Busy("another replay or discard is going on; nothing was changed")
        try:
            future = self._start(deed())
        except BaseException:
            self._writing.release()
            raise
        future.add_done_callback(lambda _: self._writing.release())
        try:
            return self._wait(future, _WRITE_SECONDS, cancel=False)
        finally:
            self.forget()

    def _start(self, work: Coroutine[Any, Any, Answer]) -> Future[Answer]:
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()
            raise Busy("the sidecar is stopping") from None

    def _wait(self, future: Future[Answer], seconds: float, *, cancel: bool = True) -> Answer:
        try:
            return future.result(max(seconds, 0))
        except CancelledError:
            raise Busy("the sidecar is stopping") from None
        except TimeoutError:
            if not cancel:
                raise Busy(f"it takes more than {seconds:g} s and goes on; look again in a while") from None
            future.cancel()
            raise Busy(
                f"no answer within {_READ_SECONDS:g} s: Redis is slow or away, or there is much to read"
            ) from None
