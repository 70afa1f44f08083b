"""Wait for a condition with a deadline, instead of sleeping and hoping.

Deadlines are for an idle machine: on one whose cores are shared they are longer, so that a test may be slow there, and
is not wrong.
"""

import asyncio
import inspect
import os
import time
from collections.abc import Awaitable, Callable
from typing import Never, TypeVar, cast, overload

T = TypeVar("T")
PAUSE = 0.01
SLACK = 2.0
MOST = 200.0
CROWD = 6
CORES = os.cpu_count() or 1


def patience(seconds: float) -> float:
    """How many seconds to allow on this machine now: times the processes that share a core, and at least twice.

    At most MOST, so that a wait in vain ends before pytest's own limit for a test, which would end all tests.
    """
    return min(seconds * max(SLACK, os.getloadavg()[0] / CORES), max(MOST, SLACK * seconds))


def crowded() -> bool:
    """Whether more than CROWD processes share a core: too many to judge how long something took."""
    return os.getloadavg()[0] > CROWD * CORES


def until(condition: Callable[[], T | None], seconds: float, what: str, *, pause: float = PAUSE) -> T:
    """Poll until `condition` returns something truthy, and return that; `pause` seconds between two looks, or more.

    An exception counts as "not yet". After `patience(seconds)`: AssertionError with `what` and the last value or
    exception.
    """
    began = time.monotonic()
    while True:
        asked = time.monotonic()
        try:
            last: T | Exception | None = condition()
            if last:
                return cast("T", last)
        except Exception as error:  # noqa: BLE001 - whatever it is, it may pass; the deadline reports the last one
            last = error
        now = time.monotonic()
        if now - began >= patience(seconds):
            _give_up(last, now - began, what)
        time.sleep(max(pause, min(4 * (now - asked), 0.1)))  # what costs more is asked less often


@overload
async def auntil(condition: Callable[[], Awaitable[T | None]], seconds: float, what: str) -> T: ...
@overload
async def auntil(condition: Callable[[], T | None], seconds: float, what: str) -> T: ...
async def auntil(condition: Callable[[], object], seconds: float, what: str) -> object:
    """The twin of `until` for a running loop; `condition` may be a coroutine function.

    A coroutine that is still waiting at the deadline is cancelled, and counts as a failure.
    """
    last: object = "no answer"
    seconds = patience(seconds)
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    answer = condition()
                    value = await answer if inspect.isawaitable(answer) else answer
                    if value:
                        return value
                    last = value
                except Exception as error:  # noqa: BLE001 - as above
                    last = error
                await asyncio.sleep(PAUSE)
    except TimeoutError:
        _give_up(last, seconds, what)


def _give_up(last: object, seconds: float, what: str) -> Never:
    cause = last if isinstance(last, Exception) else None
    raise AssertionError(f"not within {seconds:g} s: {what}; last: {last!r}") from cause
