"""Looks at the queue in Redis: lengths, groups, depths, dead letters, and the node itself."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from modelready.keys import Keys, list_dead_letters, processing
from modelready.redis.script import Script
from sidecar.errors import SetupFault
from sidecar.publishing.interfaces import DeadLetterCounts, GroupState, MirrorState, QueueState, RedisState
from sidecar.settings import QueueSettings
from sidecar.storage.groups import REPLAY_CONSUMER, names, read_groups
from sidecar.storage.redis_connection import RedisConnection

_PAGE = 1000
_MOST_COUNTED = 100_000
_MOST_REASONS = 10_000


class RedisInspector:
    """See publishing.interfaces.QueueInspector."""

    def __init__(self, connection: RedisConnection, settings: QueueSettings) -> None:
        self._connection = connection
        self._mirror = settings.list_name
        self._dedup_seconds = settings.dedup_seconds
        self._keys = Keys(settings.name)
        self._count = Script("sidecar.storage", "count.lua")
        self._counted: tuple[Any, DeadLetterCounts] = (None, DeadLetterCounts([], None))

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
        length, dead_letters, first = await self._connection.pipeline([
            ("XLEN", self._keys.events),
            ("XLEN", self._keys.dead_letters),
            ("XRANGE", self._keys.events, "-", "+", "COUNT", 1),
        ])  # fmt: skip
        oldest = _id(first)
        groups: list[GroupState] = []
        for raw in await read_groups(self._connection, self._keys.events):
            try:
                groups.append(await self._group(raw, length, oldest))
            except SetupFault as error:
                if "NOGROUP" not in str(error):  # destroyed meanwhile
                    raise
        return QueueState(length, dead_letters, _ms(oldest), groups, await self._list())

    async def depth(self) -> int:
        """See publishing.interfaces.QueueInspector.depth."""
        length, first = await self._connection.pipeline([
            ("XLEN", self._keys.events),
            ("XRANGE", self._keys.events, "-", "+", "COUNT", 1),
        ])  # fmt: skip
        oldest = _id(first)
        groups = await read_groups(self._connection, self._keys.events)
        depths = [raw["pending"] + await self._undelivered(raw, length, oldest) for raw in groups]
        return int(max(depths, default=length))

    async def dead_letter_counts(self) -> DeadLetterCounts:
        """See publishing.interfaces.QueueInspector.dead_letter_counts.

        Counted anew only where the length, the first or the last id is another: nothing else can have changed.
        """
        key = self._keys.dead_letters
        length, first, last = await self._connection.pipeline([
            ("XLEN", key),
            ("XRANGE", key, "-", "+", "COUNT", 1),
            ("XREVRANGE", key, "+", "-", "COUNT", 1),
        ])  # fmt: skip
        stands = (length, _id(first), _id(last))
        if self._counted[0] != stands:
            reasons: Counter[str] = Counter()
            await self._count_from("-", key, _MOST_REASONS, reasons)
            self._counted = stands, DeadLetterCounts(reasons.most_common(), _ms(stands[1]))
        return self._counted[1]

    async def dedup_keys(self) -> int:
        """The entries that still stand in the stream and were appended within the dedup window.

        Counted up to 1,000. Beyond that, all of the stream where its oldest entry is young enough, else the window's
        share of its time. Of entries that were trimmed within the window it does not know.
        """
        now, window = time.time() * 1000, self._dedup_seconds * 1000
        since = int(now - window)
        counted = await self._count_from(str(since), self._keys.events, _PAGE)
        if counted < _PAGE:
            return counted
        length, first = await self._connection.pipeline([
            ("XLEN", self._keys.events),
            ("XRANGE", self._keys.events, "-", "+", "COUNT", 1),
        ])  # fmt: skip
        oldest = _ms(_id(first))
        if oldest is None or oldest >= since:
            return int(length)
        return max(int(length * window / (now - oldest)), counted)

    async def redis(self) -> RedisState:
        """See publishing.interfaces.QueueInspector.redis."""
        began = time.perf_counter()
        await self._connection.execute("PING")
        state = RedisState(time.perf_counter() - began)
        info: dict[str, str] = {}
        for section in ("server", "memory", "replication"):
            reply = await self._if_allowed("INFO", section)
            if reply is None:
                return state
            text = reply.decode() if isinstance(reply, bytes) else str(reply)
            info |= dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
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

    async def _group(self, raw: Mapping[str, Any], length: int, oldest: str | None) -> GroupState:
        name, last, pending = raw["name"], raw["last-delivered-id"].decode(), raw["pending"]
        summary, following = await self._connection.pipeline([
            ("XPENDING", self._keys.events, name),
            ("XRANGE", self._keys.events, f"({last}", "+", "COUNT", 1),
        ])  # fmt: skip
        open_ids = [summary[1].decode()] if summary[1] else []
        undelivered = await self._undelivered(raw, length, oldest)
        if following and undelivered:
            open_ids.append(following[0][0].decode())
        consumers, idle = raw["consumers"], None
        listed = await self._if_allowed("XINFO", "CONSUMERS", self._keys.events, name)
        if listed is not None:
            real = [one for one in map(names, listed) if one["name"] != REPLAY_CONSUMER.encode()]
            consumers, idle = len(real), min((one["idle"] / 1000 for one in real), default=None)
        return GroupState(
            name=name.decode(errors="replace"),
            depth=undelivered + pending,
            pending=pending,
            consumers=consumers,
            oldest_ms=min((time for one in open_ids if (time := _ms(one)) is not None), default=None),
            undelivered=undelivered,
            idle=idle,
        )

    async def _undelivered(self, raw: Mapping[str, Any], length: int, oldest: str | None) -> int:
        """Entries behind the group's last: counted, but where there are many and XINFO's lag can be trusted.

        The lag is null after deletions and for groups made in the middle, and absent in Redis 6.2. Where entries were
        trimmed that the group had not read it is too large: more than the stream is long until the group has read some
        more (Redis 7.0 keeps the error), which is why a small number is always counted.
        """
        last, lag = raw["last-delivered-id"].decode(), raw.get("lag")
        if oldest is None or _before(last, oldest):
            return length
        counted = await self._count_from(f"({last}", self._keys.events, _PAGE)
        if counted < _PAGE:
            return counted
        if lag is not None and counted <= lag <= length:
            return int(lag)
        return await self._count_from(f"({last}", self._keys.events, _MOST_COUNTED)

    async def _count_from(self, first: str, key: str, most: int, reasons: Counter[str] | None = None) -> int:
        """Entries of a stream from an id on, about `most` at most: in short script calls, by reason into `reasons`."""
        field = "dl_reason" if reasons is not None else ""
        count = 0
        while count < most:
            found, last, *values = await self._connection.script(self._count, [key], [first, str(_PAGE), field])
            count += found
            if reasons is not None:
                for value, number in zip(values[::2], values[1::2], strict=True):
                    reasons[value.decode(errors="replace")] += number
            if found < _PAGE:
                break
            first = f"({last.decode()}"
        return count

    async def _if_allowed(self, *command: Any) -> Any:
        """The reply; None where the user lacks the right."""
        try:
            return await self._connection.execute(*command)
        except SetupFault as error:
            if error.reason == "REDIS_NO_PERMISSION":
                return None
            raise

    async def _list(self) -> MirrorState | None:
        if not self._mirror:
            return None
        keys = (self._mirror, processing(self._mirror), list_dead_letters(self._mirror))
        depth, in_hand, given_up = await self._connection.pipeline([("LLEN", key) for key in keys])
        return MirrorState(self._mirror, depth, in_hand, given_up)


def _id(entries: Sequence[Any]) -> str | None:
    return str(entries[0][0].decode()) if entries else None


def _ms(entry_id: str | None) -> int | None:
    return int(entry_id.partition("-")[0]) if entry_id else None


def _before(one: str, other: str) -> bool:
    return [int(part) for part in one.split("-")] < [int(part) for part in other.split("-")]
