"""A disk that is full, read-only or gone loses nothing, and the spool works again by itself when it can."""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sidecar.errors import SettingsError, SpoolFull, SpoolUnavailable
from sidecar.publishing.interfaces import Attempts
from sidecar.spool import file
from sidecar.spool.schema import size_of
from sidecar.spool.spool import SqliteSpool
from tests.fakes.events import event, events
from tests.integration.spool_on_disk import (
    GIB,
    PAGE,
    ROOT,
    consistent,
    contents,
    damage_index,
    everything,
    filled,
    numbers,
    opened,
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


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


def make_read_only(path: Path) -> None:
    """As this process has it open: from now on no write to it succeeds until it is opened again."""
    [open_one] = [fd.name for fd in Path("/proc/self/fd").iterdir() if fd.exists() and fd.resolve() == path]
    read_only = os.open(path, os.O_RDONLY)
    os.dup2(read_only, int(open_one), inheritable=False)
    os.close(read_only)


async def in_little_room(path: str) -> None:
    file.RESERVE_BYTES = 1 << 16
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


async def test_a_disk_that_fills_refuses_and_takes_again_when_there_is_room(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(4 << 20))
    async with opened(small_disk / "spool") as spool:
        put = await fill(spool)
        assert put > 3000
        ballast.unlink()
        await spool.put(events(put, put + 200), Attempts())
        assert numbers(await everything(spool)) == list(range(put + 200))
    assert await consistent(small_disk / "spool") == list(range(put + 200))


async def test_a_full_disk_can_be_emptied_and_takes_again_then(small_disk: Path) -> None:
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
        (small_disk / "more").unlink()
        await spool.put(events(0, 100), Attempts())
    assert await consistent(small_disk / "spool") == list(range(100))


async def test_a_full_disk_does_not_end_the_start(small_disk: Path) -> None:
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
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "CHECKED_BYTES", 0)
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


async def test_a_read_only_disk_is_refused_at_the_start(small_disk: Path) -> None:
    await filled(small_disk / "spool", 10)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"tmpfs", str(small_disk).encode(), b"tmpfs", 32 | 1, b"size=28m") == 0  # remount, read-only
    for path in (small_disk / "spool", small_disk / "new"):
        with pytest.raises(SettingsError, match=f"SPOOL_DIR {path}: Read-only file system"):
            await SqliteSpool.open(path, max_bytes=GIB)


def test_a_limit_of_the_files_size_is_a_full_disk(directory: Path) -> None:
    """For everybody who cannot mount: RLIMIT_FSIZE, in a process of its own."""
    code = f"import asyncio, {__name__} as tests; asyncio.run(tests.in_little_room({str(directory)!r}))"
    child = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    assert len(asyncio.run(consistent(directory))) > 1000


async def test_a_file_that_was_removed_is_not_written_to(directory: Path) -> None:
    """Its events can still be delivered; new ones would be lost with the process."""
    async with opened(directory) as spool:
        await spool.put(events(0, 3), Attempts())
        (directory / "spool.db").unlink()
        for _ in range(3):
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


async def test_it_is_opened_again_after_repeated_errors_of_the_disk(directory: Path) -> None:
    """An error that stays with a file that is open goes when it is opened again; nothing that was kept is lost."""
    async with opened(directory) as spool:
        await spool.put(events(0, 3), Attempts())
        make_read_only(directory / "spool.db-wal")
        for _ in range(2):
            with pytest.raises(SpoolUnavailable, match="disk I/O error"):
                await spool.put([event(3)], Attempts())
            assert spool.depth == 3
        with suppress(SpoolUnavailable):
            await spool.check()
        await spool.put([event(3)], Attempts())
        await spool.check()
        assert numbers(await everything(spool)) == [0, 1, 2, 3]
    assert await consistent(directory) == [0, 1, 2, 3]


async def test_the_check_knows_what_a_put_would_meet(small_disk: Path) -> None:
    """By the room that is there, and by the disk's last answer, with nothing put and nothing left behind."""
    directory = small_disk / "spool"
    async with opened(directory) as spool:
        await spool.check()
        assert spool.free_bytes > file.RESERVE_BYTES
        use_up(small_disk / "ballast")
        with pytest.raises(SpoolUnavailable, match="is full: 0 bytes are free, and the next event may need 17825792"):
            await spool.check()
        (small_disk / "ballast").unlink()
        await spool.put([event(0)], Attempts())
        await spool.check()  # the reserve is there, and takes no more room
        (small_disk / "ballast").write_bytes(bytes(spool.free_bytes - (1 << 20)))
        await spool.check()
        (directory / "spool.db").rename(small_disk / "away")
        with pytest.raises(SpoolUnavailable, match="No such file"):
            await spool.check()
        with pytest.raises(SpoolUnavailable, match="No such file"):
            await spool.put([event(1)], Attempts())
        (small_disk / "away").rename(directory / "spool.db")
        await spool.check()
        assert numbers(await everything(spool)) == [0]
        assert "spool.trial" not in contents(directory, "*")


async def test_the_check_knows_a_full_spool(directory: Path) -> None:
    """It is full when less is left than the next event may need: of a small one, a quarter."""
    await filled(directory, 10)
    size = sum(map(size_of, events(0, 10)))
    limit = size * 4 // 3
    async with opened(directory, max_bytes=limit) as spool:
        assert spool.free_bytes == 0  # it was not checked yet
        await spool.check()
        assert spool.free_bytes > 0
    async with opened(directory, max_bytes=limit - 1) as spool:
        with pytest.raises(SpoolFull, match="the spool is full: "):
            await spool.check()
