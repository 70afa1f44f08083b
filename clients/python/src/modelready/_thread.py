"""Calls that block, beside an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


async def in_thread(name: str, work: Callable[[], Result]) -> Result:
    """What `work` returns or raises; it runs in a thread of its own that nobody waits for once this is cancelled.

    `asyncio.run` and the end of the process do wait for the threads of `asyncio.to_thread`.
    """
    done: Future[Result] = Future()
    done.set_running_or_notify_cancel()  # or a cancellation would reach it, and `run` could not end it any more

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - it is for who waits
            done.set_exception(error)
        else:
            done.set_result(result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await asyncio.wrap_future(done)
