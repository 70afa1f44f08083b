"""The life of `spool.db`: locked, opened, and replaced by a new one when it is damaged.

    spool.lock              held with flock for as long as this process uses the directory
    spool.trial             exists for a moment, after an error of the disk
    spool.reserve           room on the disk, given up when events cannot be forgotten because the disk is full
    spool.db, spool.db-wal  SQLite's
    spool.db.damaged-<UTC>  set aside, with its -wal; kept until a person removes it
    spool.db.salvaging      the new file while it is written; worthless after a crash
    spool.db.salvaged       the new file, complete: from here on it is the spool, whatever happens in between

Nothing here knows of asyncio.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from sidecar.errors import SettingsError
from sidecar.settings import SPOOL_PLACE
from sidecar.spool import schema as sql
from sidecar.spool.salvage import salvage

RESERVE_BYTES = 16 << 20
"""Room for the WAL of a few large transactions, and for what they add to the file."""
EVENT_BYTES = 1 << 20
"""Room for the largest event, twice: in the WAL and in the file."""
MIN_DISK_BYTES = RESERVE_BYTES + EVENT_BYTES
"""What a disk must have free for a new spool to take its first event."""
CHECKED_BYTES = 8 << 20
"""Up to this size the whole file is checked when it is opened; damage in a larger one shows when it is read."""
_PLACE = f"{SPOOL_PLACE}, that this user may write to"
BESIDE = ("-wal", "-shm", "-journal")


class SpoolFile:
    """The spool's directory, for this process alone. All but the constructor and `close` belong to one thread."""

    def __init__(self, directory: Path) -> None:
        """Create the directory and lock it. Raises SettingsError."""
        self.directory = directory
        self.path = directory / "spool.db"
        self._salvaging = directory / "spool.db.salvaging"
        self._salvaged = directory / "spool.db.salvaged"
        self._reserve = directory / "spool.reserve"
        self._has_reserve = False
        try:
            if not directory.is_dir():
                directory.mkdir(mode=0o700, parents=True)
                _fsync(directory.parent)
            self._lock = _create(directory / "spool.lock")
        except OSError as error:
            reason = "Not a directory" if isinstance(error, FileExistsError) else error.strerror
            raise SettingsError(f"SPOOL_DIR {directory}: {reason}; it may be {_PLACE}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            used = isinstance(error, BlockingIOError)
            reason = " is in use by another sidecar" if used else f": {error.strerror}; it may be {_PLACE}"
            raise SettingsError(f"SPOOL_DIR {directory}{reason}") from error

    def close(self) -> None:
        """Release the directory."""
        os.close(self._lock)

    def connect(self, *, create: bool) -> sqlite3.Connection:
        """Open the file, or make it. Raises sqlite3.Error, also where it is damaged, OSError, and SettingsError."""
        self._finish_replacing()
        if not create:
            self.path.stat()
        self._inspect_header()
        os.close(_create(self.path))
        connection = sql.connect(self.path, sql.SETTINGS)
        try:
            self._refuse_newer(connection.execute(sql.GET_VERSION).fetchone()[0])
            sql.migrate(connection)
            if self.path.stat().st_size <= CHECKED_BYTES:
                _check(connection)
            checkpoint(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def make_ready(self) -> None:
        """Before events are put. Raises OSError where the file was removed under us, or the reserve finds no room.

        Forgetting events takes room before it gives any back. Without a reserve a spool that fills its disk, or that
        others leave no room, could never be emptied.
        """
        self.path.stat()
        if not self._has_reserve:
            file = _create(self._reserve)
            try:
                _allocate(file, RESERVE_BYTES)
            except OSError:
                self._reserve.unlink()
                raise
            finally:
                os.close(file)
            self._has_reserve = True

    def free_bytes(self) -> int:
        """The free room of the disk. Raises OSError."""
        disk = os.statvfs(self.directory)
        return disk.f_bavail * disk.f_frsize

    def needed_bytes(self) -> int:
        """The room that the next event may take, with what the reserve still lacks."""
        try:
            reserved = self._reserve.stat().st_blocks * 512
        except OSError:
            reserved = 0
        return EVENT_BYTES + max(RESERVE_BYTES - reserved, 0)

    def try_room(self) -> None:
        """Take the room that an event may need, and give it back: quotas show in no figure. Raises OSError."""
        path = self.directory / "spool.trial"
        file = _create(path)
        try:
            _allocate(file, EVENT_BYTES)
        finally:
            os.close(file)
            path.unlink()

    def release_reserve(self) -> bool:
        """Whether there was one."""
        self._has_reserve = False
        try:
            self._reserve.unlink()
        except OSError:
            return False
        return True

    def replace(self, known: sql.Totals) -> str:
        """Set the damaged file aside and put a new one in its place, with what can still be read.

        Sequence numbers of before are not given out again. Returns what was done. Raises sqlite3.Error and OSError,
        and then nothing was changed.
        """
        self._clear()
        file = _create(self._salvaging)
        try:
            salvaged, depth = salvage(self.path, self._salvaging, known.last_seq)
            os.fsync(file)
        except BaseException:
            self._clear()  # it would take the room that the disk may lack
            raise
        finally:
            os.close(file)
        self._salvaging.rename(self._salvaged)
        _fsync(self.directory)
        aside = self._finish_replacing()
        return f"set aside as {aside}, {salvaged} of {known.depth or depth or 'an unknown number of'} events salvaged"

    def _inspect_header(self) -> None:
        """See, without touching anything, whether the file is a newer sidecar's, or surely damaged."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            header = file.read(100)
        wal = _beside(self.path, "-wal")
        if not header and wal.exists() and wal.stat().st_size:
            raise sql.Damaged("the file is empty")  # SQLite would now delete the WAL
        if header and not header.startswith(sql.MAGIC):
            raise sql.Damaged("file is not a database")
        self._refuse_newer(int.from_bytes(header[60:64], "big"))

    def _refuse_newer(self, version: int) -> None:
        if version > sql.VERSION:
            raise SettingsError(
                f"SPOOL_DIR {self.directory}: spool.db is of version {version}, from a newer sidecar; this one knows up"
                f" to {sql.VERSION}. Drain it with the newer sidecar, or name another directory"
            )

    def _finish_replacing(self) -> Path:
        """Let a complete salvaged file be the spool. Also after a crash between any two of these steps."""
        aside = self.path.with_name(f"{self.path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
        self._clear()
        if self._salvaged.exists():
            for suffix in (*BESIDE, ""):  # never a foreign WAL beside the new file
                with suppress(FileNotFoundError):
                    _beside(self.path, suffix).rename(_beside(aside, suffix))
            self._salvaged.rename(self.path)
            _fsync(self.directory)
        return aside

    def _clear(self) -> None:
        for leftover in self.directory.glob(f"{self._salvaging.name}*"):
            leftover.unlink()


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is bad, and not the disk for the moment."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return (
        isinstance(error, sql.Damaged)
        or code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
        or (code == sqlite3.SQLITE_ERROR and str(error).startswith("no such"))  # table or column
    )


def checkpoint(connection: sqlite3.Connection) -> None:
    """Move the WAL's content into the file, fsynced, and make the WAL empty; or leave it, where the disk is full."""
    try:
        connection.execute(sql.CHECKPOINT).fetchall()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode not in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE}:  # the latter: a quota
            raise


def _check(connection: sqlite3.Connection) -> None:
    answer = connection.execute(sql.QUICK_CHECK).fetchone()[0]
    if answer != b"ok":
        raise sql.Damaged(answer.decode(errors="replace"))
    if connection.execute(sql.COUNT).fetchone() != sql.read_totals(connection)[:2]:
        connection.execute(sql.TOTALS_RECOUNT)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _create(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _allocate(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.write(file, bytes(size))


def _fsync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
