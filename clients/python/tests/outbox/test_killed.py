"""Writers, relays, the sidecar, Redis and the database are killed: each committed event is in the stream, once."""

from __future__ import annotations

import os
import random
import sys
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from modelready import outbox
from modelready.entry import decode
from modelready.v1.event_pb2 import ModelReadyToDeploy
from tests.harness.child import Child
from tests.harness.database_server import DatabaseServer
from tests.harness.databases import SERVERS, server, status
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until

ROOT = Path(__file__).parents[4]
STREAM = "{model-ready}:events"
IN_THE_SIDECAR = 0
"""How many relays of their own there are where the sidecar is the relay."""


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("kind", "writers", "relays", "kills"),
    [
        ("sqlite", 1, 1, 4),
        ("postgresql", 1, IN_THE_SIDECAR, 4),
        pytest.param("sqlite", 3, 2, 30, marks=pytest.mark.soak),
        pytest.param("postgresql", 8, 3, 40, marks=pytest.mark.soak),
        pytest.param("mysql", 8, 3, 40, marks=pytest.mark.soak),
        pytest.param("sqlite", 3, IN_THE_SIDECAR, 30, marks=pytest.mark.soak),
        pytest.param("postgresql", 8, IN_THE_SIDECAR, 40, marks=pytest.mark.soak),
    ],
)
def test_each_committed_event_is_in_the_stream_once_and_in_order_whatever_is_killed(
    kind: str, writers: int, relays: int, kills: int, tmp_path: Path
) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(appendonly=True))
        database = stack.enter_context(server(kind)) if kind in SERVERS else None
        url = database.url if database else f"sqlite:///{tmp_path}/registry.db"
        env = {"REDIS_HOST": redis.host, "REDIS_PORT": str(redis.port)}
        if relays == IN_THE_SIDECAR:
            env |= {"OUTBOX_URL": url, "OUTBOX_POLL_SECONDS": "0.1"}
        sidecar = stack.enter_context(SidecarProcess(env))
        engine = create_engine(url, pool_pre_ping=True)
        outbox.metadata.create_all(engine)

        def child(module: str, *arguments: str, log: str) -> Child:
            env = {**os.environ, "OUTBOX_URL": url, "PYTHONPATH": str(ROOT)}
            made = Child([sys.executable, "-m", module, *arguments], tmp_path / log, env)
            stack.callback(made.kill)
            made.start()
            return made

        logs = [tmp_path / f"events-{number}" for number in range(writers)]
        registries = [
            child("clients.python.tests.outbox.writer", url, f"m{number}", str(log), log=f"writer-{number}")
            for number, log in enumerate(logs)
        ]
        workers = [
            child("modelready.outbox", "run", "--sidecar", sidecar.address, log=f"relay-{number}")
            for number in range(relays)
        ]

        servers: list[RedisServer | DatabaseServer] = [redis, database] if database else [redis]
        victims = [sidecar, *servers, chance.choice(registries), *workers[:1]]
        log = workers[0].tail if workers else sidecar.logs

        until(lambda: len(stream(redis)) > 20, 60, "events arrive")
        for number in range(kills):
            time.sleep(chance.uniform(0.05, 0.5))  # work between two kills
            victim = victims[number % len(victims)]
            victim.kill()
            if victim is sidecar:
                sidecar.start("listening", seconds=60)
            else:
                victim.start()
        for registry in registries:
            registry.kill()
        try:
            until(lambda: status(engine)[0] == 0, 90, "the outbox is empty")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{log()}") from error
        events = stream(redis)
        assert status(engine).failed == 0
        engine.dispose()
    figures = check([log.read_text() for log in logs], events)
    print(f"seed {seed}, {kills} kills: {figures}")


def stream(server: RedisServer) -> list[ModelReadyToDeploy]:
    with server.client() as client:
        return [decode(fields) for _, fields in client.xrange(STREAM)]


def check(logs: list[str], events: list[ModelReadyToDeploy]) -> str:
    """Each committed event once, none that was rolled back, and each model's in the order of their commits."""
    said: dict[str, set[str]] = defaultdict(set)
    for log in logs:
        for line in log.splitlines():
            word, event_id = line.split()
            said[word].add(event_id)
    ids = [event.event_id for event in events]
    assert len(ids) == len(set(ids)), "an event is in the stream twice"
    assert len(said["committed"]) > 20
    assert said["committed"] - set(ids) == set(), "events are lost"
    assert said["rolled-back"] & set(ids) == set()
    assert set(ids) - said["begun"] == set()
    versions: dict[str, list[int]] = defaultdict(list)
    for event in events:
        versions[event.model.name].append(int(event.model.version))
    for found in versions.values():
        assert found == sorted(found)
    unknown = len(said["begun"]) - len(said["committed"]) - len(said["rolled-back"])
    return f"{len(said['committed'])} committed, {len(said['rolled-back'])} rolled back, {unknown} unknown: 0 lost"
