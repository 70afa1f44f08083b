"""What is read of a damaged file, row by row, and what becomes of rows that make no sense."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.spool import salvage
from sidecar.spool import schema as sql
from tests.fakes.events import event, events
from tests.integration.spool_on_disk import PAGE, everything, filled, numbers, opened, overwrite, page_of
from tests.integration.test_spool_fuzz import cell_of, varint, without_remnants

Row = tuple[Any, ...]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def salvaged(damaged: Path, last_seq: int = 0) -> dict[int, str]:
    """The ids by their sequence numbers."""
    target = damaged.with_name("target")
    count, _ = salvage.salvage(damaged, target, last_seq)
    connection = sql.connect(target, ())
    rows = [sql.from_row(row) for row in connection.execute(sql.OLDEST, (-1, 1 << 40))]
    connection.close()
    assert len(rows) == count
    return {row.seq: row.event_id for row in rows}


async def test_of_rows_with_one_number_each_is_kept_once_and_impossible_numbers_are_not(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await filled(directory, 4)
    read = salvage._readable_rows

    def damaged(connection: sqlite3.Connection, last_seq: int) -> Iterator[Row]:
        one, two, three, four = read(connection, last_seq)
        yield from (one, (1, *two[1:]), three, three, (0, *four[1:]), (salvage.HIGHEST_SEQ, *four[1:]))

    monkeypatch.setattr(salvage, "_readable_rows", damaged)
    assert salvaged(path) == {1: event(0).id, 3: event(2).id, 5: event(1).id}


async def test_an_id_that_reads_as_another_s_costs_that_one_nothing(directory: Path) -> None:
    path = await filled(directory, 6)
    other = event(4).id.encode()
    path.write_bytes(path.read_bytes().replace(event(3).id.encode() + event(3).data, other + event(3).data))
    overwrite(path, 0, bytes(100))
    async with opened(directory) as spool:
        rows = await everything(spool)
    assert [row.event_id for row in rows if row.dead] == [f"{event(4).id} (damaged, 4)"]
    assert [row.event_id for row in rows if not row.dead] == [e.id for e in events(0, 6) if e.id != event(3).id]


async def test_between_two_unreadable_places_little_is_lost(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is behind the first one a tenth, where there are ten probes."""
    monkeypatch.setattr(salvage, "PROBES", 10)
    path = await filled(directory, 5000)
    for number in (1000, 4000):
        overwrite(path, page_of(path, number), bytes(PAGE))
    async with opened(directory) as spool:
        kept = set(numbers(await everything(spool)))
    assert set(range(990)) | set(range(1450, 3990)) | set(range(4010, 5000)) <= kept


class Numbered:
    """Rows of which only the numbers count, in the order of the file: a damaged number stands where it stood."""

    def __init__(self, *stored: int) -> None:
        self._stored = stored
        self._rows: list[Row] = []
        self.asked = 0

    def execute(self, query: str, place: tuple[int, int]) -> Numbered:
        self.asked += 1
        assert self.asked < 200, "it does not end"
        seq, limit = place
        up = query == sql.SALVAGE_UP
        ordered = self._stored if up else self._stored[::-1]
        first = next((i for i, n in enumerate(ordered) if (n > seq if up else n < seq)), len(ordered))
        self._rows = [(number,) for number in ordered[first : first + limit]]
        return self

    def fetchall(self) -> list[Row]:
        return self._rows


def read(numbered: Numbered, seq: int, way: int) -> list[int]:
    query = sql.SALVAGE_UP if way > 0 else sql.SALVAGE_DOWN
    connection: Any = numbered
    return [row[0] for rows, _ in salvage._run(connection, query, seq, way) for row in rows]


async def test_a_damaged_number_at_the_end_of_a_read_skips_nothing(directory: Path) -> None:
    assert salvage.READ_ROWS == 256
    path = await filled(directory, 1000)
    content = without_remnants(path)
    cell = cell_of(content, 256, event(255).id.encode() + event(255).data)
    _, at = varint(content, cell.start)
    overwrite(path, at, b"\xff")
    assert varint(path.read_bytes(), at)[0] == 16256
    overwrite(path, 0, bytes(100))
    async with opened(directory) as spool:
        kept = {row.event_id for row in await everything(spool)}
    assert kept >= {e.id for e in events(0, 1000) if e.id != event(255).id}


def test_rows_are_read_downwards_in_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(salvage, "READ_ROWS", 10)
    numbered = Numbered(*range(1, 101))
    assert read(numbered, 101, -1) == [*range(100, 0, -1)]
    assert numbered.asked == 11


def test_a_gap_is_crossed_in_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was forgotten in the middle leaves a gap, and no neighbour confirms the row behind it."""
    monkeypatch.setattr(salvage, "READ_ROWS", 1)
    monkeypatch.setattr(salvage, "PROBES", 10)
    assert set(read(Numbered(1, 100_000, 100_001), 0, 1)) == {1, 100_000, 100_001}


def name_of(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


async def test_the_new_file_is_on_the_disk_before_it_has_its_name(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overwrite(await filled(directory, 3), 0, bytes(100))
    flushed: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        flushed.append(name_of(descriptor))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    async with opened(directory) as spool:
        assert spool.damaged == 1
    assert flushed == [str(directory / "spool.db.salvaging"), str(directory), str(directory)]


async def test_a_new_directory_is_on_the_disk(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(name_of(descriptor)))
    async with opened(directory):
        assert flushed == [str(directory.parent)]
