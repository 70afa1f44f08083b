"""The consumer groups of the stream: their consumers, made, removed, set elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelready.keys import NO_CONSUMERS, Keys
from modelready.redis.script import Script
from sidecar.errors import SetupFault
from sidecar.operations.interfaces import Changed, ConsumerState
from sidecar.redisstream.connection import RedisConnection
from sidecar.redisstream.stream_info import if_allowed, names, read_groups
from sidecar.settings import QueueSettings

_GROUPS = 50  # that are asked about in one pipeline


class RedisGroups:
    """See operations.interfaces.GroupStore."""

    def __init__(self, connection: RedisConnection, settings: QueueSettings) -> None:
        self._connection = connection
        self._keys = Keys(settings.name)
        self._remove = Script("sidecar.redisstream", "lua/remove_group.lua")
        self._forget = Script("sidecar.redisstream", "lua/forget_consumers.lua")

    async def names(self) -> Sequence[str]:
        """See operations.interfaces.GroupStore.names."""
        return [one.name.decode(errors="replace") for one in await read_groups(self._connection, self._keys.events)]

    async def _raw(self, groups: Sequence[str]) -> list[bytes]:
        """Their names as Redis has them.

        One that is no UTF-8 is found by what is shown of it, unless two are shown so.
        """
        named: dict[str, list[bytes]] = {}
        if any("\ufffd" in group for group in groups):
            for one in await read_groups(self._connection, self._keys.events):
                named.setdefault(one.name.decode(errors="replace"), []).append(one.name)
        return [found[0] if len(found := named.get(group, [])) == 1 else group.encode() for group in groups]

    async def consumers(self, groups: Sequence[str]) -> Sequence[Sequence[ConsumerState]]:
        """See operations.interfaces.GroupStore.consumers."""
        raw, pages = await self._raw(groups), range(0, len(groups), _GROUPS)
        return [found for start in pages for found in await self._consumers(raw[start : start + _GROUPS])]

    async def _consumers(self, groups: Sequence[bytes]) -> list[list[ConsumerState]]:
        asked = [("XINFO", "CONSUMERS", self._keys.events, group) for group in groups]
        try:
            replies = await if_allowed(self._connection, *asked)
        except SetupFault as error:
            if "NOGROUP" not in str(error) and "no such key" not in str(error):
                raise
            if len(groups) == 1:
                return [[]]
            return [found for group in groups for found in await self._consumers([group])]
        return [[_consumer(names(raw)) for raw in reply] for reply in replies or [()] * len(groups)]

    async def create(self, group: str, start: str) -> bool:
        """See operations.interfaces.GroupStore.create."""
        try:
            await self._connection.execute("XGROUP", "CREATE", self._keys.events, group, start, "MKSTREAM")
        except SetupFault as error:
            if "BUSYGROUP" in str(error):
                return False
            raise
        return True

    async def remove(self, group: str, start: str, *, unread_seconds: float) -> Changed:
        """See operations.interfaces.GroupStore.remove."""
        keys = self._keys
        of_group = (keys.events, keys.lanes(group), keys.waiting(group), keys.free(group))
        arguments = (*await self._raw([group]), start, int(unread_seconds * 1000), *NO_CONSUMERS)
        return Changed((await self._connection.script(self._remove, of_group, arguments)).decode())

    async def forget_consumers(self, group: str, idle_seconds: float) -> int:
        """See operations.interfaces.GroupStore.forget_consumers."""
        arguments = (*await self._raw([group]), int(idle_seconds * 1000), *NO_CONSUMERS)
        return int(await self._connection.script(self._forget, (self._keys.events,), arguments))


def _consumer(info: Mapping[str, Any]) -> ConsumerState:
    idle = None if info["name"] in NO_CONSUMERS else info["idle"] / 1000
    return ConsumerState(info["name"].decode(errors="replace"), info["pending"], idle)
