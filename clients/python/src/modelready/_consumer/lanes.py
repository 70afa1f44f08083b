"""Owns the scripts that keep the order per model across a group: all that changes lanes in Redis goes through here.

Each script's file says what it does. Each may be repeated after a lost reply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from modelready._consumer.options import Options
from modelready.keys import Keys
from modelready.redis.pool import Pool
from modelready.redis.script import Script

PAGE = 100
_MAX_WAITING = 100_000  # of one group, in all lanes: some 30 MB of Redis


_TURN, _KEEP, _RELEASE, _TIDY, _DEAD_LETTER, _CREATE, _FORGET = (
    Script("modelready._consumer", "lua/lanes.lua", f"lua/{name}.lua")
    for name in ("turn", "keep", "release", "tidy", "dead_letter", "create", "forget")
)


class Given(NamedTuple):
    """An entry that is this consumer's now. `attempts`: how many times it was begun before."""

    id: str
    lane: bytes
    attempts: int
    is_begun: bool
    fields: list[bytes]


class Turn(NamedTuple):
    """What a turn gave."""

    left: str
    """In the stream: "" (did not look), "more", "full", or the id of its last entry, after which to wait."""
    entries: list[Given]
    kept: list[bool]
    """Whether each of those that were to begin is this consumer's."""
    waiting: int
    """How many entries wait in lanes."""


class Lanes:
    """A group's lanes, for one of its consumers."""

    def __init__(self, pool: Pool, options: Options) -> None:
        keys = Keys(options.queue)
        group, self._name = options.group, options.consumer_name
        self._pool = pool
        self._group = group
        self._keys = (
            keys.events,
            keys.lanes(group),
            keys.waiting(group),
            keys.free(group),
            keys.alive(group, self._name),
        )
        self._dead_letters = keys.dead_letters
        self._alive_ms = max(1, int(options.claim_seconds * 500))
        self._free_first = False

    async def create_group(self, start: str) -> bool:
        """Whether the group was made."""
        return bool(await self._call(_CREATE, start))

    async def turn(
        self,
        handled: Sequence[str] = (),
        ended: Sequence[bytes] = (),
        begins: Sequence[tuple[str, int]] = (),
        *,
        room: int = 0,
        demand: int | None = 0,
        reads: bool = True,
    ) -> Turn:
        """Acknowledge, note attempts, and fill the `room`: from the lanes that ended, from free ones, by reading.

        `demand` workers begin at once what they are given; None: all of it is noted as begun.
        """
        self._free_first = not self._free_first
        begin, most_waiting = -1 if demand is None else demand, _MAX_WAITING if reads else 0
        left, entries, kept, waiting = await self._call(
            _TURN, self._alive_ms, room, begin, most_waiting, int(self._free_first),
            len(handled), *handled, len(ended), *ended, *(part for pair in begins for part in pair),
        )  # fmt: skip
        given = [Given(each[0].decode(), each[1], each[2], bool(each[3]), each[4]) for each in entries]
        return Turn(left.decode(), given, [bool(each) for each in kept], waiting)

    async def keep(self, ids: Sequence[str]) -> list[bool]:
        """Say that this consumer lives. Returns which of the entries are still its own."""
        kept = []
        for start in range(0, max(len(ids), 1), PAGE):
            kept += await self._call(_KEEP, self._alive_ms, *ids[start : start + PAGE])
        return [bool(each) for each in kept]

    async def release(
        self,
        consumer: str | bytes,
        known: Mapping[str, int | str] | None = None,
        *,
        after: str = "-",
        idle_seconds: float = 0.0,
        lives: bool = False,
    ) -> tuple[str, int]:
        """Put a page of what is pending with a consumer back into the lanes. Returns where to go on, and how many."""
        pairs = [part for pair in (known or {}).items() for part in pair]
        following, count = await self._call(
            _RELEASE, consumer, after, "+", PAGE, int(idle_seconds * 1000), int(lives), *pairs
        )  # fmt: skip
        return following.decode(), count

    async def release_own(self, known: Mapping[str, int | str], *, lives: bool) -> None:
        """Put back all that is pending with this consumer but what it keeps."""
        after = "-"
        while after:
            after, _ = await self.release(self._name, known, after=after, lives=lives)

    async def release_one(self, entry_id: str, attempts: int) -> None:
        """Put one entry back."""
        await self._call(_RELEASE, self._name, entry_id, entry_id, 1, 0, 1, entry_id, attempts)

    async def tidy(self, *, leaving: bool = False) -> list[bytes]:
        """Set lanes without an owner free. Returns the lanes of this consumer, unless it leaves."""
        mine: list[bytes] = []
        after: bytes = b""
        while True:
            after, found = await self._call(_TIDY, after, PAGE, name="" if leaving else self._name)
            mine += found
            if not after:
                return mine

    async def dead_letter(self, entry_id: str, fields: Mapping[str, Any]) -> bool:
        """Whether it was still this consumer's, and is a dead letter now."""
        pairs = [part for pair in fields.items() for part in pair]
        return bool(await self._call(_DEAD_LETTER, entry_id, *pairs, keys=(*self._keys, self._dead_letters)))

    async def forget(self, consumer: str | bytes) -> bool:
        """Remove the consumer's name from the group, unless it has something pending. Whether it did."""
        return bool(await self._call(_FORGET, consumer))

    async def _call(
        self, script: Script, *arguments: Any, keys: Sequence[str] | None = None, name: str | None = None
    ) -> Any:
        return await self._pool.script(
            script, keys or self._keys, self._group, self._name if name is None else name, *arguments
        )
