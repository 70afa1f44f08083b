"""A damaged file costs no more than the events that cannot be read any more, and never a wrong delivery."""

from __future__ import annotations

import logging
import os
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sidecar.errors import SpoolFull
from sidecar.publishing.interfaces import Attempts, Spooled
from sidecar.spool import file, salvage
from sidecar.spool import spool as sqlite_spool
from sidecar.spool.schema import size_of
from sidecar.spool.spool import SqliteSpool
from tests.fakes.events import event, events
from tests.integration.spool_on_disk import (
    PAGE,
    contents,
    copy_of_killed,
    damage_index,
    everything,
    filled,
    flip,
    in_thread,
    numbers,
    opened,
    overwrite,
    page_of,
    sizes,
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


async def _salvaged(directory: Path, caplog: pytest.LogCaptureFixture) -> list[int]:
    """Open, see that the file was set aside and that all works, and return what was salvaged."""
    damaged = (directory / "spool.db").read_bytes()
    async with opened(directory) as spool:
        rows = await everything(spool)
        assert spool.damaged == 1
        await _works(spool, rows)
    assert damaged in contents(directory, "spool.db.damaged-*").values()
    _logged(caplog, len(rows))
    async with opened(directory) as spool:
        assert spool.damaged == 0
        assert numbers(await everything(spool)) == [*numbers(rows), 10**6]
    assert [row.seq for row in rows] == sorted(row.seq for row in rows)
    assert all(row.dead or row.data == event(n).data for row, n in zip(rows, numbers(rows), strict=True))
    return numbers(rows)


async def _works(spool: SqliteSpool, rows: list[Spooled]) -> None:
    await spool.put([event(10**6)], Attempts())
    assert (await everything(spool))[:-1] == rows
    assert spool.depth == len(rows) + 1
    assert spool.bytes == sum(len(row.data) + len(row.event_id) + 256 for row in await everything(spool))


def _logged(caplog: pytest.LogCaptureFixture, salvaged: int) -> None:
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "spool.db.damaged-" in record.getMessage()
    assert f", {salvaged} of " in record.getMessage()


@pytest.mark.parametrize("length", [16, 100, PAGE])
async def test_a_damaged_header_costs_no_event(
    directory: Path, length: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_spool, "SHRINK_PAGES", 1)
    async with opened(directory) as spool:  # one that was made smaller has its tables at the same pages
        await spool.put(events(0, 1000), Attempts())
        await spool.advance([row.seq for row in await everything(spool)], 0)
        assert sizes(directory)["spool.db"] <= 6 * PAGE
    overwrite(await filled(directory, 1000), 0, random.Random(1).randbytes(length))
    assert await _salvaged(directory, caplog) == list(range(1000))


async def test_a_damaged_header_that_sqlite_sees_costs_no_event(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    overwrite(await filled(directory, 1000), 16, b"\0" * 8)  # the size of a page, and its kin
    assert await _salvaged(directory, caplog) == list(range(1000))


@pytest.mark.parametrize("name", [b"events (", b"events"], ids=["malformed", "of another name"])
async def test_a_damaged_schema_costs_no_event(directory: Path, name: bytes, caplog: pytest.LogCaptureFixture) -> None:
    flip(await filled(directory, 1000), name)
    assert await _salvaged(directory, caplog) == list(range(1000))


async def test_a_truncated_file_keeps_what_is_before_the_cut(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = await filled(directory, 2000)
    os.truncate(path, path.stat().st_size // 2 // PAGE * PAGE)
    kept = await _salvaged(directory, caplog)
    assert kept == list(range(len(kept)))
    assert 800 < len(kept) < 1200


async def test_a_garbage_page_costs_its_own_events_alone(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = await filled(directory, 2000)
    lost = 0
    for number in (0, 700, 1500, 1999):
        offset = page_of(path, number)
        lost += path.read_bytes()[offset : offset + PAGE].count(b"event-") > 0
        overwrite(path, offset, random.Random(number).randbytes(PAGE))
    kept = await _salvaged(directory, caplog)
    assert not {0, 700, 1500, 1999} & set(kept)
    assert 2000 - 4 * 9 <= len(kept) < 2000


async def test_it_is_read_from_both_ends_where_there_is_too_much_to_try_each_number(
    directory: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(salvage, "PROBES", 10)
    path = await filled(directory, 5000)
    overwrite(path, page_of(path, 2500), bytes(PAGE))
    kept = await _salvaged(directory, caplog)
    assert 5000 - 9 <= len(kept) < 5000


async def test_a_file_that_is_no_database_is_set_aside(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    overwrite(await filled(directory, 0), 0, b"not a database, but somebody's notes\n" * 1000)
    assert await _salvaged(directory, caplog) == []


async def test_another_programs_database_is_set_aside(directory: Path) -> None:
    os.mkdir(directory)  # noqa: PTH102
    with closing(sqlite3.connect(directory / "spool.db")) as other:
        other.execute("CREATE TABLE events (id)")
    async with opened(directory) as spool:
        assert spool.damaged == 1
        await _works(spool, [])
    [aside] = contents(directory, "spool.db.damaged-*")
    with closing(sqlite3.connect(directory / aside)) as other:
        assert other.execute("SELECT count(*) FROM events").fetchone() == (0,)


@pytest.mark.parametrize(("depth", "size", "checked"), [(7, 777, True), (7, 0, False), (0, 777, False)])
async def test_wrong_totals_are_counted_anew(
    directory: Path, depth: int, size: int, checked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a small file always, in a large one when they cannot be."""
    path = await filled(directory, 10)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE totals SET depth = ?, bytes = ?", (depth, size))
    monkeypatch.setattr(file, "CHECKED_BYTES", (1 << 20) * checked)
    async with opened(directory) as spool:
        assert (spool.depth, spool.bytes) == (10, sum(map(size_of, events(0, 10))))


async def test_an_empty_file_does_not_cost_the_wal(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(directory) as spool:
        await spool.put(events(0, 10), Attempts())
        copy_of_killed(directory, directory.with_name("killed"))
    directory = directory.with_name("killed")
    os.truncate(directory / "spool.db", 0)
    wal = (directory / "spool.db-wal").read_bytes()
    await _salvaged(directory, caplog)
    assert list(contents(directory, "spool.db.damaged-*-wal").values()) == [wal]


async def test_a_flipped_bit_makes_a_dead_letter_and_is_never_delivered(directory: Path) -> None:
    path = await filled(directory, 30)
    flip(path, event(7).data[30:])
    flip(path, event(9).id.encode() + event(9).data)
    async with opened(directory) as spool:
        rows = await spool.advance([], 30, 100)
        assert [row.seq for row in rows if row.dead] == [8, 10]
        assert {row.dead[0] for row in rows if row.dead} == {"SPOOL_CORRUPT"}
        assert [row.attempts[0] for row in rows] == [0 if row.dead else 1 for row in rows]
        assert len(rows[7].data) == 450
        await spool.advance([row.seq for row in rows], 0)
        assert (spool.depth, spool.bytes) == (0, 0)


async def test_damage_that_shows_later_is_mended_on_the_way(
    directory: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large file is not read through at the start. The call that meets the damage succeeds, and the numbers that
    the forwarder holds stay those of the same events.
    """
    path = await filled(directory, 2000)
    overwrite(path, page_of(path, 1000), bytes(PAGE))
    monkeypatch.setattr(file, "CHECKED_BYTES", 0)
    async with opened(directory) as spool:
        assert (spool.depth, spool.damaged) == (2000, 0)
        delivered: list[int] = []
        done: list[int] = []
        while spool.depth:
            rows = await spool.advance(done, 300, 1)
            done = [row.seq for row in rows]
            delivered += numbers(rows)
        assert spool.damaged == 1
        assert delivered == sorted(set(delivered))
        assert 1000 not in delivered
        assert len(delivered) >= 2000 - 9
        await spool.put([event(10**6)], Attempts())
        [row] = await everything(spool)
        assert row.seq > 2000
    assert "of 1400 events salvaged" in caplog.text


async def test_a_damaged_index_costs_no_event(
    directory: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "CHECKED_BYTES", 0)
    damage_index(await filled(directory, 2000))
    async with opened(directory) as spool:
        await spool.put([event(5), event(10**6)], Attempts())
        assert spool.damaged == 1
        assert numbers(await everything(spool)) == [*range(2000), 10**6]


async def test_a_small_file_is_checked_when_it_is_opened(directory: Path) -> None:
    damage_index(await filled(directory, 100))
    async with opened(directory) as spool:
        assert (spool.damaged, spool.depth) == (1, 100)


async def test_what_is_there_is_known_even_if_the_call_that_met_the_damage_is_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "CHECKED_BYTES", 0)
    path = await filled(directory, 2000)
    overwrite(path, page_of(path, 1000), bytes(PAGE))
    damage_index(path)
    async with opened(directory, max_bytes=2000 * 750) as spool:
        assert spool.depth == 2000
        with pytest.raises(SpoolFull):
            await spool.put([event(10**6, size=10**6)], Attempts())
        assert (spool.damaged, spool.depth) == (1, len(await everything(spool)))
        assert spool.depth < 2000


async def test_what_is_corrupt_stays_so_when_it_is_salvaged(directory: Path) -> None:
    path = await filled(directory, 30)
    flip(path, event(7).data[30:])
    overwrite(path, 0, bytes(100))
    for _ in range(2):
        async with opened(directory) as spool:
            rows = await everything(spool)
            assert [row.seq for row in rows if row.dead and row.dead[0] == "SPOOL_CORRUPT"] == [8]
            assert len(rows) == 30


async def test_a_sequence_number_is_not_used_again_after_a_salvage(directory: Path) -> None:
    async with opened(directory) as spool:
        await spool.put(events(0, 10), Attempts())
        rows = await everything(spool)
        await spool.advance([row.seq for row in rows[5:]], 0)
    overwrite(directory / "spool.db", 0, bytes(100))
    async with opened(directory) as spool:
        await spool.put([event(10)], Attempts())
        assert [row.seq for row in await everything(spool)] == [*(row.seq for row in rows[:5]), rows[-1].seq + 1]


async def test_a_kill_while_it_is_replaced_loses_nothing(directory: Path) -> None:
    """At each step of the replacement: the salvaged file is the spool from the moment it is complete."""
    names = ("spool.db.salvaging", "spool.db.salvaged", "spool.db-wal", "spool.db", "spool.lock")
    for present, expected in (
        ({"spool.db": 5, "spool.db.salvaging": 3}, 5),  # not complete: it starts again
        ({"spool.db": 5, "spool.db.salvaged": 3}, 3),
        ({"spool.db.salvaged": 3}, 3),
    ):
        for name in names:
            (directory / name).unlink(missing_ok=True)
        for name, count in present.items():
            shutil.rmtree(directory.with_name("made"), ignore_errors=True)
            made = await filled(directory.with_name("made"), count)
            os.makedirs(directory, exist_ok=True)  # noqa: PTH103
            made.rename(directory / name)
        async with opened(directory) as spool:
            assert spool.depth == expected
            assert sizes(directory).keys() & set(names) == set(names[2:])


async def test_a_write_that_failed_does_not_come_back(directory: Path) -> None:
    """A commit whose fsync failed is in the WAL all the same; it is taken back when the file is opened again."""
    async with opened(directory) as spool:
        await spool.put(events(0, 5), Attempts())
        await in_thread(
            spool,
            lambda c: c.execute("INSERT INTO events VALUES (6, 9, 0, 0, 0, 0, NULL, NULL, 0, 'x', x'')"),
        )
        await spool._in_thread(spool._drop)
        await spool.put([event(5)], Attempts())
        assert numbers(await everything(spool)) == list(range(6))
        assert (spool.depth, spool.bytes) == (6, sum(map(size_of, events(0, 6))))
