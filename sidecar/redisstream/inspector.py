"""Looks at the queue in Redis: lengths, groups, depths, dead letters, and the node itself."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Any

from modelready.keys import NO_CONSUMERS, Keys
from sidecar.errors import QueueError, SetupFault
from sidecar.operations.interfaces import DeadLetterCounts, GroupState, MirrorState, QueueState, RedisState
from sidecar.publishing.entry_ids import milliseconds, number, text
from sidecar.publishing.interfaces import Depth
from sidecar.redisstream.connection import RedisConnection
from sidecar.redisstream.counter import EntryCounter
from sidecar.redisstream.dead_letter_reasons import DeadLetterReasons
from sidecar.redisstream.stream_info import Group, if_allowed, names, read_groups, read_snapshot
from sidecar.redisstream.stream_positions import Positions
from sidecar.settings import QueueSettings

_GROUPS = 50  # that are asked about in one pipeline: Redis does nothing else for 0.2 ms
_REST_SECONDS = 0.005  # in which events are published
_FEW, _ANY = 1000, sys.maxsize  # entries, that are counted to know one number exactly
_CONSUMERS_SECONDS = 10.0  # that what is known of consumers is good for, where there are many groups


class RedisInspector:
    """See operations.interfaces.QueueInspector; what several sidecars share is SharedInspector's.

    A look asks for the groups and the stream as a whole, which costs the same whatever stands in it. Only where a group
    stands at an id whose position is not known are entries counted, see StreamPositions and EntryCounter.
    """

    def __init__(self, connection: RedisConnection, settings: QueueSettings) -> None:
        self._connection = connection
        self._lists = settings.lists
        self._dedup_seconds = settings.dedup_seconds
        self._keys = Keys(settings.name)
        self._counter = EntryCounter(connection)
        self._reasons = DeadLetterReasons(connection, self._keys.dead_letters, self._counter)
        self._looking = asyncio.Lock()
        self._consumers: dict[bytes, tuple[int, float | None]] = {}
        self._consumers_at = -_CONSUMERS_SECONDS
        self.positions = Positions()

    @property
    def name(self) -> str:
        """See operations.interfaces.QueueInspector.name."""
        return self._keys.queue

    @property
    def stream(self) -> str:
        """See operations.interfaces.QueueInspector.stream."""
        return self._keys.events

    async def inspect(self, *, consumers: bool = True) -> QueueState:
        """See operations.interfaces.QueueInspector.inspect. Without `consumers` those of a replay are not left out.

        Where there are more than 50 groups, their consumers are asked for every ten seconds at most: one command each.
        """
        async with self._looking:
            raw = await self._look(_ANY)
            if consumers and (len(raw) <= _GROUPS or time.monotonic() - self._consumers_at >= _CONSUMERS_SECONDS):
                self._consumers, self._consumers_at = {}, time.monotonic()
            groups: list[GroupState] = []
            for start in range(0, len(raw), _GROUPS):
                groups += await self._states(raw[start : start + _GROUPS], consumers=consumers)
                if start + _GROUPS < len(raw):
                    await asyncio.sleep(_REST_SECONDS)
            stream = self.positions.snapshot
            dead_letters = await self._connection.execute("XLEN", self._keys.dead_letters)
            oldest = milliseconds(stream.first) if stream.length else None
            return QueueState(stream.length, dead_letters, oldest, groups, await self.lists())

    async def depth(self) -> Depth:
        """See publishing.interfaces.DepthObserver.depth."""
        async with self._looking:
            groups = await self._look(_FEW)
            stream = self.positions.snapshot
            depths = [group.pending + self.positions.behind(group.last, group.lag) for group in groups]
            if not groups and self._lists:
                depths = await self._connection.pipeline([("LLEN", mirror.name) for mirror in self._lists])
            return Depth(max(depths, default=stream.length), stream.last)

    async def dead_letter_counts(self) -> DeadLetterCounts:
        """See operations.interfaces.QueueInspector.dead_letter_counts."""
        async with self._looking:
            return await self._reasons.counts()

    async def dedup_keys(self) -> int:
        """The entries that still stand in the stream and were appended within the dedup window, about.

        Of entries that were trimmed within the window it does not know.
        """
        since = number(f"{int((time.time() - self._dedup_seconds) * 1000)}-0")
        async with self._looking:
            self.positions.observe(await read_snapshot(self._connection, self._keys.events))
            await self._counter.resolve(self._keys.events, self.positions, since, _FEW)
            return self.positions.behind(since)

    async def redis(self) -> RedisState:
        """See operations.interfaces.QueueInspector.redis."""
        began = time.perf_counter()
        await self._connection.execute("PING")
        state = RedisState(time.perf_counter() - began)
        info: dict[str, str] = {}
        for section in ("server", "memory", "replication"):
            reply = await if_allowed(self._connection, ("INFO", section))
            if reply is None:
                return state
            said = reply[0].decode() if isinstance(reply[0], bytes) else str(reply[0])
            info |= dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
        valkey = info.get("valkey_version", "")
        return state._replace(
            engine="valkey" if valkey else "redis",
            version=valkey or info.get("redis_version", ""),
            role=info.get("role", ""),
            used_memory=int(info.get("used_memory", 0)),
            max_memory=int(info.get("maxmemory", 0)),
            eviction_policy=info.get("maxmemory_policy", ""),
            replicas=int(info.get("connected_slaves", 0)),
            cluster=info.get("redis_mode", info.get("server_mode")) == "cluster",
        )

    async def _look(self, most: int) -> Sequence[Group]:
        """The groups; where they stand is known then, or nearly. `most`: see EntryCounter. Raises QueueErrors."""
        try:
            groups = await read_groups(self._connection, self._keys.events)
            self.positions.observe(await read_snapshot(self._connection, self._keys.events))
            for last in sorted({group.last for group in groups}, key=self.positions.cost):
                await self._counter.resolve(self._keys.events, self.positions, last, most)
        except QueueError:
            self.positions.forget()  # a failover may have lost entries
            raise
        return groups

    async def _states(self, groups: Sequence[Group], *, consumers: bool) -> list[GroupState]:
        """What is to be asked of each group on its own; without those that were destroyed meanwhile."""
        try:
            return await self._ask(groups, consumers=consumers)
        except SetupFault as error:
            if "NOGROUP" not in str(error):
                raise
            if len(groups) == 1:
                return []
            return [state for one in groups for state in await self._states([one], consumers=consumers)]

    async def _ask(self, groups: Sequence[Group], *, consumers: bool) -> list[GroupState]:
        stream, first = self._keys.events, self.positions.snapshot.first
        behind = [self.positions.behind(group.last, group.lag) for group in groups]
        asked: list[tuple[Any, ...]] = []
        for group, undelivered in zip(groups, behind, strict=True):
            if group.pending:
                asked.append(("XPENDING", stream, group.name))
            if undelivered and group.last >= first:
                asked.append(("XRANGE", stream, f"({text(group.last)}", "+", "COUNT", 1))
        replies = iter(await self._connection.pipeline(asked) if asked else [])
        known = await self._known_consumers([group.name for group in groups]) if consumers else {}
        states = []
        for group, undelivered in zip(groups, behind, strict=True):
            open_ids: list[bytes] = []
            if group.pending:
                open_ids += filter(None, [next(replies)[1]])
            if undelivered and group.last >= first:
                open_ids += [entry[0] for entry in next(replies)]
            times = [milliseconds(number(one.decode())) for one in open_ids]
            if undelivered and group.last < first:
                times.append(milliseconds(first))
            count, idle = known.get(group.name, (group.consumers, None))
            states.append(GroupState(
                name=group.name.decode(errors="replace"),
                depth=undelivered + group.pending,
                pending=group.pending,
                consumers=count,
                oldest_ms=min(times, default=None),
                undelivered=undelivered,
                idle=idle,
            ))  # fmt: skip
        return states

    async def _known_consumers(self, groups: Sequence[bytes]) -> dict[bytes, tuple[int, float | None]]:
        """How many each group has, and how long ago the last of them asked, in seconds; nothing without the right."""
        missing = [group for group in groups if group not in self._consumers]
        asked = [("XINFO", "CONSUMERS", self._keys.events, group) for group in missing]
        listed = await if_allowed(self._connection, *asked) if asked else []
        for group, raw in zip(missing, listed or (), strict=listed is not None):
            real = [one for one in map(names, raw) if one["name"] not in NO_CONSUMERS]
            self._consumers[group] = len(real), min((one["idle"] / 1000 for one in real), default=None)
        return self._consumers

    async def lists(self) -> list[MirrorState]:
        """The lengths of the mirror lists. Raises QueueErrors."""
        if not self._lists:
            return []
        keys = [key for mirror in self._lists for key in mirror.keys.values()]
        lengths = iter(await self._connection.pipeline([("LLEN", key) for key in keys]))
        return [MirrorState(mirror, next(lengths), next(lengths), next(lengths)) for mirror in self._lists]
