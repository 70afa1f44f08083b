"""MLflow's server, the relay, the sidecar and Redis are killed: each committed change of an alias arrives, once."""

from __future__ import annotations

import itertools
import json
import os
import random
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import mlflow
import pytest
from sqlalchemy import create_engine, text

from clients.python.tests.mlflow_plugin.mlflow_server import FORKED, MlflowServer
from clients.python.tests.mlflow_plugin.models import log_model
from modelready.entry import decode
from tests.harness.child import Child
from tests.harness.database_server import DatabaseServer
from tests.harness.databases import status
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until

KILLS = 20
MODELS, WRITERS, VERSIONS = 3, 6, 5
# Written in the transaction that changes the alias, by whichever client: what is in it has been committed.
AUDIT = """
CREATE TABLE audit (id bigserial PRIMARY KEY, name text, alias text, version int);
CREATE FUNCTION audit_alias() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO audit (name, alias, version) VALUES (NEW.name, NEW.alias, NEW.version); RETURN NEW; END $$;
CREATE TRIGGER audit_insert AFTER INSERT ON registered_model_aliases FOR EACH ROW EXECUTE FUNCTION audit_alias();
CREATE TRIGGER audit_update AFTER UPDATE ON registered_model_aliases FOR EACH ROW
    WHEN (OLD.version <> NEW.version) EXECUTE FUNCTION audit_alias();
"""


class Writers:
    """Threads that change aliases, several of them the same one, until they are stopped. They do not try again."""

    def __init__(self, url: str) -> None:
        self.acknowledged = self.failed = 0
        self._url = f"{url}/api/2.0/mlflow/registered-models/alias"
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(WRITERS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _write(self, number: int) -> None:
        for attempt in itertools.count(number):
            if self._stopping.is_set():
                return
            # Every seventh names a version that is not there, and is rolled back.
            version = 99 if attempt % 7 == 6 else 1 + attempt % VERSIONS
            body = {"name": f"m{number % MODELS}", "alias": f"a{number % 2}", "version": str(version)}
            request = urllib.request.Request(
                self._url, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
            )
            try:
                with urllib.request.urlopen(request, timeout=30):
                    self.acknowledged += 1
            except OSError:
                self.failed += 1
                time.sleep(0.05)  # the server is away


@pytest.mark.soak
@pytest.mark.chaos
def test_each_committed_change_arrives_once_and_in_order_whatever_is_killed(
    postgresql: DatabaseServer, tmp_path: Path
) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(appendonly=True))
        sidecar = stack.enter_context(SidecarProcess({"REDIS_HOST": redis.host, "REDIS_PORT": str(redis.port)}))
        server = stack.enter_context(MlflowServer(postgresql.url_of("psycopg2"), tmp_path, workers=4, options=FORKED))
        engine = create_engine(postgresql.url)
        with engine.begin() as connection:
            connection.execute(text(AUDIT))
        client = server.client()
        mlflow.set_tracking_uri(server.url)  # to log a model
        stack.callback(mlflow.set_tracking_uri, None)
        model = tmp_path / "model"
        model.mkdir()
        run_id, source = log_model(client, model)
        for name in range(MODELS):
            client.create_registered_model(f"m{name}")
            for _ in range(VERSIONS):
                client.create_model_version(f"m{name}", source, run_id)
        relay = Child(
            [sys.executable, "-m", "modelready.outbox", "run", "--sidecar", sidecar.address],
            tmp_path / "relay.log",
            {**os.environ, "OUTBOX_URL": postgresql.url},
        )
        stack.callback(relay.kill)
        relay.start()
        writers = Writers(server.url)
        stack.callback(writers.stop)
        writers.start()
        for number in range(KILLS):
            before = writers.acknowledged
            until(lambda: writers.acknowledged > before + 5, 60, f"MLflow works\n{server.tail()}")  # noqa: B023
            time.sleep(chance.uniform(0.0, 1.0))  # a kill may meet any point of a transaction
            other = (relay, sidecar, redis)[number % 3]
            other.kill()
            server.kill()
            if other is sidecar:
                sidecar.start("listening", seconds=60)
            else:
                other.start()
            server.start()
        writers.stop()
        until(lambda: status(engine)[0] == 0, 90, f"the outbox is empty\n{relay.tail()}")
        assert status(engine).failed == 0
        with redis.client() as connected:
            events = [decode(fields) for _, fields in connected.xrange("{model-ready}:events")]
        with engine.connect() as connection:
            audit = connection.execute(text("SELECT name, alias, version FROM audit ORDER BY id")).all()
        engine.dispose()

    ids = [event.event_id for event in events]
    assert len(ids) == len(set(ids)), "an event is in the stream twice"
    committed, arrived = defaultdict(list), defaultdict(list)
    for name, alias, version in audit:
        committed[name, alias].append(str(version))
    for event in events:
        arrived[event.model.name, event.promotion.alias].append(event.model.version)
        before_it = ["", *arrived[event.model.name, event.promotion.alias]][-2]
        assert event.promotion.previous_version == before_it
    assert arrived == committed
    assert len(events) > KILLS * 5
    print(
        f"seed {seed}, {KILLS} kills of the server: {len(audit)} changes committed, {len(events)} arrived, 0 lost, "
        f"0 doubled; {writers.acknowledged} requests acknowledged, {writers.failed} refused or cut"
    )
