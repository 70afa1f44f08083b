"""What an operator does with dead letters: list, read, replay, discard. The rules; the store does each step."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import re
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sidecar.errors import InvalidRequest, NotFound, ShuttingDown, Violation
from sidecar.publishing.interfaces import BuriedLetter, DeadLetterStore, Replayed

log = logging.getLogger(__name__)

_PAGE = 100  # dead letters that are read at a time: one may be some 100 KiB
_MOST_SCANNED = 10_000  # a call; a filter that matches nothing must not read for minutes
_MOST_IDS = 1000
_PAGE_SIZE, _MOST_PAGE_SIZE = 100, 1000
_PAGE_BYTES = 2 << 20  # a message may have 4 MiB
_ID = re.compile(r"\d{1,20}-\d{1,20}")
_BIGGEST = 2**64


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

    def matches(self, letter: BuriedLetter) -> bool:
        """Whether it is one of them, its age apart."""
        return (
            (not self.reason or letter.reason == self.reason)
            and (not self.origin or letter.origin == self.origin)
            and (not self.model or self._is_model(letter))
            and (not self.text or self._has_text(letter))
        )

    def _has_text(self, letter: BuriedLetter) -> bool:
        where = (letter.detail, letter.subject, letter.event_id, letter.correlation_id, letter.id, letter.entry_id)
        return self.text.casefold() in "\n".join(where).casefold()

    def _is_model(self, letter: BuriedLetter) -> bool:
        if letter.event is not None:
            return letter.event.model.name == self.model
        return letter.subject.startswith(f"{self.model}/")

    def range(self) -> tuple[str, str]:
        """The ids that are neither too young nor too old now, as XRANGE takes them."""
        now = time.time_ns() // 1_000_000
        first = "-" if self.newer_than is None else str(max(now - int(self.newer_than * 1000), 0))
        last = "+" if self.older_than is None else str(max(now - int(self.older_than * 1000), 0))
        return first, last


class Page(NamedTuple):
    """Some dead letters, and the token of the next page; empty where this is the last."""

    letters: Sequence[BuriedLetter]
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

    async def list(self, selected: Filter, page_size: int, page_token: str, *, newest_first: bool = False) -> Page:
        """One page, the oldest or the newest first. It may be short, even empty, and not the last.

        Raises InvalidRequest.
        """
        if not 0 <= page_size <= _MOST_PAGE_SIZE:
            raise InvalidRequest([Violation("page_size", f"must be 1 to {_MOST_PAGE_SIZE}, or 0 for {_PAGE_SIZE}")])
        wanted = page_size or _PAGE_SIZE
        first, last = selected.range()
        after = _read_token(page_token) if page_token else ""
        found: list[BuriedLetter] = []
        scanned = size = 0
        scan = self._scan_back if newest_first else self._scan
        async for letter in scan(first, last, after):
            scanned, after = scanned + 1, letter.id
            if selected.matches(letter):
                found.append(letter)
                size += len(letter.detail) + 500
            if len(found) == wanted or scanned == _MOST_SCANNED or size > _PAGE_BYTES:
                return Page(found, _make_token(after))
        return Page(found, "")

    async def get(self, letter_id: str) -> BuriedLetter:
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
        if not 0 <= max_per_second < float("inf"):
            raise InvalidRequest([Violation("max_per_second", "must be a number from 0")])
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

    async def discard(self, selection: Sequence[str] | Filter, *, dry_run: bool) -> Outcome:
        """Remove them for good. Raises InvalidRequest, ShuttingDown."""
        self._check(selection)
        if not dry_run:
            await self._store.check_rights()
        done = missing = 0
        batch: list[BuriedLetter] = []
        try:
            async for letter in self._selected(selection):
                if letter is None:
                    missing += 1
                    continue
                batch.append(letter._replace(data=b"", event=None))
                if len(batch) == _PAGE:
                    done += await self._remove(batch, dry_run=dry_run)
                    batch = []
            done += await self._remove(batch, dry_run=dry_run)
        finally:
            if not dry_run:
                log.info("dead letters discarded", extra={"done": done, "missing": missing})
        return Outcome(done, missing)

    async def _remove(self, batch: Sequence[BuriedLetter], *, dry_run: bool) -> int:
        self._go_on()
        return len(batch) if dry_run or not batch else await self._store.discard(batch)

    def _check(self, selection: Sequence[str] | Filter) -> None:
        if isinstance(selection, Filter):
            return
        if not 1 <= len(selection) <= _MOST_IDS:
            raise InvalidRequest([Violation("ids.ids", f"must be 1 to {_MOST_IDS}, are {len(selection)}")])
        for index, letter_id in enumerate(selection):
            _check_id(letter_id, f"ids.ids[{index}]")

    async def _selected(self, selection: Sequence[str] | Filter) -> AsyncIterator[BuriedLetter | None]:
        """Those that are meant, the oldest first; None for each that is named and gone."""
        if not isinstance(selection, Filter):
            ids = sorted(dict.fromkeys(selection), key=_position)
            for start in range(0, len(ids), _PAGE):
                for letter in await self._store.get(ids[start : start + _PAGE]):
                    yield letter
            return
        first, last = selection.range()
        newest = await self._store.last_id()
        if newest is None:
            return
        last = newest if last == "+" else min(last, newest, key=_position)
        async for letter in self._scan(first, last, ""):
            if selection.matches(letter):
                yield letter

    async def _scan(self, first: str, last: str, after: str) -> AsyncIterator[BuriedLetter]:
        """All of a range, from behind `after` on where that is not empty."""
        start = first
        if after and (first == "-" or _position(after)[0] >= int(first)):
            start = f"({after}"
        while True:
            page = await self._store.read(start, last, _PAGE)
            for letter in page:
                yield letter
            if len(page) < _PAGE:
                return
            start = f"({page[-1].id}"

    async def _scan_back(self, first: str, last: str, after: str) -> AsyncIterator[BuriedLetter]:
        """All of a range, the newest first, from before `after` on where that is not empty."""
        start = last
        if after and (last == "+" or _position(after)[0] <= int(last)):
            start = f"({after}"
        while True:
            page = await self._store.read_back(start, first, _PAGE)
            for letter in page:
                yield letter
            if len(page) < _PAGE:
                return
            start = f"({page[-1].id}"

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


def _can_be_replayed(letter: BuriedLetter, groups: set[str], *, everyone: bool) -> bool:
    """To all, only what a consumer can read; a group gets back what it gave up, byte for byte."""
    if letter.group and not everyone:
        return letter.group in groups
    return letter.event is not None


def _position(entry_id: str) -> tuple[int, int]:
    """Where an id stands; `<ms>` alone is the end of that millisecond."""
    time_part, _, sequence = entry_id.partition("-")
    return int(time_part), int(sequence) if sequence else _BIGGEST


def _check_id(entry_id: str, field: str) -> None:
    if not _ID.fullmatch(entry_id) or max(_position(entry_id)) >= _BIGGEST:
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
