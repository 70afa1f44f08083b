"""What only the spool on disk promises: it survives kills, full disks and damaged files."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sidecar.errors import SettingsError, SpoolFull, SpoolUnavailable
from sidecar.publishing.interfaces import Attempts, Spooled
from sidecar.storage import spool_file
from sidecar.storage.sqlite_spool import SqliteSpool
from tests.fakes.events import event, events
from tests.fakes.memory_spool import MemorySpool
from tests.integration import spool_writer

PAGE = 4096
ROOT = Path(__file__).parents[2]
GIB = 1 << 30


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


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
        assert (spool.depth, spool.bytes) == (len(rows), sum(spool.room_for(event(n)) for n in numbers(rows)))
        assert all(row.data == event(number).data for row, number in zip(rows, numbers(rows), strict=True))
        assert [row.seq for row in rows] == sorted(row.seq for row in rows)
        return numbers(rows)


class TestRestart:
    async def test_everything_is_there_after_a_restart(self, directory: Path) -> None:
        async with opened(directory) as spool:
            await spool.put(events(0, 10), Attempts(1, 5, 6))
            rows = await spool.advance([], 4, 100)
            await spool.mark_dead([rows[1].seq], "REDIS_REFUSED", "too big")
            await spool.advance([rows[0].seq], 0)
            before = (spool.depth, spool.bytes, spool.oldest_ms, await everything(spool))
        async with opened(directory) as spool:
            assert (spool.depth, spool.bytes, spool.oldest_ms, await everything(spool)) == before
            assert spool.depth == 9
            await spool.advance([row.seq for row in await everything(spool)], 0)
        async with opened(directory) as spool:
            assert (spool.depth, spool.bytes, spool.oldest_ms) == (0, 0, None)
            await spool.put(events(10, 11), Attempts())
            assert (await everything(spool))[0].seq > before[3][-1].seq

    def test_a_kill_at_any_time_loses_nothing_that_was_acknowledged(self, directory: Path) -> None:
        writer = subprocess.Popen(
            [sys.executable, "-m", spool_writer.__name__, str(directory)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdin
        assert writer.stdout
        chance = random.Random(7)
        put = forgot = -1
        with writer:
            for _ in range(20):
                writer.stdin.write("go\n")
                writer.stdin.flush()
                line = ""
                kill_at, pid = 0.0, 0
                while line != "killed":
                    line = writer.stdout.readline().strip()
                    word, _, number = line.partition(" ")
                    if word == "pid":
                        pid = int(number)
                    elif word == "put":
                        put = int(number)
                    elif word == "forgot":
                        forgot = int(number)
                    kill_at = kill_at or (word == "put" and time.monotonic() + chance.uniform(0, 0.1)) or 0.0
                    if kill_at and pid and time.monotonic() > kill_at:
                        os.kill(pid, signal.SIGKILL)
                        pid = 0
                there = asyncio.run(consistent(directory))
                assert there == list(range(there[0], there[-1] + 1))
                assert there[0] in {
                    forgot + 1,
                    forgot + 1 + spool_writer.FORGET,
                }  # the last one may have been under way
                assert there[-1] in {put, put + spool_writer.GROUP}
                put, forgot = there[-1], there[0] - 1
            writer.stdin.close()
        assert put > 20 * spool_writer.GROUP

    async def test_every_commit_is_fsynced(self, directory: Path) -> None:
        async with opened(directory) as spool:
            assert await in_thread(spool, lambda c: c.execute("PRAGMA journal_mode").fetchone()[0]) == b"wal"
            assert await in_thread(spool, lambda c: c.execute("PRAGMA synchronous").fetchone()[0]) == 2  # FULL

    async def test_a_group_is_one_commit(self, directory: Path) -> None:
        async with opened(directory) as spool:
            statements: list[str] = []
            await in_thread(spool, lambda c: c.set_trace_callback(statements.append))
            await spool.put(events(0, 1000), Attempts())
            assert statements.count("COMMIT") == 1
            await spool.advance([row.seq for row in await spool.advance([], 500, 1)], 500, 2)
            assert statements.count("COMMIT") == 3
            assert spool.depth == 500

    async def test_it_opens_fast_however_much_it_holds(self, directory: Path) -> None:
        await filled(directory, 60_000)
        began = time.monotonic()
        async with opened(directory) as spool:
            assert time.monotonic() - began < 0.2
            assert spool.depth == 60_000

    async def test_a_caller_that_is_cancelled_stops_nothing(self, directory: Path) -> None:
        async with opened(directory) as spool:
            tasks = [asyncio.create_task(spool.put(events(n, n + 10), Attempts())) for n in range(0, 100, 10)]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            rows = await everything(spool)
            assert numbers(rows) == list(range(100))
            assert (spool.depth, spool.bytes) == (100, sum(map(spool.room_for, events(0, 100))))

    async def test_a_closed_one_refuses(self, directory: Path) -> None:
        spool = await SqliteSpool.open(directory, max_bytes=GIB)
        last = asyncio.create_task(spool.put([event(1)], Attempts()))
        await asyncio.sleep(0)
        await spool.close()
        await last
        await spool.close()
        with pytest.raises(SpoolUnavailable, match="closed"):
            await spool.put([event(2)], Attempts())
        async with opened(directory) as again:
            assert again.depth == 1


class TestDirectory:
    async def test_nobody_else_can_read_it(self, directory: Path) -> None:
        async with opened(directory) as spool:
            await spool.put([event(1)], Attempts())
            assert modes(directory) == {
                "spool": 0o700,
                "spool.db": 0o600,
                "spool.db-wal": 0o600,
                "spool.lock": 0o600,
                "spool.reserve": 0o600,
            }

    async def test_a_second_spool_is_refused_and_changes_nothing(self, directory: Path) -> None:
        async with opened(directory) as spool:
            await spool.put([event(1)], Attempts())
            with pytest.raises(SettingsError, match=f"SPOOL_DIR {directory} is in use by another sidecar"):
                await SqliteSpool.open(directory, max_bytes=GIB)
            await spool.put([event(2)], Attempts())
            assert spool.depth == 2
        async with opened(directory) as spool:
            assert spool.depth == 2

    async def test_another_process_is_refused(self, directory: Path) -> None:
        async with opened(directory):
            other = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-m", spool_writer.__name__, str(directory)],
                cwd=ROOT,
                input="go\n",
                capture_output=True,
                text=True,
                check=False,
            )
        assert "is in use by another sidecar" in other.stderr

    async def test_the_lock_ends_with_its_holder(self, directory: Path) -> None:
        for _ in range(3):
            async with opened(directory):
                pass

    async def test_a_path_below_a_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for path in (tmp_path / "file", tmp_path / "file" / "spool"):
            with pytest.raises(SettingsError, match=f"SPOOL_DIR {path}: "):
                await SqliteSpool.open(path, max_bytes=GIB)

    async def test_a_file_that_may_not_be_opened_is_refused(self, directory: Path) -> None:
        (directory / "spool.db").mkdir(parents=True)
        with pytest.raises(SettingsError, match=f"SPOOL_DIR {directory}: .*directory"):
            await SqliteSpool.open(directory, max_bytes=GIB)
        (directory / "spool.db").rmdir()
        async with opened(directory) as spool:  # the lock was given free
            assert spool.depth == 0

    async def test_a_newer_schema_is_refused_untouched(self, directory: Path) -> None:
        path = await filled(directory, 10)
        with closing(sqlite3.connect(path)) as newer:
            newer.execute("PRAGMA user_version = 2")
        before = contents(directory, "spool.db*")
        with pytest.raises(SettingsError, match=f"SPOOL_DIR {directory}: .* version 2, from a newer sidecar"):
            await SqliteSpool.open(directory, max_bytes=GIB)
        assert contents(directory, "spool.db*") == before

    async def test_a_newer_schema_that_is_only_in_the_wal_is_refused(self, directory: Path) -> None:
        path = await filled(directory, 10)
        newer = sqlite3.connect(path)
        newer.execute("PRAGMA user_version = 2")
        shutil.copytree(directory, directory.with_name("killed"))
        newer.close()
        with pytest.raises(SettingsError, match="version 2"):
            await SqliteSpool.open(directory.with_name("killed"), max_bytes=GIB)


class TestSize:
    async def test_the_file_shrinks_after_an_outage(self, directory: Path) -> None:
        async with opened(directory) as spool:
            for first in range(0, 30_000, 1000):
                await spool.put(events(first, first + 1000), Attempts())
            assert sum(sizes(directory).values()) > 13 << 20
            done: list[int] = []
            while spool.depth:
                done = [row.seq for row in await spool.advance(done, 500, 1)]
            assert sizes(directory)["spool.db"] < 5 << 20
            assert sizes(directory)["spool.db-wal"] == 0
            await spool.put(events(0, 1), Attempts())
            assert [row.event_id for row in await everything(spool)] == [event(0).id]

    async def test_the_wal_stays_small_under_steady_work(self, directory: Path) -> None:
        async with opened(directory) as spool:
            await spool.put(events(0, 500), Attempts())
            done: list[int] = []
            largest = 0
            for first in range(500, 30_500, 500):
                await spool.put(events(first, first + 500), Attempts())
                done = [row.seq for row in await spool.advance(done, 500, 1)]
                largest = max(largest, sizes(directory)["spool.db"] + sizes(directory)["spool.db-wal"])
            assert largest < 8 << 20


class TestDamage:
    async def _salvaged(self, directory: Path, caplog: pytest.LogCaptureFixture) -> list[int]:
        """Open, see that the file was set aside and that all works, and return what was salvaged."""
        damaged = (directory / "spool.db").read_bytes()
        async with opened(directory) as spool:
            rows = await everything(spool)
            assert spool.damaged == 1
            await self._works(spool, rows)
        assert damaged in contents(directory, "spool.db.damaged-*").values()
        self._logged(caplog, len(rows))
        async with opened(directory) as spool:
            assert spool.damaged == 0
            assert numbers(await everything(spool)) == [*numbers(rows), 10**6]
        assert [row.seq for row in rows] == sorted(row.seq for row in rows)
        assert all(row.dead or row.data == event(n).data for row, n in zip(rows, numbers(rows), strict=True))
        return numbers(rows)

    async def _works(self, spool: SqliteSpool, rows: list[Spooled]) -> None:
        await spool.put([event(10**6)], Attempts())
        assert (await everything(spool))[:-1] == rows
        assert spool.depth == len(rows) + 1
        assert spool.bytes == sum(len(row.data) + len(row.event_id) + 256 for row in await everything(spool))

    def _logged(self, caplog: pytest.LogCaptureFixture, salvaged: int) -> None:
        [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert "spool.db.damaged-" in record.getMessage()
        assert f", {salvaged} of " in record.getMessage()

    @pytest.mark.parametrize("length", [16, 100, PAGE])
    async def test_a_damaged_header_costs_no_event(
        self, directory: Path, length: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        overwrite(await filled(directory, 1000), 0, random.Random(1).randbytes(length))
        assert await self._salvaged(directory, caplog) == list(range(1000))

    async def test_a_damaged_header_that_sqlite_sees_costs_no_event(
        self, directory: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        overwrite(await filled(directory, 1000), 16, b"\0" * 8)  # the size of a page, and its kin
        assert await self._salvaged(directory, caplog) == list(range(1000))

    async def test_a_truncated_file_keeps_what_is_before_the_cut(
        self, directory: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = await filled(directory, 2000)
        os.truncate(path, path.stat().st_size // 2 + 100)
        kept = await self._salvaged(directory, caplog)
        assert kept == list(range(len(kept)))
        assert 800 < len(kept) < 1200

    async def test_a_garbage_page_costs_its_own_events_alone(
        self, directory: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = await filled(directory, 2000)
        lost = 0
        for number in (0, 700, 1500, 1999):
            offset = page_of(path, number)
            lost += path.read_bytes()[offset : offset + PAGE].count(b"event-") > 0
            overwrite(path, offset, random.Random(number).randbytes(PAGE))
        kept = await self._salvaged(directory, caplog)
        assert not {0, 700, 1500, 1999} & set(kept)
        assert 2000 - 4 * 9 <= len(kept) < 2000

    async def test_a_file_that_is_no_database_is_set_aside(
        self, directory: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        overwrite(await filled(directory, 0), 0, b"not a database, but somebody's notes\n" * 1000)
        assert await self._salvaged(directory, caplog) == []

    async def test_another_programs_database_is_set_aside(self, directory: Path) -> None:
        os.mkdir(directory)  # noqa: PTH102
        with closing(sqlite3.connect(directory / "spool.db")) as other:
            other.execute("CREATE TABLE events (id)")
        async with opened(directory) as spool:
            assert spool.damaged == 1
            await self._works(spool, [])
        [aside] = contents(directory, "spool.db.damaged-*")
        with closing(sqlite3.connect(directory / aside)) as other:
            assert other.execute("SELECT count(*) FROM events").fetchone() == (0,)

    async def test_the_totals_are_counted_anew_when_they_cannot_be(self, directory: Path) -> None:
        path = await filled(directory, 10)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE totals SET depth = 7, bytes = 0")
        async with opened(directory) as spool:
            assert (spool.depth, spool.bytes) == (10, sum(map(spool.room_for, events(0, 10))))

    async def test_an_empty_file_does_not_cost_the_wal(self, directory: Path, caplog: pytest.LogCaptureFixture) -> None:
        async with opened(directory) as spool:
            await spool.put(events(0, 10), Attempts())
            shutil.copytree(directory, directory.with_name("killed"))
        directory = directory.with_name("killed")
        os.truncate(directory / "spool.db", 0)
        wal = (directory / "spool.db-wal").read_bytes()
        await self._salvaged(directory, caplog)
        assert list(contents(directory, "spool.db.damaged-*-wal").values()) == [wal]

    async def test_a_flipped_bit_makes_a_dead_letter_and_is_never_delivered(self, directory: Path) -> None:
        path = await filled(directory, 30)
        flip(path, event(7).data[30:])
        flip(path, event(9).id.encode() + event(9).data)
        async with opened(directory) as spool:
            rows = await spool.advance([], 30, 100)
            assert [row.seq for row in rows if row.dead] == [8, 10]
            assert {row.dead[0] for row in rows if row.dead} == {"SPOOL_CORRUPT"}
            assert [row.attempts.count for row in rows] == [0 if row.dead else 1 for row in rows]
            assert len(rows[7].data) == 450
            await spool.advance([row.seq for row in rows], 0)
            assert (spool.depth, spool.bytes) == (0, 0)

    async def test_damage_that_shows_later_is_mended_on_the_way(
        self, directory: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The call that meets it succeeds, and the numbers that the forwarder holds stay those of the same events."""
        path = await filled(directory, 2000)
        overwrite(path, page_of(path, 1000), bytes(PAGE))
        monkeypatch.setattr(spool_file, "CHECKED_BYTES", 0)
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
        self, directory: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(spool_file, "CHECKED_BYTES", 0)
        damage_index(await filled(directory, 2000))
        async with opened(directory) as spool:
            await spool.put([event(5), event(10**6)], Attempts())
            assert spool.damaged == 1
            assert numbers(await everything(spool)) == [*range(2000), 10**6]

    async def test_what_is_corrupt_stays_so_when_it_is_salvaged(self, directory: Path) -> None:
        path = await filled(directory, 30)
        flip(path, event(7).data[30:])
        overwrite(path, 0, bytes(100))
        for _ in range(2):
            async with opened(directory) as spool:
                rows = await everything(spool)
                assert [row.seq for row in rows if row.dead and row.dead[0] == "SPOOL_CORRUPT"] == [8]
                assert len(rows) == 30

    async def test_a_kill_while_it_is_replaced_loses_nothing(self, directory: Path) -> None:
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

    async def test_a_write_that_failed_does_not_come_back(self, directory: Path) -> None:
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
            assert (spool.depth, spool.bytes) == (6, sum(map(spool.room_for, events(0, 6))))


async def fill(spool: SqliteSpool, why: str = "full", first: int = 0) -> int:
    """Put events until the disk takes no more, as the publisher would: a group that was refused comes again."""
    failures = 0
    while failures < 4:
        before = (spool.depth, spool.bytes)
        try:
            await spool.put(events(first, first + 100), Attempts())
        except SpoolUnavailable as error:
            assert why in str(error)  # noqa: PT017
            assert (spool.depth, spool.bytes) == before
            failures += 1
        else:
            first += 100
            failures = 0
    return first


def use_up(path: Path) -> None:
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(PAGE))


async def in_little_room(path: str) -> None:
    spool_file.RESERVE_BYTES = 1 << 16
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    async with opened(Path(path)) as spool:
        end = await fill(spool, "disk I/O error")
        assert numbers(await everything(spool)) == list(range(end))
    async with opened(Path(path)) as spool:
        end = await fill(spool, "disk I/O error", end)
        assert numbers(await everything(spool)) == list(range(end))
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        await spool.put(events(end, end + 1000), Attempts())
        assert numbers(await everything(spool)) == list(range(end + 1000))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 28 MiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", str(mount).encode(), b"tmpfs", 0, b"size=28m"):
        pytest.skip(f"cannot mount a tmpfs: {os.strerror(ctypes.get_errno())}")
    yield mount
    libc.umount2(str(mount).encode(), 2)


class TestFullDisk:
    async def test_a_disk_that_fills_refuses_and_takes_again_when_there_is_room(self, small_disk: Path) -> None:
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(4 << 20))
        async with opened(small_disk / "spool") as spool:
            put = await fill(spool)
            assert put > 3000
            ballast.unlink()
            await spool.put(events(put, put + 200), Attempts())
            assert numbers(await everything(spool)) == list(range(put + 200))
        assert await consistent(small_disk / "spool") == list(range(put + 200))

    async def test_a_full_disk_can_be_emptied_and_takes_again_then(self, small_disk: Path) -> None:
        async with opened(small_disk / "spool") as spool:
            put = await fill(spool)
            use_up(small_disk / "ballast")
            delivered: list[int] = []
            done: list[int] = []
            while spool.depth:
                rows = await spool.advance(done, 500, 1)
                done = [row.seq for row in rows]
                delivered += numbers(rows)
            assert delivered == list(range(put))
            use_up(small_disk / "more")
            with pytest.raises(SpoolUnavailable, match="No space left"):
                await spool.put(events(0, 100), Attempts())  # not without a new reserve: it could not be emptied
            (small_disk / "ballast").unlink()
            await spool.put(events(0, 100), Attempts())
        assert await consistent(small_disk / "spool") == list(range(100))

    async def test_a_full_disk_does_not_end_the_start(self, small_disk: Path) -> None:
        killed = small_disk / "killed"
        async with opened(small_disk / "spool") as spool:
            put = await fill(spool)
            (small_disk / "spool").rename(killed)  # the lock goes with it; what follows is as after a kill
            shutil.copytree(killed, small_disk.with_name("copy"))
        shutil.rmtree(killed)
        shutil.copytree(small_disk.with_name("copy"), small_disk / "spool")
        use_up(small_disk / "ballast")
        assert await consistent(small_disk / "spool") == list(range(put))

    async def test_a_damaged_file_stays_until_there_is_room_to_salvage_it(
        self, small_disk: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(spool_file, "CHECKED_BYTES", 0)
        directory = small_disk / "spool"
        damage_index(await filled(directory, 3000))
        before = contents(directory, "spool.db")
        use_up(small_disk / "ballast")
        async with opened(directory) as spool:
            for _ in range(3):
                with pytest.raises(SpoolUnavailable, match="full"):
                    await spool.put(events(3000, 3100), Attempts())
                assert (spool.depth, spool.damaged) == (3000, 0)
                assert contents(directory, "spool.db*") == before
            (small_disk / "ballast").unlink()
            await spool.put(events(3000, 3100), Attempts())
            assert spool.damaged == 1
        assert await consistent(directory) == list(range(3100))

    async def test_a_read_only_disk_is_refused_at_the_start(self, small_disk: Path) -> None:
        await filled(small_disk / "spool", 10)
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mount(b"tmpfs", str(small_disk).encode(), b"tmpfs", 32 | 1, b"size=28m") == 0  # remount, read-only
        for path in (small_disk / "spool", small_disk / "new"):
            with pytest.raises(SettingsError, match=f"SPOOL_DIR {path}: Read-only file system"):
                await SqliteSpool.open(path, max_bytes=GIB)

    def test_a_limit_of_the_files_size_is_a_full_disk(self, directory: Path) -> None:
        """For everybody who cannot mount: RLIMIT_FSIZE, in a process of its own."""
        code = f"import asyncio, {__name__} as tests; asyncio.run(tests.in_little_room({str(directory)!r}))"
        child = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
        assert child.returncode == 0, child.stderr
        assert len(asyncio.run(consistent(directory))) > 1000

    async def test_a_file_that_was_removed_is_not_written_to(self, directory: Path) -> None:
        """Its events can still be delivered; new ones would be lost with the process."""
        async with opened(directory) as spool:
            await spool.put(events(0, 3), Attempts())
            (directory / "spool.db").unlink()
            with pytest.raises(SpoolUnavailable, match="No such file"):
                await spool.put([event(3)], Attempts())
            rows = await everything(spool)
            assert numbers(rows) == [0, 1, 2]
            await spool.advance([row.seq for row in rows], 0)
            with pytest.raises(SpoolUnavailable):
                await spool.put([event(3)], Attempts())
            await spool.put([event(3)], Attempts())
            assert (await everything(spool))[0].seq > rows[-1].seq
        async with opened(directory) as spool:
            assert numbers(await everything(spool)) == [3]


class SpoolMachine(RuleBasedStateMachine):
    """Whatever is called in whatever order, with restarts and kills between: the same as the one in memory."""

    MAX_BYTES = 6000

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = Path("/dev/shm" if Path("/dev/shm").is_dir() else "/tmp", f"spool-{os.getpid()}-{id(self)}")
        self.model = MemorySpool(max_bytes=self.MAX_BYTES)
        self.open()

    def open(self) -> None:
        self.spool = self.runner.run(SqliteSpool.open(self.directory, max_bytes=self.MAX_BYTES))

    def teardown(self) -> None:
        self.runner.run(self.spool.close())
        self.runner.close()
        shutil.rmtree(self.directory)

    def both(self, call: Callable[[Any, list[int]], Any], positions: list[int]) -> tuple[Any, Any]:
        """Do the same to both; `positions` are those of events, whose numbers differ."""
        results = []
        for spool in (self.model, self.spool):
            rows = self.runner.run(spool.advance([], 1000))
            try:
                results.append(self.runner.run(call(spool, [rows[p].seq for p in positions if p < len(rows)])))
            except SpoolFull:
                results.append("full")
        return results[0], results[1]

    @rule(
        chosen=st.lists(st.tuples(st.integers(0, 30), st.sampled_from([0, 10, 700])), max_size=6),
        attempts=st.sampled_from([Attempts(), Attempts(1, 5, 9)]),
    )
    def put(self, chosen: list[tuple[int, int]], attempts: Attempts) -> None:
        model, real = self.both(lambda s, _: s.put([event(n, size) for n, size in chosen], attempts), [])
        assert model == real

    @rule(
        positions=st.lists(st.integers(0, 20), max_size=8),
        limit=st.integers(0, 12),
        attempt_ms=st.none() | st.integers(1, 99),
    )
    def advance(self, positions: list[int], limit: int, attempt_ms: int | None) -> None:
        model, real = self.both(lambda s, seqs: s.advance(seqs, limit, attempt_ms), positions)
        assert list(map(comparable, model)) == list(map(comparable, real))

    @rule(positions=st.lists(st.integers(0, 20), max_size=3), reason=st.sampled_from(["A", "B"]))
    def mark_dead(self, positions: list[int], reason: str) -> None:
        self.both(lambda s, seqs: s.mark_dead(seqs, reason, reason.lower()), positions)

    @rule()
    def restart(self) -> None:
        self.runner.run(self.spool.close())
        self.open()

    @precondition(lambda self: self.directory.exists())
    @rule()
    def kill(self) -> None:
        killed = self.directory.with_name(f"{self.directory.name}-killed")
        shutil.copytree(self.directory, killed)
        self.runner.run(self.spool.close())
        shutil.rmtree(self.directory)
        killed.rename(self.directory)
        self.open()

    @invariant()
    def same(self) -> None:
        assert (self.model.depth, self.model.bytes) == (self.spool.depth, self.spool.bytes)
        model, real = (self.runner.run(spool.advance([], 1000)) for spool in (self.model, self.spool))
        assert list(map(comparable, model)) == list(map(comparable, real))
        assert [row.seq for row in real] == sorted({row.seq for row in real})
        assert self.spool.oldest_ms == (real[0].spooled_ms if real else None)
        assert self.spool.damaged == 0


def comparable(row: Spooled) -> Spooled:
    """Without what may differ: its number and the time."""
    return row._replace(seq=0, spooled_ms=0)


TestModel = SpoolMachine.TestCase
TestModel.settings = settings(
    max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
