"""Looks at the queue in Redis: lengths, groups, depths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelready.keys import Keys, list_dead_letters, processing
from sidecar.publishing.interfaces import GroupState, MirrorState, QueueState
from sidecar.settings import QueueSettings
from sidecar.storage.redis_connection import RedisConnection

_PAGE = 1000
_MOST_COUNTED = 100_000


class RedisInspector:
    """See publishing.interfaces.QueueInspector."""

    def __init__(self, connection: RedisConnection, settings: QueueSettings) -> None:
        self._connection = connection
        self._mirror = settings.list_name
        self._keys = Keys(settings.name)

    @property
    def name(self) -> str:
        """See publishing.interfaces.QueueInspector.name."""
        return self._keys.queue

    @property
    def stream(self) -> str:
        """See publishing.interfaces.QueueInspector.stream."""
        return self._keys.events

    async def inspect(self) -> QueueState:
        """See publishing.interfaces.QueueInspector.inspect."""
        length, dead_letters = await self._connection.pipeline([
            ("XLEN", self._keys.events),
            ("XLEN", self._keys.dead_letters),
        ])  # fmt: skip
        groups: list[GroupState] = []
        if length:  # XINFO GROUPS is an error where there is no stream
            for raw in await self._connection.execute("XINFO", "GROUPS", self._keys.events):
                groups.append(await self._group(_names(raw), length))  # noqa: PERF401 - each asks Redis
        return QueueState(length, dead_letters, groups, await self._list())

    async def _group(self, raw: Mapping[str, Any], length: int) -> GroupState:
        name, last = raw["name"].decode(), raw["last-delivered-id"].decode()
        pending = raw["pending"]
        undelivered = raw.get("lag")
        if undelivered is None or undelivered > length:
            # Null after deletions and for groups made in the middle, wrong after trimming (Redis 7.0), absent in 6.2.
            undelivered = await self._count_after(last)
        oldest: bytes | None = None
        if pending:
            summary = await self._connection.execute("XPENDING", self._keys.events, name)
            oldest = summary[1]
        elif undelivered:
            first = await self._connection.execute("XRANGE", self._keys.events, _after(last), "+", "COUNT", 1)
            oldest = first[0][0] if first else None
        oldest_ms = int(oldest.partition(b"-")[0]) if oldest else None
        return GroupState(name, undelivered + pending, pending, raw["consumers"], oldest_ms)

    async def _count_after(self, last: str) -> int:
        """Entries behind an id, counted; at most _MOST_COUNTED, since each page is a round trip."""
        count, start = 0, _after(last)
        while count < _MOST_COUNTED:
            page = await self._connection.execute("XRANGE", self._keys.events, start, "+", "COUNT", _PAGE)
            count += len(page)
            if len(page) < _PAGE:
                break
            start = _after(page[-1][0].decode())
        return count

    async def _list(self) -> MirrorState | None:
        if not self._mirror:
            return None
        names = (self._mirror, processing(self._mirror), list_dead_letters(self._mirror))
        depth, in_hand, given_up = await self._connection.pipeline([("LLEN", name) for name in names])
        return MirrorState(self._mirror, depth, in_hand, given_up)


def _after(entry_id: str) -> str:
    time, _, sequence = entry_id.partition("-")
    return f"{time}-{int(sequence) + 1}"


def _names(raw: Any) -> dict[str, Any]:
    """A map of RESP3, or its flat form, with text for names."""
    pairs = raw.items() if isinstance(raw, dict) else zip(raw[::2], raw[1::2], strict=True)
    return {key.decode(): value for key, value in pairs}
