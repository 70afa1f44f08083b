"""Lua scripts, called by digest: no SCRIPT LOAD right is needed, and a server that lost them gets their text."""

from __future__ import annotations

import hashlib
import importlib.resources
import time
from collections.abc import Sequence
from typing import Any

from redis.exceptions import NoScriptError

from sidecar.storage.redis_connection import RedisConnection


class Script:
    """One file beside this one. Scripts are not replicated (Redis 7.0+), so a promoted replica does not know them."""

    def __init__(self, name: str) -> None:
        self._text = (importlib.resources.files("sidecar.storage") / name).read_bytes()
        self._digest = hashlib.sha1(self._text, usedforsecurity=False).hexdigest()

    async def call(self, connection: RedisConnection, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """The script's reply. Raises QueueErrors; an ambiguous Unavailable where it may have run."""
        reply, _ = await self.call_and_wait(connection, keys, arguments, replicas=0, timeout=connection.timeout)
        return reply

    async def call_and_wait(
        self,
        connection: RedisConnection,
        keys: Sequence[str],
        arguments: Sequence[Any],
        *,
        replicas: int,
        timeout: float,
    ) -> tuple[Any, int]:
        """The script's reply, and how many replicas confirmed what it wrote; they are asked if `replicas` is not 0."""
        deadline = time.monotonic() + timeout
        body = (str(len(keys)), *keys, *arguments)
        try:
            return await _send(connection, ("EVALSHA", self._digest, *body), replicas, timeout)
        except NoScriptError:
            left = max(deadline - time.monotonic(), 0.001)
            return await _send(connection, ("EVAL", self._text, *body), replicas, left)


async def _send(
    connection: RedisConnection, command: tuple[Any, ...], replicas: int, timeout: float
) -> tuple[Any, int]:
    if not replicas:
        return await connection.execute(*command, timeout=timeout, write=True), 0
    # WAIT counts from the last write of its own connection, so it goes right behind the script. It must answer
    # before this call's time is up.
    patience = max(int(min(timeout, connection.timeout) * 800), 1)
    commands = [command, ("WAIT", str(replicas), str(patience))]
    reply, confirmed = await connection.pipeline(commands, timeout=timeout, write=True)
    return reply, confirmed
