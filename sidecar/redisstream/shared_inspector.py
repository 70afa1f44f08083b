"""One sidecar looks at the queue, and all that publish to it read what it saw.

The first to ask takes the turn, a key that expires within a period and is never given back. So a sidecar that dies
costs the others one period at most. What it saw stands beside the turn, with all that it had counted, and the next one
goes on from there. If that cannot be read, the next one begins again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from modelready.keys import Keys
from sidecar.errors import SetupFault
from sidecar.operations.interfaces import DeadLetterCounts, GroupState, Observed, QueueState
from sidecar.publishing.interfaces import Depth
from sidecar.redisstream.connection import RedisConnection
from sidecar.redisstream.inspector import RedisInspector
from sidecar.redisstream.stream_positions import Snapshot

log = logging.getLogger(__name__)

_VERSION = 1
_STATE_SECONDS, _DEPTH_SECONDS = 10.0, 1.0
_TURN = 0.8  # of a period: the sidecar that took the last turn asks again in time for the next
_KEEP_PERIODS = 6


class SharedInspector:
    """See operations.interfaces.QueueObserver and publishing.interfaces.DepthObserver."""

    def __init__(self, inspector: RedisInspector, connection: RedisConnection, queue: str) -> None:
        """`queue`: QUEUE_NAME."""
        self._inspector = inspector
        self._connection = connection
        self._keys = Keys(queue)
        self._alone = False
        self._asking = asyncio.Lock()
        self._observed: tuple[float, Observed] | None = None

    async def observe(self) -> Observed:
        """See operations.interfaces.QueueObserver.observe."""
        async with self._asking:
            if self._observed is None or time.monotonic() - self._observed[0] > _TURN * _STATE_SECONDS:
                observed = await self._shared("state", _STATE_SECONDS, self._look, self._read)
                lists = await self._inspector.lists()  # which lists there are every sidecar decides for itself
                self._observed = time.monotonic(), observed._replace(state=observed.state._replace(lists=lists))
            return self._observed[1]

    async def depth(self) -> Depth:
        """See publishing.interfaces.DepthObserver.depth."""
        depth: Depth = await self._shared(
            "depth", _DEPTH_SECONDS, self._look_at_depth, lambda raw: Depth(*json.loads(raw))
        )
        return depth

    async def _shared(
        self, what: str, period: float, look: Callable[[bytes | None], Awaitable[tuple[Any, str]]],
        decode: Callable[[bytes], Any],
    ) -> Any:  # fmt: skip
        """What was seen within the period: by another sidecar, or now by this one, whose turn it is then."""
        key, turn = self._keys.observed(what), self._keys.observed_turn(what)
        seen = None
        if not self._alone:
            try:
                mine, seen = await self._connection.pipeline([
                    ("SET", turn, "1", "NX", "PX", str(int(period * _TURN * 1000))),
                    ("GET", key),
                ])  # fmt: skip
            except SetupFault as error:
                if error.reason != "REDIS_NO_PERMISSION":
                    raise
                self._alone = True
                log.warning("this sidecar looks at the queue for itself alone: %s", error)
            else:
                if mine is None and seen is not None:
                    try:
                        return decode(seen)
                    except (ValueError, TypeError, KeyError):  # another version's
                        seen = None
        value, raw = await look(seen)
        if not self._alone:
            await self._connection.execute("SET", key, raw, "PX", str(int(period * _KEEP_PERIODS * 1000)))
        return value

    async def _look(self, seen: bytes | None) -> tuple[Observed, str]:
        if seen is not None:
            with suppress(ValueError, TypeError, KeyError):  # another version's: begin again
                self._read(seen)
        state = await self._inspector.inspect(consumers=False)
        observed = Observed(state, await self._inspector.dead_letter_counts())
        positions = self._inspector.positions
        raw = json.dumps({
            "version": _VERSION, "snapshot": positions.snapshot, "positions": positions.known(),
            "state": state._replace(lists=()), "dead": observed.dead,
        })  # fmt: skip
        return observed, raw

    async def _look_at_depth(self, _seen: bytes | None) -> tuple[Depth, str]:
        depth = await self._inspector.depth()
        return depth, json.dumps(depth)

    def _read(self, raw: bytes) -> Observed:
        """What another sidecar saw and had counted. Raises ValueError, TypeError or KeyError for an unknown version."""
        found = json.loads(raw)
        if found["version"] != _VERSION:
            raise ValueError(found["version"])
        length, dead_letters, oldest, groups, _ = found["state"]
        state = QueueState(length, dead_letters, oldest, [GroupState(*group) for group in groups])
        reasons, oldest_dead = found["dead"]
        counts = DeadLetterCounts([(reason, count) for reason, count in reasons], oldest_dead)
        self._inspector.positions.load(
            Snapshot(*found["snapshot"]), [(at, of, low) for at, of, low in found["positions"]]
        )
        return Observed(state, counts)
