"""A real MLflow server with four workers on PostgreSQL, a relay, a sidecar, Redis, and a consumer that fetches."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

from clients.python.tests.mlflow_plugin.mlflow_server import MlflowServer
from clients.python.tests.mlflow_plugin.models import WEIGHTS, log_model
from modelready import mlflow as plugin
from modelready.consumer import Consumer
from modelready.entry import decode
from modelready.v1.event_pb2 import ModelReadyToDeploy
from tests.harness.child import Child
from tests.harness.database_server import DatabaseServer
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until


class Running(NamedTuple):
    """A registry with all that is behind it."""

    server: MlflowServer
    database: DatabaseServer
    sidecar: SidecarProcess
    redis: RedisServer
    client: MlflowClient
    model: Path
    run_id: str
    source: str

    def register(self, name: str, versions: int = 2) -> None:
        """Register versions of the model that was logged."""
        self.client.create_registered_model(name, tags={"team": "risk"})
        for _ in range(versions):
            self.client.create_model_version(name, self.source, self.run_id, tags={"token_symbol": "BTC"})

    def events(self, name: str) -> list[ModelReadyToDeploy]:
        """Those of the model that are in the stream."""
        with self.redis.client() as client:
            events = [decode(fields) for _, fields in client.xrange("{model-ready}:events")]
        return [event for event in events if event.model.name == name]

    def arrived(self, name: str, count: int) -> list[ModelReadyToDeploy]:
        """Wait for that many events of the model."""
        until(lambda: len(self.events(name)) >= count, 30, f"{count} events of {name}")
        return self.events(name)


@pytest.fixture(scope="module")
def running(postgresql: DatabaseServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("running")
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        sidecar = stack.enter_context(SidecarProcess({"REDIS_HOST": redis.host, "REDIS_PORT": str(redis.port)}))
        server = stack.enter_context(MlflowServer(postgresql.url_of("psycopg2"), directory, workers=4))
        relay = Child(
            [sys.executable, "-m", "modelready.outbox", "run", "--sidecar", sidecar.address],
            directory / "relay.log",
            {**os.environ, "OUTBOX_URL": postgresql.url},
        )
        stack.callback(relay.kill)
        relay.start()
        model = directory / "model"
        model.mkdir()
        mlflow.set_tracking_uri(server.url)  # of those who fetch or log what this server serves
        stack.callback(mlflow.set_tracking_uri, None)
        run_id, source = log_model(server.client(), model)
        yield Running(server, postgresql, sidecar, redis, server.client(), model, run_id, source)


def fetched(event: ModelReadyToDeploy, directory: Path) -> bytes:
    """The model's weights, fetched as a deployer does."""
    return Path(
        mlflow.artifacts.download_artifacts(event.artifact.uri, dst_path=str(directory)), "model.pkl"
    ).read_bytes()


def test_a_consumer_of_an_alias_change_fetches_the_model_that_was_registered(running: Running, tmp_path: Path) -> None:
    running.register("fraud")
    for version in "12":
        running.client.set_registered_model_alias("fraud", "champion", version)

    env = {"REDIS_HOST": running.redis.host, "REDIS_PORT": str(running.redis.port), "REDIS_TLS": "false"}
    events: list[ModelReadyToDeploy] = []
    with Consumer.from_env(group="deployer", environ=env) as consumer:
        for delivery in consumer:
            with delivery as received:
                events.append(received)
            if len(events) == 2:
                break

    first, event = events
    assert (first.model.version, first.promotion.previous_version) == ("1", "")
    assert (event.model.name, event.model.version, event.model.uri) == ("fraud", "2", "models:/fraud/2")
    assert (event.promotion.alias, event.promotion.previous_version) == ("champion", "1")
    assert event.artifact.uri == running.client.get_model_version_download_uri("fraud", "2")
    assert event.provenance.run_id == running.run_id
    assert (event.runtime.framework, event.runtime.framework_version) == ("sklearn", "1.9.1")
    assert "amount" in event.runtime.signature
    assert dict(event.metrics) == {"auc": 0.93}
    assert dict(event.labels) == {"token_symbol": "BTC", "team": "risk"}
    assert fetched(event, tmp_path) == WEIGHTS


def test_each_of_concurrent_changes_names_the_version_before_it(running: Running) -> None:
    running.register("contended", 4)
    running.client.set_registered_model_alias(
        "contended", "champion", "4"
    )  # of two that make an alias MLflow fails one
    store = plugin.store(f"modelready+{running.database.url_of('psycopg2')}")

    def change(offset: int) -> None:
        for number in range(20):
            store.set_registered_model_alias("contended", "champion", 1 + (number + offset) % 4)

    threads = [threading.Thread(target=change, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.engine.dispose()
    last = str(running.client.get_registered_model("contended").aliases["champion"])
    until(lambda: running.events("contended")[-1].model.version == last, 30, "all arrive")
    events = running.events("contended")
    assert len(events) >= 20
    assert events[0].promotion.previous_version == ""
    for before, event in pairwise(events):
        assert event.promotion.previous_version == before.model.version != event.model.version


def reconcile(running: Running, state: Path, *options: str) -> str:
    """Run the command once; return what it logged."""
    command = [
        sys.executable,
        "-m",
        "modelready.reconcile",
        "--state",
        str(state),
        "--sidecar",
        running.sidecar.address,
    ]
    env = {**os.environ, "MLFLOW_TRACKING_URI": running.server.url, "MODELREADY_MLFLOW_MODELS": "watched*"}
    done = subprocess.run([*command, *options], env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_the_reconciliation_finds_what_no_plug_in_saw_and_doubles_nothing_beside_it(
    running: Running, tmp_path: Path
) -> None:
    running.register("watched", 3)
    running.client.set_registered_model_alias("watched", "champion", "1")
    state = tmp_path / "state.json"
    assert "0 events are published" in reconcile(running, state)
    running.client.set_registered_model_alias("watched", "champion", "2")
    assert len(running.arrived("watched", 2)) == 2

    assert "published watched version 2 as duplicate" in reconcile(running, state).lower()

    without = SqlAlchemyStore(running.database.url_of("psycopg2"))
    without.set_registered_model_alias("watched", "champion", 3)
    assert "published watched version 3 as stored" in reconcile(running, state).lower()
    assert "published" not in reconcile(running, state)
    events = running.events("watched")
    assert [event.model.version for event in events] == ["1", "2", "3"]
    by_plug_in, found = events[1:]
    assert found.promotion.previous_version == "2"
    assert fetched(found, tmp_path) == WEIGHTS
    for event in (by_plug_in, found):
        for varying in ("event_id", "occurred_at", "model", "promotion", "correlation_id", "traceparent"):
            event.ClearField(varying)
    assert found == by_plug_in


def test_the_reconciliation_goes_on_until_it_is_ended(running: Running, tmp_path: Path) -> None:
    running.register("watched-on", 1)
    command = [sys.executable, "-m", "modelready.reconcile", "--state", f"sqlite:///{tmp_path}/s.db", "--every", "0.2"]
    env = {**os.environ, "MLFLOW_TRACKING_URI": running.server.url, "MODELREADY_MLFLOW_MODELS": "watched-on"}
    child = Child([*command, "--sidecar", running.sidecar.address], tmp_path / "log", env)
    try:
        child.start()
        until(lambda: "first run" in child.output(), 60, "it began")
        SqlAlchemyStore(running.database.url_of("psycopg2")).set_registered_model_alias("watched-on", "champion", 1)
        running.arrived("watched-on", 1)
        assert child.terminate(60) == 0
    finally:
        child.kill()
