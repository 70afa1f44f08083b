"""Events that are published after the commit of a SQLAlchemy session, and not after a rollback."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction, scoped_session

from modelready.v1.event_pb2 import ModelReadyToDeploy

Publish = Callable[[ModelReadyToDeploy], object]

_KEY = "modelready: after the commit"


def after_commit(session: Session | scoped_session[Session], message: ModelReadyToDeploy, publish: Publish) -> None:
    """Call `publish` with the event after the commit of the session's transaction."""
    if isinstance(session, scoped_session):
        session = session()
    if not session.in_transaction():
        session.begin()
    transaction = session.get_nested_transaction() or session.get_transaction()
    session.info.setdefault(_KEY, []).append((transaction, message, publish))
    if not event.contains(session, "after_commit", _publish):
        event.listen(session, "after_commit", _publish)
        event.listen(session, "after_soft_rollback", _drop)
        event.listen(session, "after_transaction_end", _clear)


def _publish(session: Session) -> None:
    if not session.in_nested_transaction():
        for _, message, publish in session.info.pop(_KEY, ()):
            publish(message)


def _drop(session: Session, rolled_back: SessionTransaction) -> None:
    """A savepoint takes its own events back, and those of the savepoints within it."""
    kept = [entry for entry in session.info.get(_KEY, ()) if not _is_within(entry[0], rolled_back)]
    session.info[_KEY] = kept


def _clear(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:  # also by close(), which announces no rollback
        session.info.pop(_KEY, None)


def _is_within(transaction: SessionTransaction | None, other: SessionTransaction) -> bool:
    while transaction is not None:
        if transaction is other:
            return True
        transaction = transaction.parent
    return False
