"""The check of the spool's disk. It makes no directory and leaves no file."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from sidecar.cli.doctor.findings import FSYNCS_PER_SECOND
from sidecar.cli.doctor.report import Report
from sidecar.format import size
from sidecar.settings import SpoolSettings
from sidecar.spool.file import MIN_DISK_BYTES, RESERVE_BYTES

MOUNTS = Path("/proc/self/mounts")
"""Linux's; elsewhere the file system is not known and causes no finding."""
_NETWORK = (
    "nfs", "efs", "cifs", "smb", "9p", "ceph", "glusterfs", "lustre", "fuse.sshfs", "fuse.s3fs", "fuse.mount-s3",
)  # fmt: skip
_MEMORY = ("tmpfs", "ramfs")
_MEASURE_SECONDS = 0.3
_MAX_FSYNCS = 200
_BLOCK = bytes(4096)


class _Disk(NamedTuple):
    """What was measured: the file system's type, room in bytes, fsyncs a second."""

    kind: str
    room: int
    rate: float


def check_spool(report: Report, settings: SpoolSettings) -> None:
    """The file system, whether it can be written to, its room, and how many fsyncs a second it does."""
    directory = settings.directory
    below = _nearest(directory)  # a sidecar makes the directory, doctor does not
    kind = _file_system(below)
    if kind.startswith(_NETWORK):
        report.add("spool-network", f"SPOOL_DIR {directory} is on {kind}")
        return
    try:
        rate = _fsyncs_per_second(below)
        room = _room(below) + _bytes_of(directory / "spool.db") + _bytes_of(directory / "spool.reserve")
        in_use = _in_use(directory / "spool.lock")
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            report.add("spool-full", f"SPOOL_DIR {directory} ({kind}) has no room: {error.strerror}")
        else:
            report.add("spool-unusable", f"SPOOL_DIR {directory}: {error.strerror}")
        return
    disk = _Disk(kind, room, rate)
    faults = _faults(disk, settings.max_bytes)
    for finding, said in faults:
        report.add(finding, f"SPOOL_DIR {directory} {said}")
    if not faults:
        made = "" if directory == below else ", to be made at the start"
        user = ", in use by a running sidecar" if in_use else made
        report.ok("spool", f"{directory} ({kind}{user}): room for {size(room)}, {rate:,.0f} fsyncs a second")


def _faults(disk: _Disk, most: int) -> list[tuple[str, str]]:
    """The findings of a disk that can be written to."""
    faults = []
    if disk.kind in _MEMORY:
        faults.append(("spool-memory", f"is on {disk.kind}"))
    if disk.room < MIN_DISK_BYTES:
        faults.append(("spool-full", f"has {size(disk.room)} left, a spool needs {size(MIN_DISK_BYTES)}"))
    elif disk.room < most + RESERVE_BYTES:
        faults.append(("spool-room", f"has room for {size(disk.room)}, SPOOL_MAX_BYTES is {size(most)}"))
    if disk.rate < FSYNCS_PER_SECOND:
        faults.append(("spool-slow", f"does {disk.rate:,.0f} fsyncs a second, and {FSYNCS_PER_SECOND} are the least"))
    return faults


def _nearest(directory: Path) -> Path:
    """The directory, or the nearest above it that is there."""
    return next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())


def _file_system(path: Path) -> str:
    """The type of the file system that holds `path`, as the kernel names it."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "unknown file system"
    resolved, kind, longest = path.resolve(), "unknown file system", -1
    for _, mounted, name, *_ in (line.split(" ") for line in lines):
        point = Path(mounted.replace("\\040", " "))
        if resolved.is_relative_to(point) and len(point.parts) >= longest:  # a later mount hides an earlier one
            kind, longest = name, len(point.parts)
    return kind


def _fsyncs_per_second(directory: Path) -> float:
    """How often a block can be appended and synced, one after the other. Raises OSError."""
    done, began = 0, time.monotonic()
    with tempfile.TemporaryFile(dir=directory, prefix="doctor-", buffering=0) as file:
        while done < _MAX_FSYNCS and time.monotonic() - began < _MEASURE_SECONDS:
            file.write(_BLOCK)
            os.fsync(file.fileno())
            done += 1
        return done / (time.monotonic() - began)


def _room(directory: Path) -> int:
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize


def _bytes_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _in_use(lock: Path) -> bool:
    """Whether a sidecar holds the spool. Raises OSError where it is another user's.

    The lock is taken for some microseconds: a sidecar that starts just then ends as if another used the spool.
    """
    if not lock.exists():
        return False
    descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
