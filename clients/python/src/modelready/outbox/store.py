"""All SQL of the relay and of the commands. Every function works within the caller's transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, delete, func, select, text, update

from modelready.outbox.table import NAME, table, utc_now

MAX_ERROR = 2000
MAX_COUNTED = 100_000
"""Rows are counted up to here, since a count reads each of them."""
_BATCH_CHARACTERS = 8 << 20
_WAITING = table.c.failed_at.is_(None)
_FAILED = table.c.failed_at.is_not(None)

_LOCK = {
    "postgresql": text("SELECT pg_try_advisory_xact_lock(hashtext(current_schema() || :name))"),
    "mysql": text("SELECT GET_LOCK(CONCAT(LEFT(DATABASE(), 40), '.', :name), 0)"),
}
_LOCK["mariadb"] = _LOCK["mysql"]
_UNLOCK = text("DO RELEASE_LOCK(CONCAT(LEFT(DATABASE(), 40), '.', :name))")


class Row(NamedTuple):
    """A row that waits."""

    id: int
    event_id: str
    event: str
    created_at: datetime


class FailedRow(NamedTuple):
    """A row that was refused."""

    id: int
    event_id: str
    failed_at: datetime
    error: str
    event: str


class Status(NamedTuple):
    """How many rows wait, for how many seconds the oldest of them has (0 if there is none), how many were refused.

    Each number is MAX_COUNTED where there are more.
    """

    waiting: int
    oldest_seconds: float
    failed: int


def lock(connection: Connection) -> bool:
    """Take the relay's lock; False where another relay has it. It ends with the transaction, or by `unlock`."""
    statement = _LOCK.get(connection.dialect.name)
    return statement is None or bool(connection.execute(statement, {"name": NAME}).scalar())


def unlock(connection: Connection) -> None:
    """Give up the lock where it does not end with the transaction."""
    if connection.dialect.name in {"mysql", "mariadb"} and not connection.invalidated:
        connection.execute(_UNLOCK, {"name": NAME})


def oldest(connection: Connection, limit: int) -> list[Row]:
    """The oldest rows that wait: `limit` of them, or fewer where they are large, and one at least."""
    columns = (table.c.id, table.c.event_id, table.c.event, table.c.created_at)
    first = select(*columns).where(_WAITING).order_by(table.c.id).limit(limit).subquery()
    size = func.length(first.c.event)
    before = func.sum(size).over(order_by=first.c.id) - size
    sized = select(first, before.label("before")).subquery()
    chosen = select(*(sized.c[column.name] for column in columns)).where(sized.c.before < _BATCH_CHARACTERS)
    return [Row(*row) for row in connection.execute(chosen.order_by(sized.c.id))]


def settle(connection: Connection, acknowledged: Collection[int], refused: Mapping[int, str]) -> None:
    """Delete the rows that were acknowledged, and mark those that were refused with the reason."""
    if acknowledged:
        connection.execute(delete(table).where(table.c.id.in_(acknowledged)))
    for number, reason in refused.items():
        marked = update(table).where(table.c.id == number)
        connection.execute(marked.values(failed_at=utc_now(), error=reason[:MAX_ERROR]))


def status(connection: Connection) -> Status:
    """Count the rows."""
    waiting, failed = (
        connection.execute(
            select(func.count()).select_from(select(table.c.id).where(state).limit(MAX_COUNTED).subquery())
        ).scalar_one()
        for state in (_WAITING, _FAILED)
    )
    ages = select(table.c.created_at, utc_now()).where(_WAITING).order_by(table.c.id).limit(1)
    seconds = 0.0
    for created_at, now in connection.execute(ages):
        seconds = max((now - created_at).total_seconds(), 0.0)
    return Status(waiting, seconds, failed)


def failed(connection: Connection, limit: int) -> list[FailedRow]:
    """The first rows that were refused, by their ids."""
    columns = (table.c.id, table.c.event_id, table.c.failed_at, table.c.error, table.c.event)
    chosen = select(*columns).where(_FAILED).order_by(table.c.id).limit(limit)
    return [FailedRow(*row) for row in connection.execute(chosen)]


def retry(connection: Connection, ids: Sequence[int] | None) -> int:
    """Let these refused rows, or all, wait again, at their old place; return how many."""
    return connection.execute(update(table).where(*_chosen(ids)).values(failed_at=None, error=None)).rowcount


def discard(connection: Connection, ids: Sequence[int] | None) -> int:
    """Delete these refused rows, or all; return how many."""
    return connection.execute(delete(table).where(*_chosen(ids))).rowcount


def _chosen(ids: Sequence[int] | None) -> list[ColumnElement[bool]]:
    return [_FAILED] if ids is None else [_FAILED, table.c.id.in_(ids)]
