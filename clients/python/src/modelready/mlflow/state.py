"""Where `modelready-reconcile` keeps its state: a file, or a row of a database."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from modelready.mlflow.reconciliation import State

if TYPE_CHECKING:
    from sqlalchemy import Table


class Conflict(Exception):
    """Another `modelready-reconcile` works with this state."""


class StateStore(Protocol):
    """Keeps one state. Both methods raise Conflict, and OSError or SQLAlchemy's errors where the place is away."""

    def load(self) -> State | None:
        """The state that was saved last, None if there is none; ValueError if it cannot be read."""
        ...

    def save(self, state: State) -> None:
        """Replace what was loaded, as a whole or not at all."""
        ...


def state_store(place: str) -> StateStore:
    """That of a file's path or of SQLAlchemy's URL of a database."""
    return DatabaseState(place) if "://" in place else FileState(Path(place))


class FileState:
    """A file, which one process at a time may use."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: int | None = None

    def load(self) -> State | None:
        """See StateStore."""
        self._own()
        try:
            text = self._path.read_text()
        except FileNotFoundError:
            return None
        return State.from_json(json.loads(text))

    def save(self, state: State) -> None:
        """See StateStore."""
        self._own()
        beside = self._path.with_name(f"{self._path.name}.new")
        with beside.open("w") as file:
            json.dump(state.to_json(), file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)  # the new name is on the disk, too
        finally:
            os.close(directory)

    def _own(self) -> None:
        if self._lock is not None:
            return
        lock = os.open(self._path.with_name(f"{self._path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise Conflict(f"another modelready-reconcile uses {self._path}") from error
        self._lock = lock  # until the process ends


class DatabaseState:
    """A row of the table `modelready_reconcile`, which several may use: who saves second gets Conflict."""

    def __init__(self, url: str) -> None:
        from sqlalchemy import create_engine  # noqa: PLC0415 - a file needs no SQLAlchemy

        self._engine = create_engine(url, pool_pre_ping=True)
        self._table = _table()
        self._revision = 0

    def load(self) -> State | None:
        """See StateStore."""
        with self._engine.begin() as connection:
            self._table.metadata.create_all(connection)
            row = connection.execute(self._table.select()).one_or_none()
        self._revision = 0 if row is None else row.revision
        return None if row is None else State.from_json(json.loads(row.state))

    def save(self, state: State) -> None:
        """See StateStore."""
        from sqlalchemy.exc import IntegrityError  # noqa: PLC0415 - as above

        values = {"state": json.dumps(state.to_json()), "revision": self._revision + 1}
        unchanged = self._table.c.revision == self._revision
        try:
            with self._engine.begin() as connection:
                if self._revision == 0:
                    connection.execute(self._table.insert().values(id=1, **values))
                elif not connection.execute(self._table.update().where(unchanged).values(**values)).rowcount:
                    raise Conflict("another modelready-reconcile has saved its state")
        except IntegrityError as error:
            raise Conflict("another modelready-reconcile has saved its state") from error
        self._revision += 1


def _table() -> Table:
    from sqlalchemy import Column, Integer, MetaData, Table, Text  # noqa: PLC0415 - as above
    from sqlalchemy.dialects import mysql  # noqa: PLC0415 - as above

    return Table(
        "modelready_reconcile",
        MetaData(),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("revision", Integer, nullable=False),
        Column("state", Text().with_variant(mysql.LONGTEXT, "mysql", "mariadb"), nullable=False),
    )
