"""Removes from the stream what every group has acknowledged, or without groups what the mirror lists have got."""

from __future__ import annotations

import time

from modelready.keys import Keys
from modelready.redis.script import Script
from sidecar.redisstream.connection import RedisConnection
from sidecar.settings import QueueSettings

_STEP = 10_000  # entries a script call: a millisecond or two, in which the server does nothing else


class RedisTrimmer:
    """See operations.interfaces.StreamTrimmer."""

    def __init__(self, connection: RedisConnection, settings: QueueSettings) -> None:
        self._connection = connection
        self._keys = Keys(settings.name)
        self._mirrored = bool(settings.lists)
        self._trim = Script("sidecar.redisstream", "lua/trim.lua")

    async def take_turn(self, seconds: float) -> bool:
        """See operations.interfaces.StreamTrimmer.take_turn."""
        lock = ("SET", self._keys.trim_lock, "1", "NX", "PX", str(int(seconds * 1000)))
        return await self._connection.execute(*lock) is not None

    async def trim(self, before_ms: int) -> int:
        """See operations.interfaces.StreamTrimmer.trim."""
        now = str(time.time_ns() // 1_000_000) if self._mirrored else ""
        keys = (self._keys.events, self._keys.mirrored_since)
        return int(await self._connection.script(self._trim, keys, (f"{before_ms}-0", str(_STEP), now)))
