"""A real MLflow server, a relay, a sidecar, Redis and a consumer that fetches the model."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import mlflow
import pytest

from clients.python.tests.mlflow_plugin.mlflow_server import MlflowServer
from clients.python.tests.mlflow_plugin.models import WEIGHTS, log_model
from modelready.consumer import Consumer
from modelready.v1.event_pb2 import ModelReadyToDeploy
from tests.harness.child import Child
from tests.harness.database_server import DatabaseServer
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess


@pytest.fixture
def started(postgresql: DatabaseServer, tmp_path: Path) -> Iterator[tuple[MlflowServer, RedisServer]]:
    """MLflow with four workers on PostgreSQL; a relay, a sidecar and Redis behind it."""
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        sidecar = stack.enter_context(SidecarProcess({"REDIS_HOST": redis.host, "REDIS_PORT": str(redis.port)}))
        server = stack.enter_context(MlflowServer(postgresql.url_of("psycopg2"), tmp_path, workers=4))
        relay = Child(
            [sys.executable, "-m", "modelready.outbox", "run", "--sidecar", sidecar.address],
            tmp_path / "relay.log",
            {**os.environ, "OUTBOX_URL": postgresql.url},
        )
        stack.callback(relay.kill)
        relay.start()
        yield server, redis


def received(redis: RedisServer, count: int) -> list[ModelReadyToDeploy]:
    """The first events that a new group gets."""
    events: list[ModelReadyToDeploy] = []
    env = {"REDIS_HOST": redis.host, "REDIS_PORT": str(redis.port), "REDIS_TLS": "false"}
    with Consumer.from_env(group="deployer", environ=env) as consumer:
        for delivery in consumer:
            with delivery as event:
                events.append(event)
            if len(events) == count:
                return events
    raise AssertionError("the consumer ended")


def test_a_consumer_of_an_alias_change_fetches_the_model_that_was_registered(
    started: tuple[MlflowServer, RedisServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, redis = started
    client = server.client()
    (tmp_path / "model").mkdir()
    run_id, source = log_model(client, tmp_path / "model")
    client.create_registered_model("fraud", tags={"team": "risk"})
    for _ in range(2):
        client.create_model_version("fraud", source, run_id, tags={"token_symbol": "BTC"})
    client.set_registered_model_alias("fraud", "champion", "1")
    client.set_registered_model_alias("fraud", "champion", "2")

    first, event = received(redis, 2)

    assert (first.model.version, first.promotion.previous_version) == ("1", "")
    assert (event.model.name, event.model.version, event.model.uri) == ("fraud", "2", "models:/fraud/2")
    assert (event.promotion.alias, event.promotion.previous_version) == ("champion", "1")
    assert event.artifact.uri == client.get_model_version_download_uri("fraud", "2")
    assert event.provenance.run_id == run_id
    assert dict(event.metrics) == {"auc": 0.93}
    assert dict(event.labels) == {"token_symbol": "BTC", "team": "risk"}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    fetched = Path(mlflow.artifacts.download_artifacts(event.artifact.uri, dst_path=str(tmp_path / "fetched")))
    assert (fetched / "model.pkl").read_bytes() == WEIGHTS
