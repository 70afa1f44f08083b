"""MLflow's SQL store, with the outbox in its transactions.

Each operation of MLflow's store works in a session that `ManagedSessionMaker` makes, commits or rolls back. `_sessions`
stands between the two: it watches what the operation flushes, and adds the outbox rows before MLflow commits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import Engine, inspect
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from modelready import outbox
from modelready.mlflow.changes import Changes
from modelready.mlflow.events import Events, resolve
from modelready.mlflow.facts import logger
from modelready.mlflow.mlmodel import ModelFiles
from modelready.mlflow.settings import ALIAS, STAGE, TAG, Settings

PREFIX = "modelready+"

Sessions = Callable[..., AbstractContextManager[Session]]


class OutboxStore(SqlAlchemyStore):  # type: ignore[misc] # MLflow has no types here
    """MLflow's store of a registry, which adds an event to the transaction of each change that the settings name."""

    ManagedSessionMaker: Sessions

    def __init__(self, db_uri: str, settings: Settings, **options: Any) -> None:
        super().__init__(db_uri, **options)
        create_table(self.engine)
        self._settings = settings
        self._files = ModelFiles(settings.mlmodel_seconds)
        self._events = Events(settings, self._files)
        self._mlflow_sessions = self.ManagedSessionMaker
        self.ManagedSessionMaker = self._sessions

    @contextmanager
    def _sessions(self, *arguments: Any, **options: Any) -> Iterator[Session]:
        with self._mlflow_sessions(*arguments, **options) as session:
            changes = Changes(session)
            yield session
            session.flush()
            for change in changes.found():
                self._events.add(session, change)

    # These read the MLmodel file before the transaction, which then finds it read and holds its locks no longer.

    def set_registered_model_alias(self, name: str, alias: str, version: str | int) -> Any:
        """MLflow's own."""
        self._read_ahead(ALIAS, name, version, alias)
        return super().set_registered_model_alias(name, alias, version)

    def transition_model_version_stage(
        self, name: str, version: str | int, stage: str, *more: Any, **options: Any
    ) -> Any:
        """MLflow's own."""
        self._read_ahead(STAGE, name, version, stage.capitalize())
        return super().transition_model_version_stage(name, version, stage, *more, **options)

    def set_model_version_tag(self, name: str, version: str | int, tag: Any) -> Any:
        """MLflow's own."""
        self._read_ahead(TAG, name, version, tag.key, tag.value or "")
        return super().set_model_version_tag(name, version, tag)

    def _read_ahead(self, kind: str, name: str, version: str | int, key: str, value: str = "") -> None:
        if not self._settings.wants(kind, name, key, value):
            return
        with suppress(MlflowException):  # the operation meets the same
            place = self.get_model_version_download_uri(name, version) or ""
            if place.startswith("runs:"):
                with self._mlflow_sessions() as session:
                    place = resolve(session, place)
            self._files.describe(place)


def make(store_uri: str) -> SqlAlchemyStore:
    """The store of `modelready+<database URL>`. Raises ValueError for a wrong setting."""
    read_uri = os.environ.get("_MLFLOW_SERVER_READ_REPLICA_BACKEND_STORE")
    options = {"read_db_uri": read_uri} if read_uri else {}
    settings = Settings.from_env()
    made = _store_class()(store_uri.removeprefix(PREFIX), settings, **options)
    logger.info(
        "modelready: the outbox gets an event for: %s; models: %s", settings.events(), ", ".join(settings.models)
    )
    return made


def _store_class() -> type[OutboxStore]:
    if os.environ.get("MLFLOW_ENABLE_WORKSPACES", "").lower() not in {"true", "1"}:
        return OutboxStore
    from mlflow.store.workspace_aware_mixin import WorkspaceAwareMixin  # noqa: PLC0415 - from MLflow 3.10 on

    class WorkspaceOutboxStore(WorkspaceAwareMixin, OutboxStore):  # type: ignore[misc] # as above
        def _initialize_store_state(self) -> None:
            """Models of several workspaces are expected."""

    return WorkspaceOutboxStore


def create_table(engine: Engine) -> None:
    """Create the outbox table where it is missing. Several servers may start at once."""
    try:
        outbox.metadata.create_all(engine)
    except SQLAlchemyError:
        if not inspect(engine).has_table(outbox.table.name):
            raise
