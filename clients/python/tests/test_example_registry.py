"""The example registry, as a process of its own beside a real sidecar: what it promotes is in the stream, once."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.orm import Session

from modelready import Publisher, outbox
from modelready.entry import decode
from modelready.v1.event_pb2 import ModelReadyToDeploy
from registry import changes
from registry.errors import NotImproved
from registry.tables import Base, Model, Promotion, Version
from tests.harness.child import Child, Started
from tests.harness.databases import server as database_server
from tests.harness.ports import LOOPBACK, PortLease
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import patience, until

EXAMPLES = Path(__file__).parents[1] / "examples"
STREAM = "{model-ready}:events"
NEW = {"uri": "s3://models/fraud/"}


class Registry(Started):
    """The example as its README starts it, on a free port. `api` is a call: status and body."""

    def __init__(self, directory: Path, env: dict[str, str], workers: int = 1) -> None:
        self._lease = PortLease()
        self._env = {**os.environ, "PYTHONPATH": str(EXAMPLES), **env}
        self._log = directory / "registry.log"
        self._created = False
        self._tables = self._run("registry.tables")
        self._child = self._run(
            "uvicorn", "registry.app:app", "--port", str(self._lease.port), "--workers", str(workers)
        )

    def _run(self, *module: str) -> Child:
        return Child([sys.executable, "-m", *module], self._log, self._env)

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self._lease.port}"

    @property
    def running(self) -> bool:
        return self._child.running

    def start(self) -> None:
        if not self._created:
            self._tables.start()
            assert self._tables.process.wait(patience(30)) == 0, self._tables.tail()
            self._created = True
        self._child.start()
        until(lambda: self.api("GET", "/healthz"), 30, f"the registry answers\n{self._child.tail()}")

    def kill(self) -> None:
        self._child.kill()

    def close(self) -> None:
        if self._child.running:
            self._child.terminate(30)  # with its workers
        self._lease.release()

    def api(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        request = urllib.request.Request(
            f"http://{self.address}{path}",
            None if body is None else json.dumps(body).encode(),
            {"content-type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def create(self, name: str, *metrics: float) -> None:
        """A model, and a version with each of these values of auc."""
        assert self.api("POST", "/models", {"name": name})[0] == 201
        for auc in metrics:
            self.register(name, metrics={"auc": auc})

    def register(self, name: str, **fields: object) -> int:
        status, body = self.api("POST", f"/models/{name}/versions", NEW | fields)
        assert status == 201, body
        return int(body["version"])

    def promote(self, name: str, version: int, **fields: object) -> tuple[int, Any]:
        return self.api("PUT", f"/models/{name}/aliases/champion", {"version": version, **fields})

    def waiting(self) -> int:
        status, body = self.api("GET", "/healthz")
        assert status == 200
        return int(body["waiting"])


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer(appendonly=True) as server:
        yield server


@pytest.fixture
def sidecar(redis: RedisServer) -> Iterator[SidecarProcess]:
    with SidecarProcess({"REDIS_HOST": redis.host, "REDIS_PORT": str(redis.port)}) as process:
        yield process


@contextmanager
def running(directory: Path, sidecar: SidecarProcess, url: str = "", workers: int = 1) -> Iterator[Registry]:
    env = {"DATABASE_URL": url or f"sqlite:///{directory}/registry.db", "MODELREADY_SIDECAR": sidecar.address}
    with Registry(directory, env, workers) as registry:
        yield registry


@pytest.fixture
def registry(tmp_path: Path, sidecar: SidecarProcess) -> Iterator[Registry]:
    with running(tmp_path, sidecar) as process:
        yield process


@pytest.fixture
def engine() -> Engine:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    outbox.metadata.create_all(engine)
    return engine


def stream(redis: RedisServer) -> list[ModelReadyToDeploy]:
    with redis.client() as client:
        return [decode(fields) for _, fields in client.xrange(STREAM)]


def arrived(redis: RedisServer, *versions: int) -> list[ModelReadyToDeploy]:
    """Wait until the stream has these versions, in this order and once."""
    expected = [str(version) for version in versions]
    until(lambda: [event.model.version for event in stream(redis)] == expected, 30, f"versions {expected}")
    return stream(redis)


@pytest.mark.parametrize(
    "kind", ["sqlite", *(pytest.param(kind, marks=pytest.mark.soak) for kind in ("postgresql", "mysql"))]
)
def test_what_is_promoted_and_rolled_back_is_published(
    kind: str, tmp_path: Path, redis: RedisServer, sidecar: SidecarProcess
) -> None:
    if kind == "sqlite":
        with running(tmp_path, sidecar) as registry:
            promote_and_roll_back(registry, redis)
    else:
        with database_server(kind) as database, running(tmp_path, sidecar, database.url) as registry:
            promote_and_roll_back(registry, redis)


def promote_and_roll_back(registry: Registry, redis: RedisServer) -> None:
    digest = f"sha256:{'0' * 64}"
    registry.create("fraud", 0.91)
    registry.register("fraud", metrics={"auc": 0.93}, digest=digest, framework="xgboost", run_id="r2")
    assert registry.promote("fraud", 1) == (200, {"name": "fraud", "version": 1, "alias": "champion"})
    assert registry.promote("fraud", 2, must_improve="auc", approved_by="kim")[0] == 200
    assert registry.promote("fraud", 2)[0] == 200  # it is so already: no event
    assert registry.api("POST", "/models/fraud/aliases/champion/rollback", {"reason": "latency"})[1]["version"] == 1
    assert registry.api("GET", "/models/fraud")[1] == {
        "name": "fraud", "versions": [1, 2], "aliases": {"champion": 1}
    }  # fmt: skip
    first, second, third = arrived(redis, 1, 2, 1)
    assert [event.promotion.previous_version for event in (first, second, third)] == ["", "1", "2"]
    assert {event.promotion.alias for event in (first, second, third)} == {"champion"}
    assert (second.artifact.uri, second.artifact.digest) == ("s3://models/fraud/", digest)
    assert (second.runtime.framework, second.provenance.run_id) == ("xgboost", "r2")
    evaluation = second.evaluation
    assert (evaluation.metric_name, evaluation.baseline_value, evaluation.current_value) == ("auc", 0.91, 0.93)
    assert (dict(second.metrics), second.promotion.approved_by) == ({"auc": 0.93}, "kim")
    assert (third.promotion.reason, third.source) == ("latency", "//example-registry")


def test_the_commands_of_its_readme(registry: Registry, redis: RedisServer) -> None:
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    (commands,) = re.findall(r"```sh\n(.*?)```", (EXAMPLES / "registry/README.md").read_text(), re.DOTALL)
    commands = commands.replace("127.0.0.1:8000", registry.address).replace(
        "curl ", "curl --fail --silent --noproxy '*' "
    )
    done = subprocess.run(["sh", "-ec", commands], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    _, second, third = arrived(redis, 1, 2, 1)
    assert (second.evaluation.baseline_value, second.evaluation.current_value) == (0.91, 0.93)
    assert (third.promotion.previous_version, third.promotion.reason) == ("2", "too slow")


def test_a_registration_that_is_ready_is_published(registry: Registry, redis: RedisServer) -> None:
    registry.create("fraud", 0.9)  # not ready
    registry.register("fraud", ready=True)
    arrived(redis, 2)


def test_a_metric_that_did_not_improve_refuses_the_promotion(registry: Registry, redis: RedisServer) -> None:
    registry.create("fraud", 0.91, 0.9, 0.92)
    assert registry.promote("fraud", 1, must_improve="auc")[0] == 200
    assert registry.promote("fraud", 2, must_improve="auc") == (
        409,
        {"detail": "auc of fraud 2 is 0.9, no better than 0.91 of version 1"},
    )
    assert registry.api("GET", "/models/fraud")[1]["aliases"] == {"champion": 1}
    assert registry.promote("fraud", 3, must_improve="auc")[0] == 200
    arrived(redis, 1, 3)


@pytest.mark.parametrize(
    ("before", "after", "lower_is_better", "refusal"),
    [
        (None, {"auc": 0.9}, False, ""),
        (None, {}, False, "fraud 2 has no metric auc"),
        ({}, {"auc": 0.9}, False, "fraud 1, the baseline, has no metric auc"),
        ({"auc": 0.9}, {"auc": 0.9}, False, "no better than 0.9 of version 1"),
        ({"auc": 0.9}, {"auc": 0.8}, True, ""),
        ({"auc": 0.9}, {"auc": 0.9}, True, "no better than 0.9"),
    ],
)
def test_what_counts_as_an_improvement(
    before: dict[str, float] | None,
    after: dict[str, float],
    lower_is_better: bool,
    refusal: str,
    engine: Engine,
) -> None:
    with Session(engine) as session:
        changes.create_model(session, "fraud")
        changes.register(session, "fraud", uri="s3://m/", metrics=before)
        changes.register(session, "fraud", uri="s3://m/", metrics=after)
        if before is not None:
            changes.promote(session, "fraud", "champion", 1)
        if refusal:
            with pytest.raises(NotImproved, match=refusal):
                changes.promote(session, "fraud", "champion", 2, must_improve="auc", lower_is_better=lower_is_better)
        else:
            changes.promote(session, "fraud", "champion", 2, must_improve="auc", lower_is_better=lower_is_better)


def test_what_is_not_there_and_what_is_there_already(registry: Registry) -> None:
    assert registry.promote("fraud", 1) == (404, {"detail": "there is no model fraud"})
    registry.create("fraud", 0.9)
    assert registry.api("POST", "/models", {"name": "fraud"})[0] == 409
    assert registry.promote("fraud", 2) == (404, {"detail": "fraud has no version 2"})
    path = "/models/fraud/aliases/champion/rollback"
    assert registry.api("POST", path, {}) == (404, {"detail": "fraud has no alias champion"})
    assert registry.promote("fraud", 1)[0] == 200
    assert registry.api("POST", path, {}) == (409, {"detail": "fraud had no version as champion before 1"})
    assert registry.api("GET", "/models/fraud")[1]["aliases"] == {"champion": 1}
    assert registry.api("POST", "/models/fraud/versions", NEW | {"digest": "md5:0"})[0] == 422
    assert registry.api("POST", "/models/fraud/versions", {"uri": "s3://key:secret@models/"})[0] == 422


def test_a_transaction_that_is_rolled_back_publishes_nothing(
    engine: Engine, redis: RedisServer, sidecar: SidecarProcess
) -> None:
    with Session(engine) as session, session.begin():
        changes.create_model(session, "fraud")
        for _ in range(2):
            changes.register(session, "fraud", uri="s3://m/")
    with Session(engine) as session:
        changes.promote(session, "fraud", "champion", 1)
        session.flush()
        session.rollback()
        changes.promote(session, "fraud", "champion", 2)
        session.commit()
    with Publisher(sidecar.address) as publisher:
        assert outbox.Relay(engine, publisher).run_once() == 1
    assert [event.promotion.previous_version for event in arrived(redis, 2)] == [""]


def test_while_the_sidecar_is_away_promotions_wait(
    registry: Registry, redis: RedisServer, sidecar: SidecarProcess
) -> None:
    registry.create("fraud", 0.9, 0.91, 0.92)
    sidecar.kill()
    for version in (1, 2, 3):
        assert registry.promote("fraud", version)[0] == 200
    assert registry.waiting() == 3
    sidecar.start()
    arrived(redis, 1, 2, 3)
    until(lambda: registry.waiting() == 0, 30, "the outbox is empty")


def test_a_registry_that_is_killed_between_its_commit_and_the_publish_loses_nothing(
    registry: Registry, redis: RedisServer, sidecar: SidecarProcess
) -> None:
    registry.create("fraud", 0.9)
    sidecar.kill()  # so that there is time between the two
    assert registry.promote("fraud", 1)[0] == 200
    registry.kill()
    sidecar.start()
    assert stream(redis) == []
    registry.start()
    arrived(redis, 1)


@pytest.mark.soak
def test_with_several_workers_the_events_are_in_the_order_of_the_promotions(
    tmp_path: Path, redis: RedisServer, sidecar: SidecarProcess
) -> None:
    with database_server("postgresql") as database, running(tmp_path, sidecar, database.url, 3) as registry:
        registry.create("fraud", *[0.9] * 5)

        def promote(first: int) -> None:
            for number in range(10):
                assert registry.promote("fraud", 1 + (first + number) % 5)[0] == 200

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(promote, range(4)))
        engine = create_engine(database.url)
        with Session(engine) as session:
            promoted = list(session.scalars(select(Version.number).join(Promotion).order_by(Promotion.id)))
        engine.dispose()
        assert len(promoted) > 10
        until(lambda: registry.waiting() == 0, 30, "the outbox is empty")
        assert [int(event.model.version) for event in stream(redis)] == promoted


@pytest.mark.chaos
@pytest.mark.soak
def test_each_promotion_that_was_committed_is_in_the_stream_once_however_often_the_registry_is_killed(
    registry: Registry, redis: RedisServer, tmp_path: Path
) -> None:
    names = ["fraud", "churn", "tokens"]
    for name in names:
        registry.create(name)
    ending = threading.Event()

    def promote(name: str) -> None:
        while not ending.is_set():
            try:
                registry.promote(name, registry.register(name))
            except OSError:  # noqa: PERF203 - it was killed
                ending.wait(0.01)

    threads = [threading.Thread(target=promote, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            reached = len(stream(redis)) + 10
            until(lambda: len(stream(redis)) >= reached, 60, "events arrive")  # noqa: B023
            registry.kill()
            registry.start()
    finally:
        ending.set()
        for thread in threads:
            thread.join()
    until(lambda: registry.waiting() == 0, 60, "the outbox is empty")
    with Session(create_engine(f"sqlite:///{tmp_path}/registry.db")) as session:
        promoted = select(Model.name, Version.number).select_from(Promotion).join(Version).join(Model)
        for name in names:
            committed = [
                str(row.number) for row in session.execute(promoted.order_by(Promotion.id)) if row.name == name
            ]
            assert committed == [event.model.version for event in stream(redis) if event.model.name == name]
