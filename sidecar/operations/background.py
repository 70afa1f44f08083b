"""How the tasks run that are of no consequence to publishing."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import NoReturn

from sidecar.errors import QueueError, SetupFault


def jittered(seconds: float, jitter: float) -> float:
    """Up to that share more or less, so that many sidecars spread over the time."""
    return seconds * random.uniform(1 - jitter, 1 + jitter)  # noqa: S311 - no secret


async def repeat(
    work: Callable[[], Awaitable[object]], seconds: float, log: logging.Logger, complaint: str, *, jitter: float = 0.0
) -> NoReturn:
    """Do it until cancelled, with a pause of `seconds` behind each time.

    QueueErrors end nothing. `complaint`, with a place for the error, is logged once, for what a person must fix.
    """
    complained = False
    while True:
        try:
            await work()
        except SetupFault as error:
            if not complained:
                log.warning(complaint, error)
            complained = True
        except QueueError:
            pass  # readiness reports it
        await asyncio.sleep(jittered(seconds, jitter))
