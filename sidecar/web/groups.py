"""What the page shows of the consumer groups, and what a form there does. The console decides who may."""

from __future__ import annotations

from typing import Any

from sidecar.format import count, legible
from sidecar.operations import UNREAD_SECONDS
from sidecar.operations.groups import NEWEST, OLDEST, Groups
from sidecar.operations.interfaces import GroupState
from sidecar.web.calls import SidecarCalls
from sidecar.web.visit import Visit

ACTIONS = ("create", "remove", "reset")


class GroupForms:
    """Raises SidecarErrors, of which the text is for the page."""

    def __init__(self, calls: SidecarCalls, groups: Groups) -> None:
        self._calls = calls
        self._groups = groups

    async def listed(self) -> dict[str, Any]:
        """For the template groups: each group, whether nobody reads it, and its consumers."""
        groups = await self._calls.read(self._groups.list)
        return {"groups": [(group.state, _is_unread(group.state), group.consumers) for group in groups]}

    async def asked(self, action: str, name: str) -> dict[str, Any]:
        """For the template confirm_group: the group as it is now."""
        state = await self._calls.read(lambda: self._groups.remove(name, force=True, dry_run=True))
        return {"action": action, "group": state, "being_read": _is_read(state)}

    async def change(self, action: str, visit: Visit) -> str:
        """Do it, and say what was done."""
        name, force = visit.field("name"), visit.field("force") == "yes"
        start = visit.field("entry") or visit.field("start")
        if action == "create":
            created = await self._calls.write(lambda: self._groups.create(name, start))
            return f"The group {legible(name)} is created: {count(created.depth, 'event')} to read."
        if action == "reset":
            before = await self._calls.write(lambda: self._groups.reset(name, start, force=force, dry_run=False))
            where = start if start in (OLDEST, NEWEST) else f"entry {start}"
            done = f"begins again at {where}"
        else:
            before = await self._calls.write(lambda: self._groups.remove(name, force=force, dry_run=False))
            done = "is removed"
        return f"The group {legible(name)} {done}: it had {count(before.depth, 'unacknowledged event')}."


def _is_read(group: GroupState) -> bool:
    return group.idle is not None and group.idle < UNREAD_SECONDS


def _is_unread(group: GroupState) -> bool:
    return bool(group.depth) and (not group.consumers or (group.idle or 0) >= UNREAD_SECONDS)
