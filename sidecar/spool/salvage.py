"""What can still be read from a damaged spool.

Row by row, by sequence number: a page that cannot be read costs the events that it holds, and no others. Rows whose
checksum differs are taken along: they become dead letters.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from sidecar.spool import schema as sql

PAGE = 4096
HIGHEST_SEQ = 1 << 48
"""A higher sequence number, or one below 1, is damage."""
READ_ROWS = 256
PROBES = 4096
"""How many places are tried, at least, between what cannot be read and the end."""


def salvage(damaged: Path, target: Path, last_seq: int) -> tuple[int, int | None]:
    """Write what can be read into `target`, an empty file; its caller has it fsynced.

    Sequence numbers are kept, and those up to `last_seq` are not given out again; of two rows with one number, which is
    damage, the second gets a new one. Returns how many events were salvaged, and how many there were, if that can be
    read. `damaged` is not changed, except that its WAL is written into it.
    Files whose names begin with that of `target` may be left behind.
    """
    old = _open(damaged, target.with_name(f"{target.name}-copy"))
    with closing(old), closing(sql.connect(target, sql.SALVAGE_SETTINGS)) as new:
        last_seq = max(last_seq, _number(old, sql.SALVAGE_SEQUENCE) or 0, _number(old, sql.SALVAGE_LAST) or 0)
        sql.migrate(new)
        new.execute(sql.BEGIN)
        new.execute(sql.KEEP_SEQUENCE, (last_seq,))
        for row in _readable_rows(old, last_seq):
            if 0 < row[0] < HIGHEST_SEQ:
                salvaged = sql.to_salvage(row)
                if not new.execute(sql.SALVAGE_PUT, salvaged).rowcount:
                    new.execute(sql.SALVAGE_PUT, (None, *salvaged[1:]))  # ignored where it is the same event
        new.execute(sql.TOTALS_RECOUNT)
        new.execute(sql.COMMIT)
        return sql.read_totals(new).depth, _number(old, sql.SALVAGE_DEPTH)


def _open(damaged: Path, copy: Path) -> sqlite3.Connection:
    """The file itself; or, where its first page is beyond SQLite, a copy with the first page of a new spool.

    The tables of every spool begin at the same pages, because they are made in the same order.
    """
    with damaged.open("rb") as file:
        is_database = file.read(len(sql.MAGIC)) == sql.MAGIC
    if is_database:
        with suppress(sqlite3.DatabaseError):
            return sql.connect(damaged, (*sql.SALVAGE_READ_SETTINGS, sql.SALVAGE_TRY))
    for suffix in ("", "-wal"):
        with suppress(FileNotFoundError):
            shutil.copyfile(f"{damaged}{suffix}", f"{copy}{suffix}")
    with closing(sql.connect(Path(":memory:"), ())) as fresh:
        sql.migrate(fresh)
        page = bytearray(fresh.serialize()[:PAGE])
    page[28:32] = (copy.stat().st_size // PAGE).to_bytes(4, "big")
    with copy.open("r+b") as file:
        file.write(page)
    return sql.connect(copy, sql.SALVAGE_READ_SETTINGS)


def _readable_rows(connection: sqlite3.Connection, last_seq: int) -> Iterator[tuple[Any, ...]]:
    """Every row that can be read: upwards, past unreadable places; then, if there were any, down to them from the end.

    Some rows come more than once.
    """
    seq, whole, more = 0, True, True
    while more:
        try:
            for rows, reached in _run(connection, sql.SALVAGE_UP, seq, 1):
                yield from rows
                seq = reached
            more = False
        except sqlite3.DatabaseError:
            seq += max(1, (last_seq - seq) // PROBES)
            more = seq < last_seq
            whole = False
    if not whole:
        with suppress(sqlite3.DatabaseError):
            for rows, _ in _run(connection, sql.SALVAGE_DOWN, last_seq + 1, -1):
                yield from rows


def _run(connection: sqlite3.Connection, query: str, seq: int, way: int) -> Iterator[tuple[list[tuple[Any, ...]], int]]:
    """The rows from `seq` on, `way` being 1 or -1, and where they go on. Raises sqlite3.DatabaseError.

    They go on from a number that a neighbour confirms: a damaged one would skip what is between.
    """
    limit = READ_ROWS
    while limit:
        try:
            rows = connection.execute(query, (seq, limit)).fetchall()
        except sqlite3.DatabaseError:
            limit //= 2  # it took those with it that were read before it
            continue
        if not rows:
            return
        numbers = [seq, *(row[0] for row in rows)]
        confirmed = [here for before, here in pairwise(numbers) if here == before + way]
        least = seq + way * max(1, (rows[0][0] - seq) * way // PROBES)
        seq = (max if way > 0 else min)((least, *confirmed))
        yield rows, seq
        limit = min(limit * 2, READ_ROWS)
    raise sql.Damaged("no further row can be read")


def _number(connection: sqlite3.Connection, query: str) -> int | None:
    try:
        number = connection.execute(query).fetchone()[0]
    except (sqlite3.DatabaseError, TypeError):
        return None
    return number if isinstance(number, int) and 0 <= number < HIGHEST_SEQ else None
