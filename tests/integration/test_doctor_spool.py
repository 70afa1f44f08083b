"""doctor, the spool's disk: each fault for real, but for those that no test machine has."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sidecar.cli.doctor import spool
from sidecar.cli.doctor.report import Report
from sidecar.settings import SpoolSettings
from sidecar.spool.file import RESERVE_BYTES
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.integration.calls import to_redis
from tests.integration.doctor_run import in_a_crowd, the_finding

ROOM = 1 << 20


def checked(directory: Path, max_bytes: int = ROOM) -> Report:
    report = Report()
    with in_a_crowd():
        spool.check_spool(report, SpoolSettings(directory=directory, max_bytes=max_bytes))
    return report


@contextmanager
def small_disk(directory: Path, size: int) -> Iterator[Path]:
    """A real file system in memory, of the given size in bytes."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", str(directory).encode(), b"tmpfs", 0, f"size={size}".encode()):
        pytest.skip(f"cannot mount a tmpfs: {os.strerror(ctypes.get_errno())}")
    try:
        yield directory
    finally:
        libc.umount2(str(directory).encode(), 2)


def test_a_disk_that_is_well(tmp_path: Path) -> None:
    """Also where the directory is yet to be made. Nothing is left in it."""
    for directory in (tmp_path, tmp_path / "to" / "be" / "made"):
        (line,) = checked(directory).lines
        assert line.status == "ok", line
        assert "fsyncs a second" in line.found
    assert list(tmp_path.iterdir()) == []


def test_a_spool_that_a_sidecar_uses_is_well(tmp_path: Path) -> None:
    with RedisServer() as server, SidecarProcess(to_redis(server, SPOOL_DIR=str(tmp_path))) as sidecar:
        (line,) = checked(tmp_path).lines
        assert line.status == "ok"
        assert "in use by a running sidecar" in line.found
        assert sidecar.running
    (line,) = checked(tmp_path).lines
    assert "in use" not in line.found


def a_file(directory: Path) -> Path:
    (directory / "file").write_text("a regular file")
    return directory / "file"


@pytest.mark.parametrize("place", [a_file, lambda _: Path("/proc/none")], ids=["a file", "/proc"])
def test_a_directory_that_cannot_be_written_to(place: Callable[[Path], Path], tmp_path: Path) -> None:
    directory = place(tmp_path)
    assert str(directory) in the_finding(checked(directory), "spool-unusable").found


def test_less_room_than_the_spool_may_take(tmp_path: Path) -> None:
    assert "1,024.0 TiB" in the_finding(checked(tmp_path, 2**50), "spool-room").found


def test_a_disk_in_memory_and_one_without_room(tmp_path: Path) -> None:
    with small_disk(tmp_path, RESERVE_BYTES * 4):
        the_finding(checked(tmp_path), "spool-memory")
        with (tmp_path / "others").open("wb") as file:
            file.write(bytes(RESERVE_BYTES * 3 + 4096))
        assert {line.finding for line in checked(tmp_path).lines} == {"spool-memory", "spool-full"}
        with (tmp_path / "others").open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        assert "No space left" in the_finding(checked(tmp_path), "spool-full").found


def test_a_disk_that_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slower, for once, than any disk is: a rate that is measured, against a limit that none reaches."""
    monkeypatch.setattr(spool, "FSYNCS_PER_SECOND", 10**9)
    report = Report()
    spool.check_spool(report, SpoolSettings(directory=tmp_path, max_bytes=ROOM))
    assert "fsyncs a second" in the_finding(report, "spool-slow").found


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs"])
def test_a_network_s_file_system(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test machine has one, so the table of mounts is ours. The innermost mount counts, and the last of two."""
    mounts = tmp_path / "mounts"
    (tmp_path / "a disk").mkdir()
    (tmp_path / "spool").mkdir()
    point = str(tmp_path / "a disk").replace(" ", "\\040")
    mounts.write_text(
        f"/dev/vda / ext4 rw 0 0\n/dev/vdb {tmp_path}/spool ext4 rw 0 0\nhost:/ {tmp_path}/spool {kind} rw 0 0\n"
        f"host:/ {tmp_path} {kind} rw 0 0\n/dev/vdc {point} xfs rw 0 0\n"
    )
    monkeypatch.setattr(spool, "MOUNTS", mounts)
    assert f"is on {kind}" in the_finding(checked(tmp_path / "spool"), "spool-network").found
    assert f"is on {kind}" in the_finding(checked(tmp_path / "none"), "spool-network").found
    (line,) = checked(tmp_path / "a disk").lines
    assert (line.status, "(xfs)" in line.found) == ("ok", True)


def test_where_the_file_system_is_not_known_it_is_not_complained_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "MOUNTS", tmp_path / "none")
    (line,) = checked(tmp_path).lines
    assert line.status == "ok"
