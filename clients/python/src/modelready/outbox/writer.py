"""Writes events into the outbox, in the caller's transaction."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from google.protobuf.json_format import MessageToJson
from sqlalchemy import Insert, event
from sqlalchemy import insert as insert_into
from sqlalchemy.orm import Session, object_session

from modelready.event import EventFields, complete, model_ready
from modelready.outbox.table import NAME, OutboxEvent, table

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
    from sqlalchemy.orm import scoped_session
    from typing_extensions import Unpack

    AnySession = Session | AsyncSession | scoped_session[Session] | async_scoped_session[AsyncSession]

# Keys of Session.info.
_ADDED = f"{NAME}: added"
_WRITTEN = f"{NAME}: written"
_SET_ASIDE = f"{NAME}: set aside"


class Commits:
    """Calls its listeners after each commit of this process that wrote rows, in the thread that committed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: tuple[Callable[[], None], ...] = ()

    def listen(self, listener: Callable[[], None]) -> None:
        """Begin to call it."""
        with self._lock:
            self._listeners = (*self._listeners, listener)

    def forget(self, listener: Callable[[], None]) -> None:
        """Call it no more."""
        with self._lock:
            self._listeners = tuple(one for one in self._listeners if one != listener)

    def announce(self) -> None:
        """Call all of them."""
        for listener in self._listeners:
            listener()


commits = Commits()


def add(session: AnySession, **fields: Unpack[EventFields]) -> str:
    """Add the event that `modelready.model_ready(**fields)` makes to the session's transaction; return its event id.

    Nothing is sent before the commit, and nothing after a rollback, of a savepoint too. Add the event after the change
    that it announces; in a listener of SQLAlchemy, in `after_flush`. Raises InvalidEvent for an event that is too large
    for any sidecar.
    """
    values = _values(fields)
    row = OutboxEvent(values["event_id"], values["event"])
    session.add(row)
    within = object_session(row)
    assert within is not None
    within.info[_ADDED] = True
    return row.event_id


def insert(**fields: Unpack[EventFields]) -> Insert:
    """The INSERT that `add` makes, for a Connection or an AsyncConnection: `connection.execute(outbox.insert(…))`."""
    return insert_into(table).values(_values(fields))


def _values(fields: EventFields) -> dict[str, str]:
    message = complete(model_ready(**fields), "")
    # ASCII: no database has a character set that lacks it.
    return {"event_id": message.event_id, "event": MessageToJson(message, indent=None, ensure_ascii=True)}


# A row's id decides its place. So the id is taken last, when the rest of the flush has its locks: of two transactions
# that change one row of the registry, the second then has the higher id. All sessions have these listeners: to add one
# to a session within a listener of its own would end its flush.


@event.listens_for(Session, "before_flush")
def _before_flush(session: Session, *_: object) -> None:
    session.info.pop(_SET_ASIDE, None)  # of a flush that failed
    if not session.info.pop(_ADDED, False):
        return
    session.info[_WRITTEN] = True
    rows = [row for row in session.new if isinstance(row, OutboxEvent)]
    if len(rows) == len(session.new) and not session.dirty and not session.deleted:
        return  # nothing else is flushed
    for row in rows:
        session.expunge(row)
    session.info[_SET_ASIDE] = rows


@event.listens_for(Session, "after_flush")
def _after_flush(session: Session, *_: object) -> None:
    rows: list[OutboxEvent] = session.info.pop(_SET_ASIDE, [])
    if rows:
        connection = session.connection(bind_arguments={"mapper": OutboxEvent})
        connection.execute(insert_into(table), [{"event_id": row.event_id, "event": row.event} for row in rows])


@event.listens_for(Session, "after_commit")
def _after_commit(session: Session) -> None:
    if not session.in_nested_transaction() and session.info.pop(_WRITTEN, False):
        commits.announce()
