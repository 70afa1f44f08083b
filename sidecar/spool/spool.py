"""The spool on this task's disk: the Spool contract over one SQLite file.

One thread owns the file and the event loop waits for it. Cancelling a caller does not stop what it began.
A change is on disk when COMMIT returned, and only then do the totals in memory follow.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from modelready.violations import MAX_EVENT_BYTES
from sidecar.errors import SettingsError, SpoolFull, SpoolUnavailable
from sidecar.publishing.interfaces import Attempts, Event, Spool, Spooled
from sidecar.spool import schema as sql
from sidecar.spool.file import MIN_DISK_BYTES, SpoolFile, checkpoint, is_damage

log = logging.getLogger(__name__)
T = TypeVar("T")

SHRINK_PAGES = 1024
"""A file is made smaller when it has this many free pages (4 MiB), four times what it has in use..."""
VACUUM_PAGES = 2048
"""...and no more in use than this, so that it takes some 50 ms at most."""


class SqliteSpool(Spool):
    """See Spool. A damaged file is set aside, and what can be read of it goes into a new one."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spool")
        self._file: SpoolFile | None = None
        self._connection: sqlite3.Connection | None = None
        self._totals = sql.Totals()
        self._opened = False
        self._damaged = 0
        self._failures = 0
        self._refused = False  # the last put, by the disk
        self._free_bytes = 0

    @classmethod
    async def open(cls, directory: Path, *, max_bytes: int) -> SqliteSpool:
        """Take the directory, which is made if need be, for this process alone.

        Raises SettingsError where it cannot be used or belongs to another, and SpoolUnavailable where the disk fails.
        """
        spool = cls(directory, max_bytes)
        try:
            await spool._in_thread(spool._open)
        except BaseException:
            await spool.close()
            raise
        return spool

    async def close(self) -> None:
        """Finish what was begun and release the directory. Any later call raises SpoolUnavailable."""
        with suppress(SpoolUnavailable):
            closing = self._in_thread(self._close)
            self._thread.shutdown(wait=False)
            await closing

    @property
    def depth(self) -> int:
        """See Spool."""
        return self._totals.depth

    @property
    def bytes(self) -> int:
        """See Spool."""
        return self._totals.bytes

    @property
    def max_bytes(self) -> int:
        """See Spool."""
        return self._max_bytes

    @property
    def last_seq(self) -> int:
        """See Spool."""
        return self._totals.last_seq

    @property
    def oldest_ms(self) -> int | None:
        """See Spool."""
        return self._totals.oldest_ms

    @property
    def damaged(self) -> int:
        """See Spool."""
        return self._damaged

    @property
    def free_bytes(self) -> int:
        """See Spool."""
        return self._free_bytes

    async def check(self) -> None:
        """See Spool."""
        await self._in_thread(self._check)

    async def put(self, events: Sequence[Event], attempts: Attempts) -> None:
        """See Spool."""
        if not events:
            return

        def job(connection: sqlite3.Connection) -> None:
            self._opened_file.make_ready()
            connection.executemany(sql.PUT, sql.to_rows(events, attempts, _now_ms()))
            connection.execute(sql.TOTALS_ADD, (self._totals.last_seq,))
            size = sql.read_totals(connection).bytes
            if size > max(self._max_bytes, self._totals.bytes):
                raise SpoolFull(
                    f"the spool holds {self._totals.bytes} of {self._max_bytes} bytes, and this takes"
                    f" {size - self._totals.bytes}"
                )

        await self._in_thread(lambda: self._put(job))

    async def advance(
        self, done: Sequence[int], limit: int, attempt_ms: int | None = None, *, after: int = 0
    ) -> list[Spooled]:
        """See Spool. The attempts that are returned count the one that `attempt_ms` marks."""

        def job(connection: sqlite3.Connection) -> list[Spooled]:
            if done:
                forgotten = (json.dumps(list(done)),)
                connection.execute(sql.TOTALS_SUBTRACT, forgotten)
                connection.execute(sql.FORGET, forgotten)
            events = [sql.from_row(row) for row in connection.execute(sql.OLDEST, (after, limit))]
            if attempt_ms is None:
                return events
            connection.execute(sql.ATTEMPT, (attempt_ms, json.dumps([e.seq for e in events if e.dead is None])))
            return [e if e.dead else e._replace(attempts=_one_more(e.attempts, attempt_ms)) for e in events]

        def forget_and_read() -> list[Spooled]:
            events = self._commit(job, drains=True)
            if done:
                self._shrink()
            return events

        return await self._in_thread(forget_and_read)

    async def mark_dead(self, seqs: Sequence[int], reason: str, detail: str) -> None:
        """See Spool."""

        def job(connection: sqlite3.Connection) -> None:
            connection.execute(sql.MARK_DEAD, (reason, detail, json.dumps(list(seqs))))

        await self._in_thread(lambda: self._commit(job, drains=True))

    def _in_thread(self, job: Callable[[], T]) -> asyncio.Future[T]:
        try:
            return asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, job))
        except RuntimeError as error:
            raise SpoolUnavailable("the spool is closed") from error

    # What follows runs in the thread.

    def _open(self) -> None:
        self._file = SpoolFile(self._directory)
        try:
            self._commit(lambda _: None)
        except SpoolUnavailable as error:
            cause = error.__cause__
            if isinstance(cause, SettingsError):
                raise cause from None
            if isinstance(cause, OSError):
                raise SettingsError(str(error)) from error
            raise
        self._opened = True
        log.info("the spool in %s holds %d events, %d bytes", self._directory, self.depth, self.bytes)

    def _close(self) -> None:
        if self._connection and self._file and not self._totals.depth:
            self._file.release_reserve()
        self._drop()
        if self._file:
            self._file.close()
            self._file = None

    def _put(self, job: Callable[[sqlite3.Connection], None]) -> None:
        self._refused = True
        try:
            self._commit(job)
        except SpoolFull:
            self._refused = False
            raise
        self._refused = False

    def _check(self) -> None:
        """By the last answer of the disk and by its free room; after an error by a commit that changes nothing."""
        file = self._opened_file
        try:
            file.path.stat()
            self._free_bytes, needed = file.free_bytes(), file.needed_bytes()
        except OSError as error:
            raise SpoolUnavailable(f"SPOOL_DIR {self._directory}: {error}") from error
        if self._free_bytes < needed:
            raise SpoolUnavailable(
                f"the disk of SPOOL_DIR {self._directory} is full: {self._free_bytes} bytes are free,"
                f" and the next event may need {needed}; a new spool needs {MIN_DISK_BYTES}"
            )
        if self._refused:
            self._put(self._try)
        left = self._max_bytes - self._totals.bytes
        largest = min(MAX_EVENT_BYTES + sql.OVERHEAD, self._max_bytes // 4)
        if left < largest:
            raise SpoolFull(
                f"the spool is full: {left} of SPOOL_MAX_BYTES, {self._max_bytes}, are left,"
                f" and the next event may need {largest}"
            )

    def _try(self, connection: sqlite3.Connection) -> None:
        self._opened_file.make_ready()
        self._opened_file.try_room()
        connection.execute(sql.TOUCH)

    def _commit(self, job: Callable[[sqlite3.Connection], T], *, drains: bool = False) -> T:
        """Run the job in one transaction. Raises what the job raises, or SpoolUnavailable; then nothing was changed.

        One that `drains` the spool may use the reserve: on a full disk it is the way to get room.
        """
        try:
            result = self._transact_or_repair(job)
        except (sqlite3.Error, OSError, SettingsError) as error:
            released = drains and self._opened_file.release_reserve()
            self._recover(error)
            if released:
                return self._commit(job)
            raise SpoolUnavailable(f"SPOOL_DIR {self._directory}: {error}") from error
        self._failures = 0
        return result

    def _transact_or_repair(self, job: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return self._transact(job)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self._replace(error)
        return self._transact(job)

    def _transact(self, job: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._connection or self._connect()
        try:
            connection.execute(sql.BEGIN)
            result = job(connection)
            totals = sql.read_totals(connection)
            connection.execute(sql.COMMIT)
        except BaseException:
            self._roll_back(connection)
            raise
        self._totals = totals
        return result

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        try:
            if connection.in_transaction:  # some errors have ended it already
                connection.execute(sql.ROLLBACK)
        except sqlite3.Error:
            self._drop()

    def _connect(self) -> sqlite3.Connection:
        connection = self._opened_file.connect(create=not self._totals.depth)
        try:
            if self._opened:
                self._take_back(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _take_back(self, connection: sqlite3.Connection) -> None:
        """Undo a put whose fsync failed: its caller got an error, but the WAL has the events."""
        connection.execute(sql.BEGIN)
        if connection.execute(sql.FORGET_AFTER, (self._totals.last_seq,)).rowcount:
            connection.execute(sql.TOTALS_RECOUNT)
        connection.execute(sql.KEEP_SEQUENCE, (self._totals.last_seq,))
        connection.execute(sql.COMMIT)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            with suppress(sqlite3.Error):
                connection.close()

    def _recover(self, error: Exception) -> None:
        """After a failure of the disk. The connection is kept once: it writes again what a failed fsync lost."""
        self._failures += isinstance(error, sqlite3.Error)
        if not self._totals.depth or self._failures > 1:
            self._drop()
        elif self._connection:
            with suppress(sqlite3.Error):  # on a full disk this is what gives room to forget events
                checkpoint(self._connection)

    def _replace(self, error: sqlite3.DatabaseError) -> None:
        self._drop()
        outcome = self._opened_file.replace(self._totals)
        self._damaged += 1
        log.error("the spool's file in %s is damaged (%s): %s", self._directory, error, outcome)
        self._connection = self._opened_file.connect(create=False)
        self._totals = sql.read_totals(self._connection)

    def _shrink(self) -> None:
        """Give room back to the disk: after a big outage, and whenever the spool is empty."""
        connection = self._connection
        if not connection:
            return
        try:
            free, pages = (connection.execute(query).fetchone()[0] for query in (sql.FREE_PAGES, sql.ALL_PAGES))
            used = pages - free
            oversized = free >= max(SHRINK_PAGES, 4 * used) and used <= VACUUM_PAGES
            if oversized:
                connection.execute(sql.VACUUM)
            if oversized or not self._totals.depth:
                checkpoint(connection)
        except sqlite3.Error as error:
            log.debug("the spool's file in %s could not be made smaller: %s", self._directory, error)

    @property
    def _opened_file(self) -> SpoolFile:
        assert self._file
        return self._file


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _one_more(attempts: Attempts, at_ms: int) -> Attempts:
    made, first_ms, _ = attempts
    return Attempts(made + 1, first_ms if made else at_ms, at_ms)
