"""The spool's tables: all SQL of this project, and the codec of a row.

    events   one row an event. `seq` is the order and is never used twice. `size` is what it counts for in
             SPOOL_MAX_BYTES. `attempts`, `first_ms` and `last_ms` are those whose outcome is not known; while there
             are none, the times are `spooled_ms`, so that the first one does not make the row longer, and is written
             in place. `dead_reason` is null while the event may still be delivered. `crc` covers `spooled_ms`,
             `event_id` and `data`, which never change. `data` is last: counting does not read what overflows.
    totals   one row: the number of events and the sum of their sizes, changed in the commit that changes the events,
             so that a start need not read a gigabyte to know them.

Statements stay within what SQLite 3.24 knows.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from sidecar.publishing.interfaces import Attempts, Event, Spooled

MAGIC = b"SQLite format 3\0"
CORRUPT = "SPOOL_CORRUPT"
OVERHEAD = 256
"""The allowance, in bytes, for a row's other columns, its index entry and its share of the pages."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE events (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            size INTEGER NOT NULL,
            spooled_ms INTEGER NOT NULL,
            attempts INTEGER NOT NULL,
            first_ms INTEGER NOT NULL,
            last_ms INTEGER NOT NULL,
            dead_reason TEXT,
            dead_detail TEXT,
            crc INTEGER NOT NULL,
            event_id TEXT NOT NULL UNIQUE,
            data BLOB NOT NULL
        )""",
        "CREATE TABLE totals (depth INTEGER NOT NULL, bytes INTEGER NOT NULL)",
        "INSERT INTO totals VALUES (0, 0)",
        "INSERT INTO sqlite_sequence VALUES ('events', 0)",
        "PRAGMA user_version = 1",
    ),
)
"""From version n, the index, to n + 1: the statements of one transaction. An older sidecar refuses the result."""
VERSION = len(MIGRATIONS)
GET_VERSION = "PRAGMA user_version"
COUNT_TABLES = "SELECT count(*) FROM sqlite_master"

SETTINGS = (
    "PRAGMA locking_mode = EXCLUSIVE",  # no shared memory, and no foreign reader that keeps the WAL growing
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",  # one fsync a commit: what was acknowledged survives a power cut
    "PRAGMA wal_autocheckpoint = 1000",  # pages, 4 MiB
    "PRAGMA journal_size_limit = 4194304",
    "PRAGMA secure_delete = OFF",  # some builds overwrite what is deleted: a quarter of the drain's speed
    "PRAGMA cell_size_check = ON",  # a damaged page is noticed when it is read
    "PRAGMA temp_store = MEMORY",  # VACUUM needs no /tmp, which a read-only container lacks
)
QUICK_CHECK = "PRAGMA quick_check(1)"
BEGIN = "BEGIN IMMEDIATE"
COMMIT = "COMMIT"
ROLLBACK = "ROLLBACK"
CHECKPOINT = "PRAGMA wal_checkpoint(TRUNCATE)"
FREE_PAGES = "PRAGMA freelist_count"
ALL_PAGES = "PRAGMA page_count"
VACUUM = "VACUUM"

TOTALS = """SELECT depth, bytes,
    (SELECT spooled_ms FROM events ORDER BY seq LIMIT 1),
    (SELECT seq FROM sqlite_sequence WHERE name = 'events')
    FROM totals"""
TOTALS_ADD = """UPDATE totals SET (depth, bytes) =
    (SELECT totals.depth + count(*), totals.bytes + coalesce(sum(size), 0) FROM events WHERE seq > ?)"""
TOTALS_SUBTRACT = """UPDATE totals SET (depth, bytes) =
    (SELECT totals.depth - count(*), totals.bytes - coalesce(sum(size), 0) FROM events
     WHERE seq IN (SELECT value FROM json_each(?)))"""
TOTALS_RECOUNT = "UPDATE totals SET (depth, bytes) = (SELECT count(*), coalesce(sum(size), 0) FROM events)"
TOUCH = "UPDATE totals SET depth = depth"
COUNT = "SELECT count(*), coalesce(sum(size), 0) FROM events"

PUT = """INSERT INTO events (size, spooled_ms, attempts, first_ms, last_ms, crc, event_id, data)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (event_id) DO NOTHING"""
OLDEST = """SELECT seq, size, spooled_ms, attempts, first_ms, last_ms, dead_reason, dead_detail, crc,
    event_id, data FROM events WHERE seq > ? ORDER BY seq LIMIT ?"""
ATTEMPT = """UPDATE events SET attempts = attempts + 1, first_ms = CASE attempts WHEN 0 THEN ?1 ELSE first_ms END,
    last_ms = ?1 WHERE seq IN (SELECT value FROM json_each(?2))"""
MARK_DEAD = "UPDATE events SET dead_reason = ?, dead_detail = ? WHERE seq IN (SELECT value FROM json_each(?))"
FORGET = "DELETE FROM events WHERE seq IN (SELECT value FROM json_each(?))"
KEEP_SEQUENCE = "UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'events' AND seq < ?1"
FORGET_AFTER = "DELETE FROM events WHERE seq > ?"

SALVAGE_READ_SETTINGS = ("PRAGMA locking_mode = EXCLUSIVE",)
SALVAGE_TRY = "SELECT seq FROM events LIMIT 0"
SALVAGE_LAST = "SELECT max(seq) FROM events"
SALVAGE_SEQUENCE = "SELECT seq FROM sqlite_sequence WHERE name = 'events'"
SALVAGE_DEPTH = "SELECT depth FROM totals"
SALVAGE_UP = OLDEST
SALVAGE_DOWN = """SELECT seq, size, spooled_ms, attempts, first_ms, last_ms, dead_reason, dead_detail, crc,
    event_id, data FROM events WHERE seq < ? ORDER BY seq DESC LIMIT ?"""
SALVAGE_PUT = "INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
SALVAGE_SETTINGS = (
    "PRAGMA journal_mode = OFF",
    "PRAGMA synchronous = OFF",  # it is fsynced once, when it is complete
    "PRAGMA cache_size = -32768",  # KiB
)


def connect(path: Path, settings: Iterable[str]) -> sqlite3.Connection:
    """A connection that begins no transaction by itself and gives text as bytes: damaged text is not always UTF-8."""
    connection = sqlite3.connect(path, timeout=1, isolation_level=None)
    connection.text_factory = bytes
    try:
        for setting in settings:
            connection.execute(setting).fetchall()  # its error may come after its row
    except BaseException:
        connection.close()
        raise
    return connection


def migrate(connection: sqlite3.Connection) -> None:
    """Bring an empty or an older file to VERSION."""
    version = connection.execute(GET_VERSION).fetchone()[0]
    if version == 0 and connection.execute(COUNT_TABLES).fetchone()[0]:
        raise Damaged("the schema is not a spool's")
    for migration in MIGRATIONS[version:]:
        connection.execute(BEGIN)
        for statement in migration:
            connection.execute(statement)
        connection.execute(COMMIT)


class Damaged(sqlite3.DatabaseError):
    """The file is not what this module writes; SQLite itself has not noticed."""


class Totals(NamedTuple):
    """What is known of the spool without reading the disk."""

    depth: int = 0
    bytes: int = 0
    oldest_ms: int | None = None
    last_seq: int = 0
    """The highest sequence number ever given out."""


def read_totals(connection: sqlite3.Connection) -> Totals:
    """The totals as they stand, counted again where they are impossible."""
    totals = _read_totals(connection)
    empty = totals.oldest_ms is None
    if empty != (totals.depth == 0) or empty != (totals.bytes == 0):
        connection.execute(TOTALS_RECOUNT)
        totals = _read_totals(connection)
    return totals


def _read_totals(connection: sqlite3.Connection) -> Totals:
    row = connection.execute(TOTALS).fetchone()
    if row is None:
        raise Damaged("the totals are gone")
    depth, size, oldest_ms, last_seq = row
    return Totals(_int(depth), _int(size), None if oldest_ms is None else _int(oldest_ms), _int(last_seq))


def size_of(event: Event) -> int:
    """What the event counts for in SPOOL_MAX_BYTES."""
    return len(event.data) + len(event.id) + OVERHEAD


def to_rows(events: Iterable[Event], attempts: Attempts, now_ms: int) -> list[tuple[Any, ...]]:
    """The parameters of PUT."""
    made, first_ms, last_ms = attempts if attempts[0] else (0, now_ms, now_ms)
    return [
        (
            size_of(event),
            now_ms,
            made,
            first_ms,
            last_ms,
            _crc(now_ms, event.id.encode(), event.data),
            event.id,
            event.data,
        )
        for event in events
    ]


def from_row(row: tuple[Any, ...]) -> Spooled:
    """The event of a row as OLDEST gives it; a dead letter where it is not what was once written."""
    seq, _, spooled_ms, made, first_ms, last_ms, reason, detail, crc, event_id, data = row
    left = data if isinstance(data, bytes) else b""
    numbers = all(isinstance(number, int) and number >= 0 for number in (spooled_ms, made, first_ms, last_ms))
    texts = all(text is None or isinstance(text, bytes) for text in (reason, detail))
    typed = numbers and texts and isinstance(event_id, bytes) and isinstance(data, bytes)
    attempts = Attempts(made, first_ms, last_ms) if numbers and made else Attempts()
    if typed and crc == _crc(spooled_ms, event_id, data):
        dead = None if reason is None else (_text(reason), _text(detail))
        return Spooled(seq, _text(event_id), data, spooled_ms, attempts, dead)
    corrupt = (
        CORRUPT,
        f"the disk did not give back what was written: {len(left)} bytes are left, the checksum differs",
    )
    name = (
        _text(event_id) or f"unreadable-{seq}-{zlib.crc32(repr(row).encode()):08x}"
    )  # another spool may have a row of this number
    return Spooled(seq, name, left, max(_int(spooled_ms), 0), attempts, corrupt)


def to_salvage(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The parameters of SALVAGE_PUT: the same row, with a stand-in for each value that makes no sense."""
    event = from_row(row)
    reason, detail = event.dead or (None, None)
    event_id = event.event_id
    if reason == CORRUPT and not event_id.endswith(f" (damaged, {event.seq})"):
        event_id += f" (damaged, {event.seq})"  # it may read as another event's, whose row must not give way to it
    return (
        event.seq,
        len(event.data) + len(event_id) + OVERHEAD,
        event.spooled_ms,
        *event.attempts,
        reason,
        detail,
        _int(row[8]),
        event_id,
        event.data,
    )


def _crc(spooled_ms: int, event_id: bytes, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(event_id, spooled_ms & 0xFFFFFFFF))


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else ""
