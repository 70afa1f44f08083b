"""Owns the signs of life in a group: shows that this consumer lives, and puts back what dead ones left.

A consumer renews its alive key, and the age of its claims, by which consumers go that know no lanes. One that had no
alive key for half a claim, while Redis answered, is dead: its entries go back into the lanes, where any consumer takes
them. Time without Redis does not count, since every consumer needs a moment to come back.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping
from typing import Any

from modelready._consumer.in_flight import InFlight
from modelready._consumer.lanes import PAGE, Lanes
from modelready._consumer.options import Options
from modelready.keys import REPLAY_CONSUMER, WAITING_CONSUMER, Keys
from modelready.redis.faults import checked
from modelready.redis.pool import Pool

logger = logging.getLogger(__name__)

_REPLAY, _WAITING = REPLAY_CONSUMER.encode(), WAITING_CONSUMER.encode()
_SWEEP_SECONDS = 2.0
_RENEW_SECONDS = 60.0
"""The longest between two renewals: after five minutes without, operators take the group for one that nobody reads."""
_MAX_PAGES = 10
_MAX_WAITING = 10_000
"""Above it nothing is added to the lanes that was replayed, or left by consumers that know no lanes."""


class Liveness:
    """The signs of life of one consumer, and its look at the others'."""

    def __init__(self, pool: Pool, lanes: Lanes, in_flight: InFlight, options: Options) -> None:
        self._pool = pool
        self._lanes = lanes
        self._in_flight = in_flight
        self._options = options
        self._keys = Keys(options.queue)
        self._name = options.consumer_name.encode()
        self._missing_since: dict[bytes, float] = {}
        self._positions: dict[bytes, str] = {}
        self._tidied_at = 0.0
        self.renew_at = 0.0
        self.sweep_at = 0.0

    def forget_others(self) -> None:
        """Forget which consumers were missing: while Redis does not answer, none can renew its alive key."""
        self._missing_since.clear()

    async def renew(self) -> None:
        """Show Redis that this consumer lives. What another has taken over is lost."""
        asked_at = time.monotonic()
        entries = list(self._in_flight.entries.values())
        kept = await self._lanes.keep([entry.id for entry in entries])
        for entry, is_kept in zip(entries, kept, strict=False):
            if not is_kept:
                logger.warning("entry %s was taken over by another consumer", entry.id)
                self._in_flight.lose(entry)
        self._in_flight.confirm(asked_at)
        self.renew_at = asked_at + min(_RENEW_SECONDS, self._options.claim_seconds / 6)

    async def sweep(self) -> None:
        """Put back what the dead left and what was replayed, and forget their names."""
        options, now = self._options, time.monotonic()
        reply, count = await self._pool.call(
            ("XINFO", "CONSUMERS", self._keys.events, options.group),
            ("ZCARD", self._keys.waiting(options.group)),
        )
        waiting = checked(count)
        peers = {peer["name"]: peer for peer in map(_peer, checked(reply)) if peer["name"] != self._name}
        released, more = await self._release_special(peers, waiting)
        for name in await self._dead(peers, now):
            count, goes_on = await self._release_dead(name, peers[name], waiting)
            released, more = released + count, more or goes_on
        if released:
            logger.info("group %s: took over %d entries of %s", options.group, released, self._keys.events)
        if released or now >= self._tidied_at + options.claim_seconds / 2:
            self._tidied_at = now
            self._in_flight.end_lanes(await self._lanes.tidy())
        pause = 0.1 if more else min(_SWEEP_SECONDS, options.claim_seconds / 6)
        self.sweep_at = time.monotonic() + pause * random.uniform(0.8, 1.2)  # noqa: S311 - only spreads the load

    async def leave(self, known: Mapping[str, int | str]) -> None:
        """Give back what was not handled, so that others may take it at once, and take the name off the group."""
        await self._lanes.release_own(known, lives=True)
        await self._lanes.tidy(leaving=True)
        await self._lanes.forget(self._options.consumer_name)

    async def _dead(self, peers: Mapping[bytes, Mapping[str, Any]], now: float) -> list[bytes]:
        """Those that had no alive key in any look for half a claim; the key itself lives for as long."""
        names = [name for name in peers if name not in {_REPLAY, _WAITING}]
        prefix = self._keys.alive(self._options.group, "").encode()
        commands = [("EXISTS", prefix + name) for name in names]
        alive = await self._pool.call(*commands) if commands else []
        missing = [name for name, is_alive in zip(names, alive, strict=True) if not checked(is_alive)]
        self._missing_since = {name: self._missing_since.get(name, now) for name in missing}
        self._positions = {name: after for name, after in self._positions.items() if name in peers}
        return [name for name in missing if now - self._missing_since[name] >= self._options.claim_seconds / 2]

    async def _release_dead(self, name: bytes, peer: Mapping[str, Any], waiting: int) -> tuple[int, bool]:
        """How many entries were put back, and whether there are more. Where none is old enough it looks at one page."""
        claim, released = self._options.claim_seconds, 0
        if not peer["pending"]:
            if peer["idle"] >= 10_000 * claim:
                await self._lanes.forget(name)
            return 0, False
        if peer["pending"] > 10 * PAGE and waiting > _MAX_WAITING:
            return 0, False
        for _ in range(_MAX_PAGES):
            after = self._positions.get(name, "-")
            following, count = await self._lanes.release(name, after=after, idle_seconds=claim)
            released += count
            self._positions[name] = following or "-"
            if not following:
                if released:
                    await self._lanes.forget(name)
                return released, False
            if not count:
                return released, False
        return released, True

    async def _release_special(self, peers: Mapping[bytes, Mapping[str, Any]], waiting: int) -> tuple[int, bool]:
        """Put replayed entries into the lanes, and those that wait in none, as when the key was deleted."""
        replayed = peers.get(_REPLAY, {}).get("pending", 0)
        astray = peers.get(_WAITING, {}).get("pending", 0) - waiting
        released, more = 0, False
        if replayed and waiting <= _MAX_WAITING:
            following, released = await self._lanes.release(_REPLAY, idle_seconds=self._options.claim_seconds)
            more = bool(following and released)
        if astray > 0:
            after = self._positions.get(_WAITING, "-")
            following, count = await self._lanes.release(_WAITING, after=after)
            self._positions[_WAITING] = following or "-"
            released, more = released + count, more or bool(following)
        return released, more


def _peer(raw: Any) -> dict[str, Any]:
    """A row of XINFO CONSUMERS: a map of RESP3, or its flat form."""
    pairs = raw.items() if isinstance(raw, dict) else zip(raw[::2], raw[1::2], strict=True)
    return {key.decode(): value for key, value in pairs}
