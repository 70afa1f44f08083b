"""To open, fill, look into and damage the spool on disk."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from sidecar.publishing.interfaces import Attempts, Spooled
from sidecar.spool.schema import size_of
from sidecar.spool.spool import SqliteSpool
from tests.fakes.events import event, events

PAGE = 4096
ROOT = Path(__file__).parents[2]
GIB = 1 << 30


@asynccontextmanager
async def opened(directory: Path, max_bytes: int = GIB) -> AsyncIterator[SqliteSpool]:
    spool = await SqliteSpool.open(directory, max_bytes=max_bytes)
    try:
        yield spool
    finally:
        await spool.close()


async def everything(spool: SqliteSpool) -> list[Spooled]:
    return await spool.advance([], 1 << 30)


def numbers(rows: list[Spooled]) -> list[int]:
    return [int(row.event_id.split("-")[1]) for row in rows]


async def filled(directory: Path, count: int) -> Path:
    """A closed spool of `count` events; returns its file."""
    async with opened(directory) as spool:
        for first in range(0, count, 1000):
            await spool.put(events(first, min(count, first + 1000)), Attempts())
    return directory / "spool.db"


def sizes(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in directory.iterdir()}


def modes(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in (directory, *directory.iterdir())}


def contents(directory: Path, names: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.glob(names)}


def copy_of_killed(directory: Path, target: Path) -> None:
    """What a kill at this moment would leave, without the reserve."""
    shutil.copytree(directory, target, ignore=shutil.ignore_patterns("spool.reserve"))


def flip(path: Path, content: bytes) -> None:
    """Change one bit of this content, wherever the file has it: a page keeps remnants of what has moved."""
    path.write_bytes(path.read_bytes().replace(content, bytes([content[0] ^ 1]) + content[1:]))


def overwrite(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def damage_index(path: Path) -> None:
    """So that the next put meets it, and no read does."""
    with closing(sqlite3.connect(path)) as connection:
        [(root,)] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name LIKE '%autoindex%'")
    overwrite(path, (root - 1) * PAGE, bytes(PAGE))


def page_of(path: Path, number: int) -> int:
    """The offset of the page that holds the data of this event."""
    return path.read_bytes().index(event(number).data) // PAGE * PAGE


async def in_thread(spool: SqliteSpool, job: Callable[[sqlite3.Connection], Any]) -> Any:
    """Let the spool's own thread do something to its connection."""
    return await spool._in_thread(lambda: job(spool._connection or spool._connect()))


async def consistent(directory: Path) -> list[int]:
    """Open it, see that all in it is whole and counted, and return the numbers of its events."""
    async with opened(directory) as spool:
        rows = await everything(spool)
        assert (spool.depth, spool.bytes) == (len(rows), sum(size_of(event(n)) for n in numbers(rows)))
        assert all(row.data == event(number).data for row, number in zip(rows, numbers(rows), strict=True))
        assert [row.seq for row in rows] == sorted(row.seq for row in rows)
        return numbers(rows)
