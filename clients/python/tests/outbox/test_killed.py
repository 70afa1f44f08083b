"""Writers, relays, the sidecar, Redis and the database are killed: each committed event is in the stream, once."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from clients.python.tests.outbox.programs import Programs, stream
from modelready import outbox
from tests.harness.database_server import DatabaseServer
from tests.harness.databases import SERVERS, server, status
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until

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

        programs = Programs(url, tmp_path, stack)
        registries = programs.writers(writers)
        workers = programs.relays(relays, sidecar)

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
    print(f"seed {seed}, {kills} kills: {programs.check(events)}")
