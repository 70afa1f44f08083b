"""The background tasks of a sidecar. One that fails ends the process."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

log = logging.getLogger(__name__)

_BEAT_SECONDS, _LATE_SECONDS = 0.5, 5.0


Result = TypeVar("Result")


def in_daemon(name: str, work: Callable[[], Result]) -> Future[Result]:
    """What `work` will return or raise, in a thread that the end of the process does not wait for."""
    ended: Future[Result] = Future()
    ended.set_running_or_notify_cancel()  # or a cancellation would reach it

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - raised where the end is awaited
            ended.set_exception(error)
        else:
            ended.set_result(result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return ended


class Tasks:
    """Runs the background tasks. `failed` gets the error of the first that fails."""

    def __init__(self, failed: asyncio.Future[BaseException | None]) -> None:
        self._failed = failed
        self._tasks: list[asyncio.Task[None]] = []
        self._beat = time.monotonic()
        self.start("heartbeat", self._run())

    @property
    def alive(self) -> bool:
        """Whether the event loop has run within the last five seconds. Any thread may ask."""
        return time.monotonic() - self._beat < _LATE_SECONDS

    async def _run(self) -> None:
        while True:
            self._beat = time.monotonic()
            await asyncio.sleep(_BEAT_SECONDS)

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task, with its name for the log."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)
        return task

    async def cancel(self) -> None:
        """Cancel all, and wait until they have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.critical("the background task %s died", task.get_name(), exc_info=error)
            if not self._failed.done():
                self._failed.set_result(error)
