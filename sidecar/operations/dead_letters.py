"""What an operator does with dead letters: list, read, replay, discard. The rules; the store does each step."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sidecar.errors import InvalidRequest, NotFound, ShuttingDown, Violation
from sidecar.operations.interfaces import DeadLetterStore, Replayed, StoredDeadLetter
from sidecar.publishing.entry_ids import milliseconds, number, parse

log = logging.getLogger(__name__)

_FIRST_PAGE, _PAGE = 10, 100  # dead letters that are read at a time, at most
_READ_BYTES = 128 << 10  # that are read at a time, about: one may be some 100 KiB
_READ_SHARE = 0.1  # of the time, for all that read dead letters together: events are published meanwhile
_MAX_SCANNED = 10_000  # a call, and for how long: a filter that matches nothing must not read for minutes
_SCAN_SECONDS = 1.0
MAX_IDS = 1000
_PAGE_SIZE, _MAX_PAGE_SIZE = 100, 1000
_PAGE_BYTES = 2 << 20  # a message may have 4 MiB

_Read = Callable[[str, str, int], Awaitable[Sequence[StoredDeadLetter]]]


@dataclass(frozen=True)
class Filter:
    """Selects dead letters; what is empty does not select. Ages in seconds."""

    reason: str = ""
    model: str = ""
    origin: str = ""
    older_than: float | None = None
    newer_than: float | None = None
    text: str = ""
    """Stands in the detail, the subject or an id, in capitals or not."""

    def matches(self, letter: StoredDeadLetter) -> bool:
        """Whether it is one of them, its age apart."""
        return (
            (not self.reason or letter.reason == self.reason)
            and (not self.origin or letter.origin == self.origin)
            and (not self.model or self._is_model(letter))
            and (not self.text or self._has_text(letter))
        )

    def _has_text(self, letter: StoredDeadLetter) -> bool:
        where = (letter.detail, letter.subject, letter.event_id, letter.correlation_id, letter.id, letter.entry_id)
        return self.text.casefold() in "\n".join(where).casefold()

    def _is_model(self, letter: StoredDeadLetter) -> bool:
        if letter.subject and not letter.subject.startswith(f"{self.model}/"):
            return False  # so that few are decoded
        event = letter.event
        return event.model.name == self.model if event is not None else bool(letter.subject)

    def range(self) -> tuple[str, str]:
        """The ids that are neither too young nor too old now, as XRANGE takes them."""
        now = time.time_ns() // 1_000_000
        first = "-" if self.newer_than is None else str(max(now - int(self.newer_than * 1000), 0))
        last = "+" if self.older_than is None else str(max(now - int(self.older_than * 1000), 0))
        return first, last


class Page(NamedTuple):
    """Some dead letters, and the token of the next page; empty where this is the last."""

    letters: Sequence[StoredDeadLetter]
    next_token: str


class Outcome(NamedTuple):
    """What a replay or a discard did. `skipped`: cannot be put back, stays a dead letter."""

    done: int = 0
    missing: int = 0
    skipped: int = 0


class DeadLetters:
    """The dead letters of one queue. All raise QueueErrors."""

    def __init__(self, store: DeadLetterStore, draining: asyncio.Event) -> None:
        """`draining`: set when the sidecar stops; what takes long ends then."""
        self._store = store
        self._draining = draining
        self._reading = asyncio.Lock()
        self._rests_until = 0.0

    async def list(self, selected: Filter, page_size: int, page_token: str, *, newest_first: bool = False) -> Page:
        """One page, the oldest or the newest first. It may be short, even empty, and not the last.

        Raises InvalidRequest.
        """
        if not 0 <= page_size <= _MAX_PAGE_SIZE:
            raise InvalidRequest([Violation("page_size", f"must be 1 to {_MAX_PAGE_SIZE}, or 0 for {_PAGE_SIZE}")])
        wanted = page_size or _PAGE_SIZE
        first, last = selected.range()
        after = _read_token(page_token) if page_token else ""
        found: list[StoredDeadLetter] = []
        scanned = size = 0
        ends_at = time.monotonic() + _SCAN_SECONDS
        async for letter in self._scan(first, last, after, newest_first=newest_first):
            scanned, after = scanned + 1, letter.id
            if selected.matches(letter):
                found.append(letter)
                size += len(letter.detail) + 500
            late = scanned == _MAX_SCANNED or time.monotonic() > ends_at
            if len(found) == wanted or late or size > _PAGE_BYTES:
                return Page(found, _make_token(after))
        return Page(found, "")

    async def get(self, letter_id: str) -> StoredDeadLetter:
        """One. Raises NotFound and InvalidRequest."""
        _check_id(letter_id, "id")
        (letter,) = await self._store.get([letter_id])
        if letter is None:
            raise NotFound(f"there is no dead letter {letter_id}")
        return letter

    async def replay(
        self, selection: Sequence[str] | Filter, *, everyone: bool, dry_run: bool, max_per_second: float
    ) -> Outcome:
        """Put them back, the oldest first. Cancelling it stops between two. Raises InvalidRequest, ShuttingDown.

        With a filter only those that are there at the start: one that comes back meanwhile is left alone.
        """
        _check_rate(max_per_second)
        self._check(selection)
        if not dry_run:
            await self._store.check_rights()
        groups = await self._store.groups()
        counts = dict.fromkeys(Replayed, 0)
        began = time.monotonic()
        try:
            async for letter in self._selected(selection):
                if letter is None:
                    outcome = Replayed.MISSING
                elif not _can_be_replayed(letter, groups, everyone=everyone):
                    outcome = Replayed.SKIPPED
                elif dry_run:
                    outcome = Replayed.DONE
                else:
                    if max_per_second:
                        await self._wait(began + counts[Replayed.DONE] / max_per_second)
                    self._go_on()
                    outcome = await self._store.replay(letter, everyone=everyone)
                counts[outcome] += 1
        finally:
            done = Outcome(counts[Replayed.DONE], counts[Replayed.MISSING], counts[Replayed.SKIPPED])
            if not dry_run:
                log.info("dead letters replayed", extra=done._asdict())
        return done

    async def replay_list(self, list_name: str, limit: int, *, dry_run: bool, max_per_second: float) -> Outcome:
        """Put back what consumers of a mirror list gave up, the oldest first; 0 of `limit`: all that are there now.

        Raises InvalidRequest, ShuttingDown.
        """
        _check_rate(max_per_second)
        waiting, _ = await self._store.given_up(list_name, 1)
        left = min(limit or waiting, waiting)
        if dry_run:
            return Outcome(left)
        done = missing = 0
        began = time.monotonic()
        try:
            while left:
                _, page = await self._store.given_up(list_name, min(left, _PAGE))
                if not page:
                    break
                for message in page:
                    if max_per_second:
                        await self._wait(began + done / max_per_second)
                    self._go_on()
                    put_back = await self._store.replay_to_list(list_name, message) is Replayed.DONE
                    done, missing = done + put_back, missing + (not put_back)
                left -= len(page)
        finally:
            log.info("dead letters of a list replayed", extra={"list": list_name, "done": done, "missing": missing})
        return Outcome(done, missing)

    async def discard(self, selection: Sequence[str] | Filter, *, dry_run: bool) -> Outcome:
        """Remove them. Raises InvalidRequest, ShuttingDown."""
        self._check(selection)
        if not dry_run:
            await self._store.check_rights()
        done = missing = 0
        batch: list[StoredDeadLetter] = []
        try:
            async for letter in self._selected(selection):
                if letter is None:
                    missing += 1
                    continue
                batch.append(letter._replace(data=b""))
                if len(batch) == _PAGE:
                    done += await self._remove(batch, dry_run=dry_run)
                    batch = []
            done += await self._remove(batch, dry_run=dry_run)
        finally:
            if not dry_run:
                log.info("dead letters discarded", extra={"done": done, "missing": missing})
        return Outcome(done, missing)

    async def _remove(self, batch: Sequence[StoredDeadLetter], *, dry_run: bool) -> int:
        self._go_on()
        return len(batch) if dry_run or not batch else await self._store.discard(batch)

    def _check(self, selection: Sequence[str] | Filter) -> None:
        if isinstance(selection, Filter):
            return
        if not 1 <= len(selection) <= MAX_IDS:
            raise InvalidRequest([Violation("ids.ids", f"must be 1 to {MAX_IDS}, are {len(selection)}")])
        for index, letter_id in enumerate(selection):
            _check_id(letter_id, f"ids.ids[{index}]")

    async def _selected(self, selection: Sequence[str] | Filter) -> AsyncIterator[StoredDeadLetter | None]:
        """Those that are meant, the oldest first; None for each that is named and gone."""
        if not isinstance(selection, Filter):
            ids = sorted(dict.fromkeys(selection), key=number)
            for start in range(0, len(ids), _PAGE):
                for letter in await self._store.get(ids[start : start + _PAGE]):
                    yield letter
            return
        first, last = selection.range()
        newest = await self._store.last_id()
        if newest is None:
            return
        last = newest if last == "+" else min(last, newest, key=number)
        async for letter in self._scan(first, last, ""):
            if selection.matches(letter):
                yield letter

    async def _scan(
        self, first: str, last: str, after: str, *, newest_first: bool = False
    ) -> AsyncIterator[StoredDeadLetter]:
        """All of a range, from behind `after` on where that is not empty."""
        start, end, read = (last, first, self._store.read_back) if newest_first else (first, last, self._store.read)
        if after and start not in ("-", "+"):  # the range may have moved on meanwhile: its ages are counted from now
            behind = milliseconds(number(after)) - int(start)
            after = "" if (behind > 0 if newest_first else behind < 0) else after
        start = f"({after}" if after else start
        count = _FIRST_PAGE
        while True:
            page = await self._read_page(read, start, end, count)
            for letter in page:
                yield letter
            if len(page) < count:
                return
            start = f"({page[-1].id}"
            size = sum(len(letter.data) for letter in page) + 1
            count = max(1, min(_PAGE, count * _READ_BYTES // size))

    async def _read_page(self, read: _Read, start: str, end: str, count: int) -> Sequence[StoredDeadLetter]:
        """One page at a time for all readers, with pauses: reading takes only a share of this process's time."""
        async with self._reading:
            await asyncio.sleep(self._rests_until - time.monotonic())
            began = time.monotonic()
            page = await read(start, end, count)
            self._rests_until = began + (time.monotonic() - began) / _READ_SHARE
            return page

    async def _wait(self, moment: float) -> None:
        """Until then, or until the sidecar stops."""
        try:
            async with asyncio.timeout(max(moment - time.monotonic(), 0)):
                await self._draining.wait()
        except TimeoutError:
            pass

    def _go_on(self) -> None:
        if self._draining.is_set():
            raise ShuttingDown("the sidecar is stopping; what is done is done")


def _check_rate(max_per_second: float) -> None:
    if not 0 <= max_per_second < float("inf"):
        raise InvalidRequest([Violation("max_per_second", "must be a number from 0")])


def _can_be_replayed(letter: StoredDeadLetter, groups: set[bytes], *, everyone: bool) -> bool:
    """To all, only what a consumer can read; a group gets back what it gave up, byte for byte."""
    if letter.group and not everyone:
        return letter.group in groups
    return letter.event is not None


def _check_id(entry_id: str, field: str) -> None:
    if parse(entry_id) is None:
        raise InvalidRequest([Violation(field, "must be the id of a dead letter, such as 1700000000000-0")])


def _make_token(after: str) -> str:
    return base64.urlsafe_b64encode(after.encode()).decode()


def _read_token(token: str) -> str:
    try:
        after = base64.urlsafe_b64decode(token.encode()).decode()
        _check_id(after, "page_token")
    except (InvalidRequest, binascii.Error, UnicodeError, ValueError):
        raise InvalidRequest([Violation("page_token", "must be the next_page_token of an earlier answer")]) from None
    return after
