"""Reads the stream outside any group."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from modelready.entry import UndecodableEntry, decode
from modelready.keys import Keys
from sidecar.operations.interfaces import Entry
from sidecar.publishing.entry_ids import text
from sidecar.redisstream.connection import RedisConnection
from sidecar.redisstream.stream_info import read_groups
from sidecar.settings import QueueSettings

_PAGE = 1000


class RedisStreamReader:
    """See operations.interfaces.StreamReader."""

    def __init__(self, connection: RedisConnection, settings: QueueSettings) -> None:
        self._connection = connection
        self._stream = Keys(settings.name).events

    async def after(self, entry_id: str, count: int) -> Sequence[Entry]:
        """See operations.interfaces.StreamReader.after."""
        page = await self._connection.execute("XRANGE", self._stream, f"({entry_id}", "+", "COUNT", count)
        return [_entry(*raw) for raw in page]

    async def newest(self, count: int, after: str = "0-0") -> Sequence[Entry]:
        """See operations.interfaces.StreamReader.newest."""
        page = await self._connection.execute("XREVRANGE", self._stream, "+", f"({after}", "COUNT", count)
        return [_entry(*raw) for raw in reversed(page)]

    async def last_delivered(self, group: str) -> str | None:
        """See operations.interfaces.StreamReader.last_delivered."""
        for one in await read_groups(self._connection, self._stream):
            if one.name.decode(errors="replace") == group:
                return text(one.last)
        return None

    async def pending(self, group: str, last: str) -> Sequence[str]:
        """See operations.interfaces.StreamReader.pending."""
        ids: list[str] = []
        start = "-"
        while True:
            page = await self._connection.execute("XPENDING", self._stream, group, start, last, _PAGE)
            ids += [raw[0].decode() for raw in page]
            if len(page) < _PAGE:
                return ids
            start = f"({ids[-1]}"

    async def get(self, ids: Sequence[str]) -> Sequence[Entry]:
        """See operations.interfaces.StreamReader.get."""
        pages = await self._connection.pipeline([("XRANGE", self._stream, one, one) for one in ids])
        return [_entry(*page[0]) for page in pages if page]


def _entry(raw_id: bytes, flat: Sequence[bytes]) -> Entry:
    fields: dict[bytes, Any] = dict(zip(flat[::2], flat[1::2], strict=True))
    event = None
    with suppress(UndecodableEntry):
        event = decode(fields)
    return Entry(raw_id.decode(), event, fields.get(b"replay_group", b"").decode(errors="replace"))
