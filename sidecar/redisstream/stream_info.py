"""A stream and its consumer groups, as XINFO has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sidecar.errors import SetupFault
from sidecar.publishing.entry_ids import LAST, number
from sidecar.redisstream.connection import RedisConnection
from sidecar.redisstream.stream_positions import Snapshot


class Group(NamedTuple):
    """A consumer group. `last`: the last id that it was given; `lag`: None where Redis does not know."""

    name: bytes
    last: int
    pending: int
    consumers: int
    lag: int | None


async def read_groups(connection: RedisConnection, stream: str) -> Sequence[Group]:
    """All of them; none where there is no stream. Raises QueueErrors."""
    try:
        infos = [names(raw) for raw in await connection.execute("XINFO", "GROUPS", stream)]
    except SetupFault as error:
        if "no such key" in str(error):
            return []
        raise
    return [
        Group(info["name"], number(info["last-delivered-id"].decode()), info["pending"], info["consumers"],
              info.get("lag"))
        for info in infos
    ]  # fmt: skip


async def read_snapshot(connection: RedisConnection, stream: str) -> Snapshot:
    """The stream by XINFO STREAM; without the right to that, what can be known without. Raises QueueErrors."""
    try:
        reply = await if_allowed(connection, ("XINFO", "STREAM", stream))
    except SetupFault as error:
        if "no such key" in str(error):
            return Snapshot(0, 1, 0, 0, 0)
        raise
    if reply is not None:
        info = names(reply[0])
    else:
        length, first, last = await connection.pipeline([("XLEN", stream), *edges(stream)])
        last_id = last[0][0] if last else b"0-0"
        info = {"length": length, "first-entry": first[0] if first else None, "last-generated-id": last_id}
    last_at = number(info["last-generated-id"].decode())
    first_at = number(info["first-entry"][0].decode()) if info["first-entry"] else last_at + 1
    if "entries-added" not in info:
        return Snapshot(info["length"], first_at, last_at, info["length"], LAST)
    deleted = number(info["max-deleted-entry-id"].decode())
    return Snapshot(info["length"], first_at, last_at, info["entries-added"], deleted)


def edges(stream: str) -> Sequence[tuple[Any, ...]]:
    """The commands that answer with the first entry and with the last one."""
    return [("XRANGE", stream, "-", "+", "COUNT", 1), ("XREVRANGE", stream, "+", "-", "COUNT", 1)]


async def if_allowed(connection: RedisConnection, *commands: tuple[Any, ...]) -> list[Any] | None:
    """Their replies; None where the user lacks the right. Raises QueueErrors."""
    try:
        return await connection.pipeline(commands)
    except SetupFault as error:
        if error.reason == "REDIS_NO_PERMISSION":
            return None
        raise


def names(raw: Any) -> dict[str, Any]:
    """A map of RESP3, or its flat form, with text for names."""
    pairs = raw.items() if isinstance(raw, dict) else zip(raw[::2], raw[1::2], strict=True)
    return {key.decode(): value for key, value in pairs}
