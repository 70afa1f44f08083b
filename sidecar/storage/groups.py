"""The consumer groups of a stream, as XINFO has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sidecar.errors import SetupFault
from sidecar.storage.redis_connection import RedisConnection

REPLAY_CONSUMER = "replay"
"""Holds what was replayed to a group until one of the group's consumers takes it over. It never asks for anything."""


async def read_groups(connection: RedisConnection, stream: str) -> Sequence[Mapping[str, Any]]:
    """Each as a mapping by XINFO GROUPS' names; none where there is no stream. Raises QueueErrors."""
    try:
        return [names(raw) for raw in await connection.execute("XINFO", "GROUPS", stream)]
    except SetupFault as error:
        if "no such key" in str(error):
            return []
        raise


def names(raw: Any) -> dict[str, Any]:
    """A map of RESP3, or its flat form, with text for names."""
    pairs = raw.items() if isinstance(raw, dict) else zip(raw[::2], raw[1::2], strict=True)
    return {key.decode(): value for key, value in pairs}
