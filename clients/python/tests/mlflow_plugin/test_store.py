"""The plug-in's store, on SQLite: which changes make an event, and what these say."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import Parse
from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag
from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from mlflow.version import VERSION
from sqlalchemy import create_engine, select, text

from clients.python.tests.mlflow_plugin.models import MLMODEL
from modelready import mlflow as plugin
from modelready import outbox
from modelready.mlflow import facts
from modelready.v1.event_pb2 import ModelReadyToDeploy

Make = Callable[..., SqlAlchemyStore]


@pytest.fixture
def make(database: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes a store with these variables, without their prefix; each has the model "fraud" with three versions."""
    made: list[SqlAlchemyStore] = []

    def store(**variables: str) -> SqlAlchemyStore:
        path = tmp_path / f"{len(made)}.db"
        path.write_bytes(database)
        for name, value in variables.items():
            monkeypatch.setenv(f"MODELREADY_MLFLOW_{name}", value)
        made.append(plugin.store(f"modelready+sqlite:///{path}"))
        made[-1].create_registered_model("fraud")
        for version in "123":
            made[-1].create_model_version("fraud", f"{tmp_path}/models/{version}")
        return made[-1]

    yield store
    for one in made:
        one.engine.dispose()


def events(store: SqlAlchemyStore) -> list[ModelReadyToDeploy]:
    with store.engine.connect() as connection:
        rows = connection.scalars(select(outbox.table.c.event).order_by(outbox.table.c.id))
        return [Parse(row, ModelReadyToDeploy()) for row in rows]


def told(store: SqlAlchemyStore) -> list[tuple[str, str, str, str]]:
    return [
        (event.model.name, event.model.version, event.promotion.alias, event.promotion.previous_version)
        for event in events(store)
    ]


def test_an_alias_that_is_set_makes_an_event_with_the_version_to_roll_back_to(make: Make) -> None:
    store = make()
    assert told(store) == []
    for version in (1, 2, 2, "1"):
        store.set_registered_model_alias("fraud", "champion", version)
    store.set_registered_model_alias("fraud", "challenger", 3)
    assert told(store) == [
        ("fraud", "1", "champion", ""),
        ("fraud", "2", "champion", "1"),
        ("fraud", "1", "champion", "2"),
        ("fraud", "3", "challenger", ""),
    ]
    assert len({event.event_id for event in events(store)}) == 4


def test_what_is_rolled_back_makes_no_event(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make(EVENTS="alias,version,tag:validated")
    before = events(store)
    with pytest.raises(MlflowException):
        store.set_registered_model_alias("fraud", "champion", 9)
    with store.engine.begin() as connection:
        refuse = "CREATE TRIGGER refuse BEFORE INSERT ON {} BEGIN SELECT RAISE(ABORT, 'refused'); END"
        for table in ("registered_model_aliases", "model_versions"):
            connection.execute(text(refuse.replace("refuse ", f"refuse_{table} ").format(table)))
    with pytest.raises(MlflowException):
        store.set_registered_model_alias("fraud", "champion", 1)
    with pytest.raises(MlflowException):
        store.create_model_version("fraud", "s3://models/4")
    # After the flush, and with the row of the outbox in it.
    monkeypatch.setattr(store._events, "_event_id", lambda *_: 1 / 0)
    with pytest.raises(MlflowException):
        store.set_model_version_tag("fraud", 1, ModelVersionTag("validated", "true"))
    assert events(store) == before
    assert "validated" not in store.get_model_version("fraud", 1).tags


def test_a_failed_outbox_row_leaves_no_change_either(make: Make) -> None:
    store = make()
    with store.engine.begin() as connection:
        connection.execute(text("DROP TABLE modelready_outbox"))
    with pytest.raises(MlflowException):
        store.set_registered_model_alias("fraud", "champion", 1)
    assert store.get_registered_model("fraud").aliases == {}


@pytest.mark.skipif(VERSION.startswith("2."), reason="MLflow 2 does not get over the collision")
def test_a_version_that_is_retried_after_a_collision_makes_one_event(make: Make) -> None:
    store = make(EVENTS="version")
    with store.engine.begin() as connection:
        connection.execute(text("DELETE FROM modelready_outbox"))
    # The first INSERT meets a row that another server has just committed.
    execute = store.engine.dialect.do_execute
    raised: list[str] = []

    def collide(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        execute(cursor, statement, parameters, context)
        if statement.startswith("INSERT INTO model_versions") and not raised:
            raised.append(statement)
            raise context.dialect.dbapi.IntegrityError("UNIQUE constraint failed")

    store.engine.dialect.do_execute = collide
    try:
        store.create_model_version("fraud", "s3://models/fraud/4", tags=[ModelVersionTag("a", "b")])
    finally:
        store.engine.dialect.do_execute = execute
    assert raised
    assert told(store) == [("fraud", "4", "", "")]
    assert events(store)[0].artifact.uri == "s3://models/fraud/4"


def test_stages_and_tags_make_events_where_they_are_asked_for(make: Make) -> None:
    store = make(EVENTS="stage:Production, tag:validated=pass*")
    store.transition_model_version_stage("fraud", "1", "production", archive_existing_versions=False)
    store.transition_model_version_stage("fraud", "2", "Staging", archive_existing_versions=False)
    store.transition_model_version_stage("fraud", "2", "Production", archive_existing_versions=True)
    store.set_model_version_tag("fraud", "3", ModelVersionTag("validated", "failed"))
    store.set_model_version_tag("fraud", "3", ModelVersionTag("validated", "passed"))
    store.set_model_version_tag("fraud", "3", ModelVersionTag("validated", "passed"))
    store.set_registered_model_alias("fraud", "champion", 1)
    assert told(store) == [
        ("fraud", "1", "Production", ""),
        ("fraud", "2", "Production", "1"),
        ("fraud", "3", "", ""),
    ]


def test_models_aliases_and_tags_are_filtered(make: Make) -> None:
    store = make(EVENTS="alias:champ*", MODELS="fra*,churn", TAGS="team=risk,reviewed")
    store.create_registered_model("other", tags=[RegisteredModelTag("team", "risk")])
    tags = [ModelVersionTag("reviewed", "")]
    store.create_model_version("other", "s3://m", tags=tags)
    store.create_model_version("fraud", "s3://m", tags=[*tags, ModelVersionTag("team", "risk")])
    for name, alias, version in [
        ("other", "champion", 1),
        ("fraud", "challenger", 4),
        ("fraud", "champion", 1),
        ("fraud", "champion", 4),
    ]:
        store.set_registered_model_alias(name, alias, version)
    assert told(store) == [("fraud", "4", "champion", "1")]


def test_a_tag_of_a_new_version_makes_an_event_where_tags_do(make: Make) -> None:
    store = make(EVENTS="tag:validated")
    store.create_model_version("fraud", "s3://m", tags=[ModelVersionTag("validated", "true")])
    assert told(store) == [("fraud", "4", "", "")]


def test_prompts_make_no_events(make: Make) -> None:
    store = make(EVENTS="alias,version")
    before = events(store)
    prompt = ("mlflow.prompt.is_prompt", "true")
    store.create_registered_model("greeting", tags=[RegisteredModelTag(*prompt)])
    store.create_model_version("greeting", "prompt-template", tags=[ModelVersionTag(*prompt)])
    store.set_registered_model_alias("greeting", "champion", 1)
    assert events(store) == before


def test_the_event_says_what_a_deployer_needs(make: Make, tmp_path: Path) -> None:
    store = make(SOURCE="//mlflow.test")
    model = tmp_path / "models" / "1"
    model.mkdir(parents=True)
    (model / "MLmodel").write_text(MLMODEL)
    store.set_model_version_tag("fraud", 1, ModelVersionTag("team", "risk"))
    store.set_model_version_tag("fraud", 1, ModelVersionTag(facts.DIGEST_TAG, "ab" * 32))
    store.set_registered_model_alias("fraud", "champion", 1)
    (event,) = events(store)
    assert event.source == "//mlflow.test"
    assert event.artifact.uri == str(model)
    assert event.artifact.digest == f"sha256:{'ab' * 32}"
    assert (event.artifact.media_type, event.artifact.size_bytes) == (facts.MEDIA_TYPE, 7)
    assert (event.runtime.framework, event.runtime.framework_version) == ("sklearn", "1.9.1")
    assert '\\"name\\": \\"amount\\"' in event.runtime.signature
    assert dict(event.labels) == {"team": "risk"}


def test_odd_tags_are_cut_or_left_out_and_the_change_stands(
    make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts._logged.clear()
    monkeypatch.setattr(logging.getLogger("mlflow"), "propagate", True)  # to caplog
    store = make()
    for tag in [ModelVersionTag("k" * 200, "v"), ModelVersionTag("long", "ü" * 5000), ModelVersionTag("none", "")]:
        store.set_model_version_tag("fraud", 1, tag)
    for number in range(80):
        store.set_model_version_tag("fraud", 1, ModelVersionTag(f"many-{number:02}", "x"))
    with caplog.at_level(logging.WARNING, "mlflow.modelready"):
        store.set_registered_model_alias("fraud", "champion", 1)
        store.set_registered_model_alias("fraud", "other", 1)
    first, _ = events(store)
    assert len(first.labels) == 64
    assert first.labels["long"] == "ü" * 1024
    assert "k" * 200 not in first.labels
    assert len({record.message for record in caplog.records if "limit" in record.message}) == 2
    assert store.get_registered_model("fraud").aliases == {"champion": 1, "other": 1}


def test_the_version_holds_the_id_of_its_event(make: Make) -> None:
    store = make()
    store.set_registered_model_alias("fraud", "champion", 1)
    (event,) = events(store)
    assert store.get_model_version("fraud", 1).tags == {"modelready.alias.champion": event.event_id}


def test_the_table_is_made_at_the_start_and_left_alone_afterwards(make: Make) -> None:
    store = make()
    store.set_registered_model_alias("fraud", "champion", 1)
    plugin.store(f"modelready+{store.engine.url}").engine.dispose()
    assert len(events(store)) == 1
    assert create_engine(store.engine.url).connect().execute(text("SELECT 1")).scalar() == 1


def test_a_wrong_setting_ends_the_start(make: Make) -> None:
    with pytest.raises(ValueError, match="MODELREADY_MLFLOW_EVENTS: 'aliases' is none of alias,"):
        make(EVENTS="aliases")
