"""What a consumer does with Redis, for both twins: reads, acknowledges, buries, keeps its claims, takes over.

Two tasks, each with a connection of its own. The reader waits for new entries. The other, `_tend`, carries to Redis
what ended in the hand, extends the claims, takes over what others left, and notes attempts before they begin. Every
step may be repeated after a lost reply, so that a fault costs nothing but another turn.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from modelready._hand import Entry, Failure, Hand, State, order
from modelready._retries import backoff
from modelready.entry import UndecodableEntry, decode, decode_data
from modelready.keys import Keys
from modelready.redis.cluster import Server
from modelready.redis.faults import (
    AuthenticationError,
    RedisError,
    checked,
    is_group_there,
    is_no_group,
    is_transient,
)
from modelready.redis.pool import Pool
from modelready.redis.script import Script
from modelready.v1.event_pb2 import ModelReadyToDeploy

logger = logging.getLogger(__name__)

MOST_IN_HAND = 1000
_PAGE = 100
_SWEEP_SECONDS = 2.0
_LOOK_SECONDS = 0.025
_SOON_SECONDS = 0.01
_LAST_WORDS_SECONDS = 3.0
_AT_ONCE_MS = 1 << 40  # an idle time that is above every claim

_TAKE, _KEEP, _BURY, _LEAVE, _OTHERS = (
    Script("modelready.lua", f"{name}.lua") for name in ("take", "keep", "bury", "leave", "others")
)


class Options(NamedTuple):
    """Of one consumer; see `modelready.consumer.Consumer`."""

    group: str
    queue: str
    consumer_name: str
    concurrency: int
    batch: int
    max_attempts: int
    backoff_base_seconds: float
    backoff_max_seconds: float
    claim_seconds: float
    block_seconds: float
    start: str


class Core:
    """One consumer at work, from its first read to its leave; for one event loop, and once."""

    def __init__(
        self, server: Server, options: Options, ready: Callable[[], object], wake: Callable[[], object]
    ) -> None:
        """See Hand for `ready`; `wake` must call `changed` in the loop that runs this."""
        self.hand = Hand(options.claim_seconds, wake, ready)
        self._server = server
        self._options = options
        self._keys = Keys(options.queue)
        self._link, self._read_link = Pool(server), Pool(server)
        self._tend_again, self._read_again = asyncio.Event(), asyncio.Event()
        self._others = _Others()
        self._stopped = asyncio.Event()
        self._is_waiting = False
        self._reader_waits = False
        self._soon: asyncio.TimerHandle | None = None
        self._fresh: list[tuple[bytes, list[bytes]]] = []
        self._asked_at = 0.0
        self._must_create = "first"
        self._must_recover = True
        self._sweep_at = 0.0
        self._look_at = 0.0
        self._look_pause = 0.001
        self._is_forced = False
        self._idle_since: float | None = None

    def changed(self) -> None:
        """Something ended in the hand. The reader takes acknowledgements along where it is about to read."""
        if self._reader_waits and self._room():
            self._read_again.set()
            if self.hand.has_failures:
                self._tend_again.set()
        elif self.hand.is_quick and not self.hand.has_failures:
            self._tend_soon()  # the next read takes them along, if it comes before
        else:
            self._tend_again.set()

    def _tend_soon(self) -> None:
        """Looks in a moment, as quick workers tell of what they did only at the end of a run."""
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_later(_SOON_SECONDS, self._tend_now)

    def _tend_now(self) -> None:
        self._soon = None
        self._tend_again.set()

    def stop(self, *, forced: bool = False) -> None:
        """Begin no more, and end when what was begun has ended; `forced`, at once. In the loop that runs this."""
        self._is_forced = self._is_forced or forced
        self.hand.stop()
        self._stopped.set()
        self._tend_again.set()
        self._read_again.set()

    async def run(self) -> None:
        """Work until the hand is stopped and no worker has anything. Raises RedisErrors that no waiting mends."""
        tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._server.credentials.watch(self._renew))]
        for task in tasks:
            task.add_done_callback(lambda _: self._tend_again.set())
        try:
            await self._tend(tasks[0])
        finally:
            self.hand.end()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._link.close()
            await self._read_link.close()

    async def _renew(self) -> None:
        self._server.renew()

    # -- reading

    async def _read(self) -> None:
        attempt = 0
        while not self.hand.stopping:
            self._read_again.clear()
            self.hand.told()
            count = self._room()
            if not count and self._fresh:
                self._unpack()
                continue
            if not count:
                self._reader_waits = True
                await self._read_again.wait()
                self._reader_waits = False
                continue
            try:
                await self._read_some(count)
                attempt, self._is_waiting = 0, False
            except RedisError as error:
                self._must_recover = True  # the reply may have held entries, and Redis gives an entry to a group once
                await self._after(error, self._read_link, attempt)
                attempt += 1
                self._tend_again.set()
        self._unpack()

    def _room(self) -> int:
        """How many entries to ask for now: none while all workers are busy, unless it is not for long."""
        options, busy = self._options, self.hand.busy + len(self._fresh)
        if self._must_create or self._must_recover or len(self.hand.entries) >= MOST_IN_HAND + options.batch:
            return 0
        if busy < options.concurrency:
            return options.batch - busy
        # Redis prepares the next batch while quick handlers deal with this one.
        return options.batch if self.hand.is_quick and busy <= options.batch else 0

    async def _read_some(self, count: int) -> None:
        options, stream = self._options, self._keys.events
        block = min(options.block_seconds, options.claim_seconds / 4)
        read = (
            "XREADGROUP", "GROUP", options.group, options.consumer_name,
            "COUNT", count, "BLOCK", max(1, int(block * 1000)), "STREAMS", stream, ">",
        )  # fmt: skip
        # Right behind the read, and so after it: what was delivered to others before is in the answer (docs/adr/0014).
        others = _OTHERS.command([stream], options.group, options.consumer_name, self._others.known)
        handled = self._to_acknowledge()
        asked_at = time.monotonic()
        call, limit = self._read_link.call, block + 5
        try:
            if handled:

                def acknowledged(reply: Any) -> None:
                    self.hand.acknowledged(handled if not isinstance(reply, RedisError) else [])

                ack = ("XACK", stream, options.group, *handled)
                _, reply, ahead = await call(ack, read, others, timeout=limit, sent=self._unpack, first=acknowledged)
            else:
                reply, ahead = await call(read, others, timeout=limit, sent=self._unpack)
        finally:
            self._unpack()
        if checked(reply):
            (entries,) = reply.values()
            if isinstance(ahead, RedisError) or not self._others.update(ahead):
                await self._ask_others(self._read_link)
            self._fresh, self._asked_at = entries, asked_at

    def _unpack(self) -> None:
        """Puts what was read last into the hand: while the next read is on its way, if there is one."""
        if self._fresh:
            fresh = [(entry_id.decode(), fields, 1) for entry_id, fields in self._fresh]
            self._fresh = []
            self._receive(fresh, self._asked_at, suspect=False)
            self._tend_soon()

    def _to_acknowledge(self) -> list[str]:
        """What was handled, while the claim on it is good; else it must be extended first, to learn what is lost."""
        return [] if self.hand.is_doubtful(time.monotonic()) else self.hand.handled()

    # -- what others have in hand

    async def _ask_others(self, link: Pool) -> None:
        arguments = (self._options.group, self._options.consumer_name)
        for known in (self._others.known, "0-0"):
            if self._others.update(await link.script(_OTHERS, [self._keys.events], *arguments, known)):
                return

    # -- into the hand

    def _receive(self, found: Iterable[tuple[str, list[bytes], int]], asked_at: float, *, suspect: bool) -> None:
        entries = []
        for entry_id, pairs, delivered in found:
            if entry_id in self.hand.entries:
                continue
            try:
                event = self._decode(pairs)
            except UndecodableEntry as error:
                self.hand.give_up(Failure(entry_id, None, "UNDECODABLE", str(error), final=True, attempts=delivered))
                self._tend_again.set()
                continue
            if event is None:
                self.hand.skip(entry_id)
                self._tend_again.set()
                continue
            entry = Entry(entry_id, event)
            if suspect and delivered:
                entry.suspect(delivered)
            if self._others:
                entry.ahead = self._others.before(entry)
            entries.append(entry)
        self.hand.add(entries, asked_at, in_order=not suspect)
        if suspect or self.hand.stalled:
            self._look_pause, self._look_at = 0.001, 0.0
            self._tend_again.set()

    def _decode(self, pairs: list[bytes]) -> ModelReadyToDeploy | None:
        """The event; None where it is replayed to another group. Raises UndecodableEntry."""
        # Most entries end as the sidecar writes them, which saves the look at all fields.
        if pairs[-2:-1] == [b"data"] and pairs[-4:-3] == [b"content-type"] and b"replay_group" not in pairs:
            return decode_data(pairs[-3], pairs[-1])
        fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
        group = fields.get(b"replay_group")
        if group is not None and group.decode(errors="replace") != self._options.group:
            return None
        return decode(fields)

    # -- tending

    async def _tend(self, reader: asyncio.Task[None]) -> None:
        attempt = 0
        while not self._is_over(reader):
            self._tend_again.clear()
            self.hand.told()
            try:
                await self._turn()
                attempt, self._is_waiting = 0, False
            except RedisError as error:
                self._must_recover = True
                await self._after(error, self._link, attempt)
                attempt += 1
                continue
            await self._sleep_until(self._next_turn_at())
        if not self._must_create:
            with suppress(RedisError):
                await self._leave()

    def _is_over(self, reader: asyncio.Task[None]) -> bool:
        """Whether nothing is left to do but to leave. Raises what ended the reader."""
        if reader.done():
            reader.result()
        if not self.hand.stopping or (self.hand.running and not self._is_forced):
            return False
        now = time.monotonic()
        self._idle_since = self._idle_since or now
        if now - self._idle_since > _LAST_WORDS_SECONDS + self._options.block_seconds:
            return True
        is_open = self.hand.handled() or any(self._is_final(failure) for failure in self.hand.failures())
        return reader.done() and not is_open

    async def _turn(self) -> None:
        options, hand = self._options, self.hand
        now = time.monotonic()
        if self._must_create:
            await self._create_group()
        if self._must_recover:
            await self._recover()
        if hand.entries and now >= hand.confirmed_at + options.claim_seconds / 3:
            await self._extend()
        if handled := hand.handled():
            await self._link.one("XACK", self._keys.events, options.group, *handled)
            hand.acknowledged(handled)
        for failure in hand.failures():
            await self._settle(failure)
        if hand.stopping:
            return
        if beginning := hand.to_allow(time.monotonic()):
            await self._begin(beginning)
        if hand.stalled and now >= self._look_at:
            await self._look_ahead()
        if now >= self._sweep_at:
            await self._sweep()
        self._read_again.set()

    def _next_turn_at(self) -> float:
        hand, claim = self.hand, self._options.claim_seconds
        times = [time.monotonic() + 0.05 if hand.stopping else self._sweep_at]
        if hand.running:
            times.append(time.monotonic() + _LOOK_SECONDS)
        if hand.entries:
            times.append(hand.confirmed_at + claim / 3)
        if hand.stalled:
            times.append(self._look_at)
        if (due := hand.next_attempt_at()) is not None and not hand.stopping:
            times.append(due)
        return min(times)

    async def _create_group(self) -> None:
        stream, group = self._keys.events, self._options.group
        start = self._options.start if self._must_create == "first" else "0"
        try:
            await self._link.one("XGROUP", "CREATE", stream, group, start, "MKSTREAM")
        except RedisError as error:
            if not is_group_there(error):
                raise
        self._must_create = ""

    async def _recover(self) -> None:
        """Takes what Redis thinks is in this consumer's hand, and is not: a reply was lost, or it is a second life."""
        last = "-"
        while found := await self._take(0, last, self._options.consumer_name):
            last = f"({found[-1][0]}"
        self._must_recover = False
        self._read_again.set()

    async def _sweep(self) -> None:
        """Takes what nobody has kept for `claim_seconds`: its consumer died, or it was given back or replayed."""
        found = await self._take(int(self._options.claim_seconds * 1000), "-", "")
        more = len(found) == _PAGE and len(self.hand.entries) < MOST_IN_HAND  # the rest is for others to take, or later
        pause = 0.0 if more else min(_SWEEP_SECONDS, self._options.claim_seconds / 3)
        self._sweep_at = time.monotonic() + pause * random.uniform(0.8, 1.2)  # noqa: S311 - only spreads the load

    async def _take(self, idle_ms: int, after: str, owner: str) -> list[tuple[str, list[bytes], int]]:
        asked_at = time.monotonic()
        reply = await self._script(_TAKE, idle_ms, after, _PAGE, owner)
        found = [(entry_id.decode(), fields, delivered) for entry_id, fields, delivered in reply]
        good = []
        for entry_id, fields, delivered in found:
            if entry_id in self.hand.entries:
                continue
            if not fields:
                logger.warning("entry %s of %s was deleted before it was handled", entry_id, self._keys.events)
            elif delivered >= self._options.max_attempts:
                detail = "its consumer ended, or lost it, in each of its attempts"
                self.hand.give_up(Failure(entry_id, None, "CONSUMER_DIED", detail, final=True, attempts=delivered))
                self._tend_again.set()
            else:
                good.append((entry_id, fields, delivered))
        if good:
            logger.info("group %s: took over %d entries of %s", self._options.group, len(good), self._keys.events)
            await self._ask_others(self._link)
            self._receive(good, asked_at, suspect=True)
        return found

    async def _extend(self) -> None:
        """Tells Redis that what is in hand is in good hands, and learns what is lost."""
        asked_at = time.monotonic()
        entries = list(self.hand.entries.values())
        for start in range(0, len(entries), 500):
            await self._keep([(entry, "", 0) for entry in entries[start : start + 500]])
        self.hand.confirm(asked_at)

    async def _keep(self, entries: list[tuple[Entry, int | str, int]]) -> list[Entry]:
        """Notes deliveries and idle milliseconds; returns those that are still this consumer's. The rest is lost."""
        arguments = [part for entry, times, idle in entries for part in (entry.id, times, idle)]
        kept = await self._script(_KEEP, *arguments)
        for (entry, _, _), is_kept in zip(entries, kept, strict=True):
            if not is_kept:
                logger.warning("entry %s was taken over by another consumer", entry.id)
                self.hand.lose(entry)
        return [entry for (entry, _, _), is_kept in zip(entries, kept, strict=True) if is_kept]

    async def _begin(self, entries: list[Entry]) -> None:
        for entry in await self._keep([(entry, entry.attempts + 1, 0) for entry in entries]):
            self.hand.allow(entry)

    def _is_final(self, failure: Failure) -> bool:
        return failure.final or (failure.entry is not None and failure.entry.attempts >= self._options.max_attempts)

    async def _settle(self, failure: Failure) -> None:
        """A dead letter, or another attempt."""
        entry = failure.entry
        if self._is_final(failure):
            await self._bury(failure)
            self.hand.carried(failure)
        elif entry is not None and entry.state is State.LOOSE:
            await self._give_back([entry])
            self.hand.carried(failure)
        elif entry is not None:
            pause = self._pause(entry.attempts)
            logger.warning("entry %s comes again in %.1f s: %s", entry.id, pause, failure.detail)
            self.hand.carried(failure, rest_until=time.monotonic() + pause)

    def _pause(self, attempts: int) -> float:
        """Seconds before the next attempt: full jitter, so that what failed together does not come again together."""
        most = min(self._options.backoff_max_seconds, self._options.backoff_base_seconds * 2.0 ** min(attempts - 1, 30))
        return random.uniform(0, most)  # noqa: S311 - spreads load, hides nothing

    async def _bury(self, failure: Failure) -> None:
        entry, now = failure.entry, int(time.time() * 1000)
        attempts = entry.attempts if entry else failure.attempts
        fields = {
            "dl_reason": failure.reason,
            "dl_detail": failure.detail,
            "dl_attempts": attempts,
            "dl_first_at": now - int((time.monotonic() - entry.began_at) * 1000) if entry and entry.began_at else now,
            "dl_last_at": now,
            "dl_origin": f"group:{self._options.group}",
            "dl_entry_id": failure.entry_id,
        }
        pairs = [part for pair in fields.items() for part in pair]
        keys = (self._keys.events, self._keys.dead_letters)
        buried = await self._link.script(
            _BURY, keys, self._options.group, self._options.consumer_name, failure.entry_id, *pairs
        )
        if buried:
            logger.error(
                "entry %s is a dead letter after %d attempts: %s: %s",
                failure.entry_id, attempts, failure.reason, failure.detail,
            )  # fmt: skip

    async def _look_ahead(self) -> None:
        """Asks what became of the entries that others have ahead of ours, more seldom while nothing happens."""
        await self._ask_others(self._link)
        moved = False
        for entry in list(self.hand.stalled):
            left = [entry_id for entry_id in entry.ahead if entry_id in self._others]
            moved = moved or len(left) < len(entry.ahead)
            entry.ahead = left
            self.hand.unstall(entry)
        self._look_pause = 0.001 if moved else min(0.05, self._look_pause * 2)
        self._look_at = time.monotonic() + self._look_pause

    async def _leave(self) -> None:
        """Gives back what was not handled, so that others may take it at once, and takes the name off the group."""
        await self._give_back(list(self.hand.entries.values()))
        await self._script(_LEAVE)

    async def _give_back(self, entries: list[Entry]) -> None:
        for start in range(0, len(entries), 500):
            part = entries[start : start + 500]
            await self._keep([(entry, entry.attempts - (not entry.began_now), _AT_ONCE_MS) for entry in part])

    # -- faults

    async def _script(self, script: Script, *arguments: Any) -> Any:
        options = self._options
        return await self._link.script(script, [self._keys.events], options.group, options.consumer_name, *arguments)

    async def _after(self, error: RedisError, link: Pool, attempt: int) -> None:
        """Does what lets the next attempt succeed, and waits a little. Raises the error where nothing does."""
        await link.close()
        if is_no_group(error):
            self._lose_group()
            return
        self._server.forget_owner()
        if isinstance(error, AuthenticationError):
            if await self._server.credentials.refused():
                self._server.renew()
            elif self._server.fixed_credentials or not link.ever_connected:
                raise error
        elif not is_transient(error):
            raise error
        if attempt == 0 and not self._is_waiting:
            logger.warning("waiting for Redis: %s", error)
        self._is_waiting = True
        if self.hand.stopping:
            await asyncio.sleep(0.05)
            return
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), backoff(attempt))

    def _lose_group(self) -> None:
        """Without the group nothing is pending: what is in hand comes again from the one made in its place."""
        if not self._must_create:
            stream, group = self._keys.events, self._options.group
            logger.warning("group %s of %s is gone: made again, all in the stream comes again", group, stream)
        self._must_create, self._must_recover = "again", True
        for entry in list(self.hand.entries.values()):
            self.hand.lose(entry)

    async def _sleep_until(self, when: float) -> None:
        """Waits until then (monotonic), or until something changes."""
        timer = asyncio.get_running_loop().call_later(max(when - time.monotonic(), 0), self._tend_again.set)
        await self._tend_again.wait()
        timer.cancel()


class _Others:
    """What the other consumers of the group have in hand, by the names that its models may have.

    A subject is `<model>/<version>`, and both may hold a slash: each of its beginnings may be the name. One too many
    costs a wait for an earlier event of another model, and no more.
    """

    def __init__(self) -> None:
        self.known = "0-0"
        self._subjects: dict[str, str] = {}
        self._by_model: dict[str, list[str]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_model)

    def __contains__(self, entry_id: str) -> bool:
        return entry_id in self._subjects

    def update(self, reply: list[bytes]) -> bool:
        """Takes a reply of others.lua in. False where a subject is missing: it must be asked for again."""
        if not reply:
            self._subjects, self._by_model = {}, {}
            return True
        ids = [entry_id.decode() for entry_id in reply[::2]]
        before, self._subjects, complete = self._subjects, {}, True
        for entry_id, subject in zip(ids, reply[1::2], strict=True):
            known = subject.decode(errors="replace") or before.get(entry_id)
            if known is None and order(entry_id) <= order(self.known):
                complete = False
            self._subjects[entry_id] = known or ""
        if not complete:
            self.known = "0-0"
            return False
        self.known = max(self.known, *ids, key=order)
        self._by_model = {}
        for entry_id, text in self._subjects.items():
            at = text.find("/")
            while at >= 0:
                self._by_model.setdefault(text[:at], []).append(entry_id)
                at = text.find("/", at + 1)
        return True

    def before(self, entry: Entry) -> list[str]:
        """The ids of the model's earlier entries."""
        found = self._by_model.get(entry.model)
        if not found:
            return []
        key = order(entry.id)
        return [entry_id for entry_id in found if order(entry_id) < key]
