"""Extends a lease while a block runs, from a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from modelready.redis.faults import RedisError

logger = logging.getLogger(__name__)


@contextmanager
def kept(extend: Callable[[], bool], lease_seconds: float, what: str) -> Iterator[None]:
    """Calls `extend` every third of the lease while the block runs; False from it means that another has the lease.

    While Redis is away it is called again a third of the lease later: the lease may run out meanwhile.
    """
    over = threading.Event()

    def still_ours() -> bool:
        try:
            return extend()
        except RedisError as error:
            logger.warning("the lease of %s could not be extended: %s", what, error)
            return True

    def keep() -> None:
        while not over.wait(lease_seconds / 3):
            if not still_ours():
                logger.warning("the lease of %s ran out, and another has taken it over", what)
                return

    thread = threading.Thread(target=keep, name="modelready-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
