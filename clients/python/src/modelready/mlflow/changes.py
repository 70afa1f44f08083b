"""What a transaction of MLflow's registry changes, as far as it makes a version ready."""

from __future__ import annotations

from typing import Any, NamedTuple

from mlflow.store.model_registry.dbmodels.models import SqlModelVersion, SqlModelVersionTag, SqlRegisteredModelAlias
from sqlalchemy import event, func, inspect, select, update
from sqlalchemy.orm import Session

from modelready.mlflow.settings import ALIAS, NOT_READY, STAGE, TAG, VERSION


class Change(NamedTuple):
    """One change: this version of the model got the alias, stage or tag `key`, or is new (then `key` is empty)."""

    kind: str
    name: str
    version: int
    key: str = ""
    value: str = ""
    previous: int | None = None
    workspace: str | None = None


class Changes:
    """Watches the flushes of one session. MLflow begins each operation with a session of its own."""

    def __init__(self, session: Session) -> None:
        self._found: dict[tuple[object, ...], Change] = {}
        self._tags: list[SqlModelVersionTag] = []
        self._archived: list[int] = []
        event.listen(session, "before_flush", self._before_flush)
        event.listen(session, "after_soft_rollback", self._forget)

    def found(self) -> list[Change]:
        """Those that were flushed and not rolled back."""
        # A new tag of a new version gets its version in the flush.
        tags = {(row.name, row.version, row.key): row for row in self._tags}.values()
        return [
            *self._found.values(),
            *(Change(TAG, row.name, int(row.version), row.key, row.value or "", None, _workspace(row)) for row in tags),
        ]

    def _forget(self, *_: object) -> None:
        self._found.clear()
        self._tags.clear()
        self._archived.clear()

    def _before_flush(self, session: Session, *_: object) -> None:
        for row in (*session.new, *session.dirty):
            if isinstance(row, SqlModelVersionTag) and _changed(row, "value"):
                self._tags.append(row)
            change = self._change(session, row)
            if change is not None:
                self._found[change.kind, change.workspace, change.name, change.version, change.key] = change

    def _change(self, session: Session, row: object) -> Change | None:
        if isinstance(row, SqlRegisteredModelAlias) and _changed(row, "version"):
            previous = _locked(session, row)
            if previous == int(row.version):
                return None  # another transaction has set it meanwhile
            return Change(ALIAS, row.name, int(row.version), row.alias, "", previous, _workspace(row))
        if isinstance(row, SqlModelVersion):
            if inspect(row).pending:
                return Change(VERSION, row.name, int(row.version), workspace=_workspace(row))
            if _changed(row, "current_stage"):
                return self._stage_change(session, row)
        return None

    def _stage_change(self, session: Session, row: SqlModelVersion) -> Change | None:
        if row.current_stage in NOT_READY:
            self._archived.append(int(row.version))  # MLflow archives the versions of a stage before it fills the stage
            return None
        others = [version for version in (*self._archived, _in_stage(session, row)) if version is not None]
        previous = max(others, default=None)
        return Change(STAGE, row.name, int(row.version), row.current_stage, "", previous, _workspace(row))


def _changed(row: Any, attribute: str) -> bool:
    history = inspect(row).attrs[attribute].history
    # A version that MLflow takes from a request may be text.
    return bool(history.added) and [str(one) for one in history.added] != [str(one) for one in history.deleted]


def _workspace(row: Any) -> str | None:
    return getattr(row, "workspace", None)


def same(row_class: Any, **columns: Any) -> list[Any]:
    """The conditions that find a row by these columns; MLflow before 3.10 has no workspaces."""
    if columns.get("workspace") is None:
        columns.pop("workspace", None)
    return [getattr(row_class, name) == value for name, value in columns.items()]


def _locked(session: Session, row: SqlRegisteredModelAlias) -> int | None:
    """The version that has the alias, None if none has. No other transaction changes it before this one ends.

    MLflow has read it before, without a lock: between, another transaction may have committed.
    """
    this = same(SqlRegisteredModelAlias, workspace=_workspace(row), name=row.name, alias=row.alias)
    with session.no_autoflush:
        if session.connection().dialect.name == "sqlite":  # has no FOR UPDATE; any write locks the database
            unchanged = update(SqlRegisteredModelAlias).where(*this).values(alias=row.alias)
            session.execute(unchanged.execution_options(synchronize_session=False))
        return session.execute(select(SqlRegisteredModelAlias.version).where(*this).with_for_update()).scalar()


def _in_stage(session: Session, row: SqlModelVersion) -> int | None:
    """The newest other version in the stage that this one gets."""
    others = same(SqlModelVersion, workspace=_workspace(row), name=row.name, current_stage=row.current_stage)
    with session.no_autoflush:
        newest = select(func.max(SqlModelVersion.version)).where(*others, SqlModelVersion.version != row.version)
        return session.execute(newest).scalar()
