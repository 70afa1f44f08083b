"""Makes the event of a change, and adds it to the change's transaction."""

from __future__ import annotations

from typing import Any

from mlflow.store.model_registry.dbmodels.models import SqlModelVersion, SqlModelVersionTag, SqlRegisteredModelTag
from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlRun
from sqlalchemy import select
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import Session

from modelready import outbox
from modelready.ids import uuid7
from modelready.mlflow import facts
from modelready.mlflow.changes import Change, same
from modelready.mlflow.mlmodel import ModelFiles, direct
from modelready.mlflow.settings import TAG, VERSION, Settings

MAX_TAG_KEY = 250
"""MLflow's, for the tags of a version."""


class Events:
    """Adds the events that the settings ask for."""

    def __init__(self, settings: Settings, files: ModelFiles) -> None:
        self._settings = settings
        self._files = files

    def add(self, session: Session, change: Change) -> None:
        """Add the change's event, if it is to have one. Raises SQLAlchemy's errors alone."""
        if not self._settings.wants(change.kind, change.name, change.key, change.value):
            return
        model = {"workspace": change.workspace, "name": change.name}
        chosen = select(SqlModelVersion).where(*same(SqlModelVersion, **model, version=change.version))
        row = session.scalars(chosen).one()
        version_tags = _tags(session, SqlModelVersionTag, **model, version=change.version)
        model_tags = _tags(session, SqlRegisteredModelTag, **model)
        tags = {**model_tags, **version_tags}
        if facts.is_prompt(tags) or not self._settings.admits(tags):
            return
        place = resolve(session, row.storage_location or row.source or "")
        if not place:
            facts.log_once("version %d of model %s has no source, so it gets no event", change.version, change.name)
            return
        fields = facts.fields(
            change.name,
            change.version,
            direct(place) if self._settings.artifacts == "direct" else place,
            described=self._files.describe(place),
            version_tags=version_tags,
            model_tags=model_tags,
        )
        fields["source"] = self._settings.source
        fields["run_id"] = row.run_id or ""
        fields["metrics"] = _metrics(session, row.run_id)
        if change.kind not in {TAG, VERSION}:
            fields["alias"] = change.key
            fields["previous_version"] = "" if change.previous is None else change.previous
        fields["event_id"] = self._event_id(session, change, row)
        outbox.add(session, **fields)

    def _event_id(self, session: Session, change: Change, row: Any) -> str:
        if change.kind == VERSION:
            return facts.event_id(self._settings.source, VERSION, change.name, change.version, row.creation_time)
        event_id = uuid7()
        key = facts.marker(change.kind, change.key)
        if len(key) <= MAX_TAG_KEY:
            workspace = {} if change.workspace is None else {"workspace": change.workspace}
            _put_tag(session, name=change.name, version=change.version, key=key, value=event_id, **workspace)
        return event_id


def _put_tag(session: Session, **columns: Any) -> None:
    """Write a version's tag. One statement: MySQL shows a transaction no tag that another has committed meanwhile."""
    table: Any = SqlModelVersionTag.__table__
    dialect = session.connection().dialect.name
    if dialect in {"mysql", "mariadb"}:
        session.execute(mysql.insert(table).values(columns).on_duplicate_key_update(value=columns["value"]))
        return
    insert = (sqlite if dialect == "sqlite" else postgresql).insert(table).values(columns)
    key = [column.name for column in table.primary_key.columns]
    session.execute(insert.on_conflict_do_update(index_elements=key, set_={"value": columns["value"]}))


def resolve(session: Session, uri: str) -> str:
    """The place itself where `uri` is that of a run's artifact, `runs:/<run id>/<path>`."""
    scheme, _, rest = uri.partition(":/")
    if scheme != "runs":
        return uri
    run_id, _, path = rest.lstrip("/").partition("/")
    place = session.execute(select(SqlRun.artifact_uri).where(SqlRun.run_uuid == run_id)).scalar()
    return f"{place.rstrip('/')}/{path}" if place else uri


def _tags(session: Session, row_class: Any, **this: Any) -> dict[str, str]:
    chosen = select(row_class.key, row_class.value).where(*same(row_class, **this))
    return {key: value or "" for key, value in session.execute(chosen)}


def _metrics(session: Session, run_id: str | None) -> dict[str, float]:
    if not run_id:
        return {}
    numbers = SqlLatestMetric.is_nan.is_(False)
    chosen = select(SqlLatestMetric.key, SqlLatestMetric.value).where(SqlLatestMetric.run_uuid == run_id, numbers)
    return facts.metrics((key, value) for key, value in session.execute(chosen))
