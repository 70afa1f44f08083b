"""What an operator does with consumer groups, and the names of dead consumers, which go by themselves. The rules."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import NamedTuple

from sidecar.errors import GroupExists, GroupInUse, InvalidRequest, NotFound, Violation
from sidecar.format import count, duration, legible
from sidecar.operations import UNREAD_SECONDS
from sidecar.operations.background import jittered, repeat
from sidecar.operations.interfaces import Changed, ConsumerState, GroupState, GroupStore, QueueInspector
from sidecar.publishing.entry_ids import milliseconds, parse

log = logging.getLogger(__name__)

OLDEST, NEWEST = "oldest", "newest"
_MAX_NAME = 256
_DEAD_SECONDS = 86_400.0  # a consumer that blocks for ever on a quiet stream looks idle, too
_PERIOD_SECONDS = 600.0
_JITTER = 0.2


class Group(NamedTuple):
    """A consumer group with its consumers."""

    state: GroupState
    consumers: Sequence[ConsumerState]


class Groups:
    """The consumer groups of one queue. All but `run` raise QueueErrors."""

    def __init__(self, inspector: QueueInspector, store: GroupStore) -> None:
        self._inspector = inspector
        self._store = store

    async def run(self) -> None:
        """Forget dead consumers every ten minutes, until cancelled; of no consequence to publishing."""
        await asyncio.sleep(jittered(_PERIOD_SECONDS, _JITTER))
        complaint = "the names of dead consumers stay: %s"
        await repeat(self.forget_consumers, _PERIOD_SECONDS, log, complaint, jitter=_JITTER)

    async def forget_consumers(self) -> int:
        """Remove the names that asked for nothing for a day and have nothing pending; how many went.

        Even if such a consumer lives, nothing is lost: Redis knows its name again with its next read.
        """
        total = 0
        for group in await self._store.names():
            if forgotten := await self._store.forget_consumers(group, _DEAD_SECONDS):
                log.info("the names of dead consumers are removed", extra={"group": group, "consumers": forgotten})
                total += forgotten
        return total

    async def list(self, name: str = "") -> Sequence[Group]:
        """All, or the one with this name. Raises NotFound where there is none with it."""
        states = [await self._find(name)] if name else (await self._inspector.inspect()).groups
        consumers = await self._store.consumers([state.name for state in states])
        return [Group(*pair) for pair in zip(states, consumers, strict=True)]

    async def create(self, name: str, start: str) -> GroupState:
        """Create one. `start`: see `_position`; empty: `oldest`. Raises InvalidRequest and GroupExists."""
        if not 1 <= len(name) <= _MAX_NAME or not name.isprintable() or name != name.strip():
            text = f"must be 1 to {_MAX_NAME} printable characters, without blanks at either end"
            raise InvalidRequest([Violation("name", text)])
        if not await self._store.create(name, _position(start or OLDEST)):
            raise GroupExists(f"there is a consumer group {legible(name)} already")
        log.info("group created", extra={"group": name, "start": start or OLDEST})
        return await self._find(name)

    async def remove(self, name: str, *, force: bool, dry_run: bool) -> GroupState:
        """Remove one, unless it is being read and `force` is not set. Returns it as it was.

        Raises NotFound and GroupInUse.
        """
        return await self._change(name, "", force=force, dry_run=dry_run)

    async def reset(self, name: str, start: str, *, force: bool, dry_run: bool) -> GroupState:
        """Let one begin again elsewhere, with nothing pending; the same otherwise. Raises InvalidRequest, too."""
        return await self._change(name, _position(start), force=force, dry_run=dry_run)

    async def _change(self, name: str, start: str, *, force: bool, dry_run: bool) -> GroupState:
        before = await self._find(name)
        if not force and before.idle is not None and before.idle < UNREAD_SECONDS:
            raise _in_use(before)
        if dry_run:
            return before
        changed = await self._store.remove(name, start, unread_seconds=0 if force else UNREAD_SECONDS)
        if changed is Changed.MISSING:
            raise _no_group(name)
        if changed is Changed.READ:
            raise _in_use(before._replace(idle=0))
        details = {"group": name, "unacknowledged": before.depth, "pending": before.pending}
        log.warning("group reset" if start else "group removed", extra=details | ({"start": start} if start else {}))
        return before

    async def _find(self, name: str) -> GroupState:
        for state in (await self._inspector.inspect()).groups:
            if state.name == name:
                return state
        raise _no_group(name)


def _no_group(name: str) -> NotFound:
    return NotFound(f"there is no consumer group {legible(name)}")


def _in_use(group: GroupState) -> GroupInUse:
    return GroupInUse(
        f"the group {legible(group.name)} is being read: one of {count(group.consumers, 'consumer')} asked for events"
        f" {duration(group.idle or 0)} ago. Stop its consumers and wait, or force it: what they handle now may come"
        " again, and they create a removed group again"
    )


def _position(start: str) -> str:
    """Where a group begins, as XGROUP CREATE takes it: `oldest`, `newest` or behind an entry's id that has been."""
    if start in (OLDEST, NEWEST):
        return "0-0" if start == OLDEST else "$"
    entry = parse(start)
    if entry is None or milliseconds(entry) > time.time() * 1000:
        text = f"must be {OLDEST}, {NEWEST} or an entry's id such as 1700000000000-0, not after now"
        raise InvalidRequest([Violation("start", text)])
    return start
