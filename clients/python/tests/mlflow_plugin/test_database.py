"""What else MLflow does with its database: it upgrades it, reads from a replica, keeps runs and workspaces there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from google.protobuf.json_format import Parse
from mlflow.entities import RunStatus
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Runs
from sqlalchemy import create_engine, delete, inspect, select

from modelready import mlflow as plugin
from modelready import outbox
from modelready.v1.event_pb2 import ModelReadyToDeploy

BEFORE_ALIASES = "cc1f77228345"
"""A revision of MLflow's schema, of its version 2.0."""


@pytest.fixture
def url(database: bytes, tmp_path: Path) -> str:
    path = tmp_path / "mlflow.db"
    path.write_bytes(database)
    return f"sqlite:///{path}"


def events_of(url: str) -> list[ModelReadyToDeploy]:
    """The events in the outbox, which they leave."""
    engine = create_engine(url)
    with engine.begin() as connection:
        rows = connection.scalars(select(outbox.table.c.event).order_by(outbox.table.c.id)).all()
        connection.execute(delete(outbox.table))
    engine.dispose()
    return [Parse(row, ModelReadyToDeploy()) for row in rows]


def test_an_upgrade_of_mlflow_s_database_keeps_the_outbox(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/old.db"
    engine = create_engine(url)
    with engine.begin() as connection:
        InitialBase.metadata.create_all(connection)
        config = _get_alembic_config(url)
        config.attributes["connection"] = connection
        command.upgrade(config, BEFORE_ALIASES)
        assert "registered_model_aliases" not in inspect(connection).get_table_names()
        outbox.metadata.create_all(connection)
        connection.execute(outbox.insert(name="fraud", version=1, uri="s3://m/"))
    engine.dispose()
    upgrade = [sys.executable, "-m", "mlflow", "db", "upgrade", url]
    done = subprocess.run(upgrade, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert [event.model.name for event in events_of(url)] == ["fraud"]

    store = plugin.store(f"modelready+{url}")
    store.create_registered_model("fraud")
    store.create_model_version("fraud", "s3://models/fraud")
    store.set_registered_model_alias("fraud", "champion", 1)
    store.engine.dispose()
    assert [event.promotion.alias for event in events_of(url)] == ["champion"]


def test_a_source_that_names_a_run_is_resolved(url: str, tmp_path: Path) -> None:
    runs = Runs(url, f"{tmp_path}/artifacts")
    run = runs.create_run("0", "someone", 0, [], "a run")
    runs.update_run_info(run.info.run_id, RunStatus.FINISHED, 1, None)
    runs.engine.dispose()
    store = plugin.store(f"modelready+{url}")
    store.create_registered_model("fraud")
    store.create_model_version("fraud", f"runs:/{run.info.run_id}/model", run.info.run_id)
    store.set_registered_model_alias("fraud", "champion", 1)
    store.engine.dispose()
    (event,) = events_of(url)
    assert event.artifact.uri == f"{run.info.artifact_uri}/model"


def test_a_read_replica_that_is_behind_makes_no_difference(
    url: str, database: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = tmp_path / "replica.db"
    replica.write_bytes(database)
    pytest.importorskip("mlflow.store.workspace_aware_mixin")  # older versions have no replica either
    monkeypatch.setenv("_MLFLOW_SERVER_READ_REPLICA_BACKEND_STORE", f"sqlite:///{replica}")
    store = plugin.store(f"modelready+{url}")
    assert store.read_engine is not None
    store.create_registered_model("fraud")
    for version in "12":
        store.create_model_version("fraud", f"s3://models/fraud/{version}")
        store.set_registered_model_alias("fraud", "champion", version)
    store.read_engine.dispose()
    store.engine.dispose()
    first, second = events_of(url)
    assert (first.artifact.uri, second.artifact.uri) == ("s3://models/fraud/1", "s3://models/fraud/2")
    assert second.promotion.previous_version == "1"
    assert not inspect(create_engine(f"sqlite:///{replica}")).has_table(outbox.table.name)


def test_a_model_of_one_workspace_is_not_that_of_another(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    context = pytest.importorskip("mlflow.utils.workspace_context")  # from MLflow 3.10 on
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    store = plugin.store(f"modelready+{url}")
    for workspace, versions in (("blue", 2), ("green", 1)):
        with context.WorkspaceContext(workspace):
            store.create_registered_model("fraud")
            for version in range(1, versions + 1):
                store.create_model_version("fraud", f"s3://{workspace}/{version}")
                store.set_registered_model_alias("fraud", "champion", version)
    store.engine.dispose()
    assert [(event.artifact.uri, event.promotion.previous_version) for event in events_of(url)] == [
        ("s3://blue/1", ""),
        ("s3://blue/2", "1"),
        ("s3://green/1", ""),
    ]
