"""The spool on disk survives restarts and kills, belongs to one process, and stays as small as what it holds."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pytest

from sidecar.errors import SettingsError, SpoolUnavailable
from sidecar.publishing.interfaces import Attempts
from sidecar.spool import file, schema
from sidecar.spool import spool as spool_module
from sidecar.spool.schema import size_of
from sidecar.spool.spool import SqliteSpool
from tests.fakes.events import event, events
from tests.integration import spool_writer
from tests.integration.spool_on_disk import (
    GIB,
    ROOT,
    consistent,
    contents,
    copy_of_killed,
    everything,
    filled,
    in_thread,
    modes,
    numbers,
    opened,
    sizes,
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_everything_is_there_after_a_restart(directory: Path) -> None:
    async with opened(directory) as spool:
        await spool.put(events(0, 10), Attempts(1, 5, 6))
        rows = await spool.advance([], 4, 100)
        await spool.mark_dead([rows[1].seq], "REDIS_REFUSED", "too big")
        await spool.advance([rows[0].seq], 0)
        before = (spool.depth, spool.bytes, spool.oldest_ms, await everything(spool))
    assert "spool.reserve" in sizes(directory)
    async with opened(directory) as spool:
        assert (spool.depth, spool.bytes, spool.oldest_ms, await everything(spool)) == before
        assert spool.depth == 9
        await spool.advance([row.seq for row in await everything(spool)], 0)
        assert sizes(directory)["spool.db-wal"] == 0  # an empty one gives its room back
    assert "spool.reserve" not in sizes(directory)
    async with opened(directory) as spool:
        assert (spool.depth, spool.bytes, spool.oldest_ms) == (0, 0, None)
        await spool.put(events(10, 11), Attempts())
        assert (await everything(spool))[0].seq > before[3][-1].seq


def test_a_kill_at_any_time_loses_nothing_that_was_acknowledged(directory: Path) -> None:
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


async def test_every_commit_is_fsynced(directory: Path) -> None:
    async with opened(directory) as spool:
        assert await in_thread(spool, lambda c: c.execute("PRAGMA journal_mode").fetchone()[0]) == b"wal"
        assert await in_thread(spool, lambda c: c.execute("PRAGMA synchronous").fetchone()[0]) == 2  # FULL


async def test_a_group_is_one_commit(directory: Path) -> None:
    async with opened(directory) as spool:
        statements: list[str] = []
        await in_thread(spool, lambda c: c.set_trace_callback(statements.append))
        await spool.put(events(0, 1000), Attempts())
        assert statements.count("COMMIT") == 1
        await spool.advance([row.seq for row in await spool.advance([], 500, 1)], 500, 2)
        assert statements.count("COMMIT") == 3
        assert spool.depth == 500


async def test_a_caller_that_is_cancelled_stops_nothing(directory: Path) -> None:
    async with opened(directory) as spool:
        tasks = [asyncio.create_task(spool.put(events(n, n + 10), Attempts())) for n in range(0, 100, 10)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        rows = await everything(spool)
        assert numbers(rows) == list(range(100))
        assert (spool.depth, spool.bytes) == (100, sum(map(size_of, events(0, 100))))


async def test_a_closed_one_refuses(directory: Path) -> None:
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


async def test_nobody_else_can_read_it(directory: Path) -> None:
    async with opened(directory) as spool:
        await spool.put([event(1)], Attempts())
        assert modes(directory) == {
            "spool": 0o700,
            "spool.db": 0o600,
            "spool.db-wal": 0o600,
            "spool.lock": 0o600,
            "spool.reserve": 0o600,
        }


async def test_a_second_spool_is_refused_and_changes_nothing(directory: Path) -> None:
    async with opened(directory) as spool:
        await spool.put([event(1)], Attempts())
        files = open_files()
        with pytest.raises(SettingsError, match=f"SPOOL_DIR {directory} is in use by another sidecar"):
            await SqliteSpool.open(directory, max_bytes=GIB)
        assert open_files() == files
        await spool.put([event(2)], Attempts())
        assert spool.depth == 2
    async with opened(directory) as spool:
        assert spool.depth == 2


async def test_another_process_is_refused(directory: Path) -> None:
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


async def test_the_lock_ends_with_its_holder(directory: Path) -> None:
    for _ in range(3):
        async with opened(directory):
            pass


async def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "spool"):
        with pytest.raises(SettingsError, match=f"SPOOL_DIR {path}: Not a directory"):
            await SqliteSpool.open(path, max_bytes=GIB)


async def test_a_file_that_may_not_be_opened_is_refused(directory: Path) -> None:
    (directory / "spool.db").mkdir(parents=True)
    with pytest.raises(SettingsError, match=f"SPOOL_DIR {directory}: .*directory"):
        await SqliteSpool.open(directory, max_bytes=GIB)
    (directory / "spool.db").rmdir()
    async with opened(directory) as spool:  # the lock was given free
        assert spool.depth == 0


async def test_a_newer_schema_is_refused_untouched(directory: Path) -> None:
    path = await filled(directory, 10)
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA journal_mode = DELETE")
        newer.execute("PRAGMA user_version = 2")
    before = contents(directory, "spool.db*")
    with pytest.raises(SettingsError, match=f"SPOOL_DIR {directory}: .* version 2, from a newer sidecar"):
        await SqliteSpool.open(directory, max_bytes=GIB)
    assert contents(directory, "spool.db*") == before


async def test_a_newer_schema_that_is_only_in_the_wal_is_refused(directory: Path) -> None:
    path = await filled(directory, 10)
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 2")
    copy_of_killed(directory, directory.with_name("killed"))
    newer.close()
    with pytest.raises(SettingsError, match="version 2"):
        await SqliteSpool.open(directory.with_name("killed"), max_bytes=GIB)


async def test_the_file_shrinks_after_an_outage(directory: Path) -> None:
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


async def test_the_wal_stays_small_under_steady_work(directory: Path) -> None:
    async with opened(directory) as spool:
        await spool.put(events(0, 500), Attempts())
        done: list[int] = []
        largest = 0
        for first in range(500, 30_500, 500):
            await spool.put(events(first, first + 500), Attempts())
            done = [row.seq for row in await spool.advance(done, 500, 1)]
            largest = max(largest, sizes(directory)["spool.db"] + sizes(directory)["spool.db-wal"])
        assert largest < 8 << 20
        await spool.put(events(0, 20, size=10**6), Attempts())
        assert sizes(directory)["spool.db-wal"] > 20 * 10**6
        for number in range(20, 23):
            await spool.put([event(number)], Attempts())
        assert sizes(directory)["spool.db-wal"] <= 4 << 20


async def test_a_file_that_cannot_be_made_smaller_is_no_failure(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "sidecar.spool.spool")

    def failing(_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    async with opened(directory) as spool:
        await spool.put([event(0)], Attempts())
        monkeypatch.setattr(spool_module, "checkpoint", failing)
        await spool.advance([row.seq for row in await everything(spool)], 0)
        assert spool.depth == 0
    assert f"the spool's file in {directory} could not be made smaller: disk I/O error" in caplog.messages


async def test_a_disk_that_fails_at_the_start_may_work_again(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full or failing disk is no fault of the settings: the start is tried again."""

    def failing(*_: object) -> sqlite3.Connection:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(schema, "connect", failing)
        with pytest.raises(SpoolUnavailable, match="disk I/O error"):
            await SqliteSpool.open(directory, max_bytes=GIB)
    async with opened(directory) as spool:
        assert spool.depth == 0


async def test_a_failure_while_it_is_opened_again_is_named_and_passes(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    async with opened(directory) as spool:
        await spool.put([event(0)], Attempts())
        await spool._in_thread(spool._drop)
        with monkeypatch.context() as patch:
            patch.setattr(spool, "_take_back", failing)
            with pytest.raises(SpoolUnavailable, match="disk I/O error") as raised:
                await spool.put([event(1)], Attempts())
        await spool.put([event(2)], Attempts())
        assert numbers(await everything(spool)) == [0, 2]
        del raised


@pytest.mark.parametrize(("code", "is_raised"), [(sqlite3.SQLITE_FULL, False), (sqlite3.SQLITE_IOERR_READ, True)])
def test_only_a_full_disk_keeps_the_wal_as_it_is(code: int, is_raised: bool) -> None:
    error = sqlite3.OperationalError("it failed")
    error.sqlite_errorcode = code

    class Failing:
        def execute(self, _: str) -> None:
            raise error

    connection: Any = Failing()
    with pytest.raises(sqlite3.OperationalError) if is_raised else nullcontext():
        file.checkpoint(connection)


async def test_where_there_is_no_call_to_take_room_it_is_written(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("os.posix_fallocate")
    monkeypatch.setattr(file, "RESERVE_BYTES", 1 << 16)
    async with opened(directory) as spool:
        await spool.put([event(0)], Attempts())
        assert sizes(directory)["spool.reserve"] == 1 << 16
