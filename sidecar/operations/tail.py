"""Follows the stream for TailEvents, by short reads, so that no connection is held between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from sidecar.errors import InvalidRequest, NotFound, ShuttingDown, Unavailable, Violation
from sidecar.operations.interfaces import Entry, StreamReader

_PERIOD_SECONDS = 0.25
_BREATH_SECONDS = 0.02  # a reader that catches up leaves time for publishing
_PAGE = 100
_MAX_SHOWN = 1000
_NO_ID = "0-0"


class Tail:
    """One call's way along the stream."""

    def __init__(self, reader: StreamReader, draining: asyncio.Event, *, last: int, group: str) -> None:
        """Show the `last` newest first; with a group only what it has not acknowledged, all of it where `last` is 0.

        Raises InvalidRequest.
        """
        if not 0 <= last <= _MAX_SHOWN:
            raise InvalidRequest([Violation("last", f"must be 0 to {_MAX_SHOWN}")])
        self._reader = reader
        self._draining = draining
        self._last = last
        self._group = group
        self._at = _NO_ID

    async def entries(self) -> AsyncIterator[Entry]:
        """The entries, in order, without an end. Raises NotFound, QueueErrors at the start, and ShuttingDown.

        Once it follows, it outlasts an outage of Redis.
        """
        async for entry in self._start():
            yield entry
        while True:
            page = []
            with suppress(Unavailable):
                page = list(await self._reader.after(self._at, _PAGE))
            for entry in page:
                self._at = entry.id
                if not self._group or entry.only_for in ("", self._group):
                    yield entry
            if self._draining.is_set():
                raise ShuttingDown("the sidecar is stopping")
            with suppress(TimeoutError):
                async with asyncio.timeout(_PERIOD_SECONDS if len(page) < _PAGE else _BREATH_SECONDS):
                    await self._draining.wait()

    async def _start(self) -> AsyncIterator[Entry]:
        """What is shown first; sets where following goes on."""
        if self._group:
            async for entry in self._unacknowledged():
                yield entry
            return
        shown = await self._reader.newest(max(self._last, 1))
        if shown:
            self._at = shown[-1].id
        for entry in shown[: self._last]:
            yield entry

    async def _unacknowledged(self) -> AsyncIterator[Entry]:
        delivered = await self._reader.last_delivered(self._group)
        if delivered is None:
            raise NotFound(f"the queue has no group {self._group}")
        self._at = delivered
        pending = await self._reader.pending(self._group, delivered)
        if not self._last:
            for start in range(0, len(pending), _PAGE):
                for entry in await self._reader.get(pending[start : start + _PAGE]):
                    yield entry
            return
        undelivered = await self._reader.newest(self._last, delivered)
        shown = [entry for entry in undelivered if entry.only_for in ("", self._group)]
        while pending and len(shown) < self._last:  # backwards, since some of them may be gone from the stream
            shown = [*await self._reader.get(pending[-_PAGE:]), *shown]
            pending = pending[:-_PAGE]
        if undelivered:
            self._at = undelivered[-1].id
        for entry in shown[-self._last :]:
            yield entry
