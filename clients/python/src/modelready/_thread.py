"""Calls that block, in threads of their own: beside an event loop, or with a limit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


async def in_thread(name: str, work: Callable[[], Result]) -> Result:
    """What `work` returns or raises; nobody waits for its thread once this is cancelled."""
    return await asyncio.wrap_future(start(name, work))


def start(name: str, work: Callable[[], Result]) -> Future[Result]:
    """What `work` will return or raise; it runs in a thread that the end of the process does not wait for.

    `asyncio.run` and the end of the process do wait for the threads of `asyncio.to_thread`.
    """
    done: Future[Result] = Future()
    done.set_running_or_notify_cancel()  # or a cancellation would reach it, and `run` could not end it any more

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
            done.set_exception(error)
        else:
            done.set_result(result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return done
