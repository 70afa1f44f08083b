"""The primary of PostgreSQL dies, its synchronous replica is promoted: each committed event is in the stream, once."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlencode

import pytest
from sqlalchemy import Engine, create_engine, text

from clients.python.tests.outbox.programs import Programs, stream
from modelready import outbox
from tests.harness.database_server import Postgres, PostgresStandby
from tests.harness.databases import require, status
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until

IN_THE_SIDECAR = 0
SYNCHRONOUS = ("synchronous_standby_names = '*'", "synchronous_commit = 'remote_apply'")


@pytest.mark.soak
@pytest.mark.chaos
@pytest.mark.parametrize("relays", [2, IN_THE_SIDECAR])
def test_each_committed_event_is_in_the_stream_once_and_in_order_after_a_failover(relays: int, tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    require(Postgres)
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(appendonly=True))
        primary = stack.enter_context(Postgres())
        outbox.metadata.create_all(create_engine(primary.url))
        standby = stack.enter_context(PostgresStandby(primary))
        with create_engine(primary.url, isolation_level="AUTOCOMMIT").connect() as connection:
            until(lambda: replicas(connection.engine) == ["streaming"], 30, "the replica streams")
            for setting in SYNCHRONOUS:
                connection.exec_driver_sql(f"ALTER SYSTEM SET {setting}")
            connection.exec_driver_sql("SELECT pg_reload_conf()")
        until(lambda: replicas(create_engine(primary.url), "sync_state") == ["sync"], 30, "commits wait for it")

        url = of_both(primary, standby)
        env = {"REDIS_HOST": redis.host, "REDIS_PORT": str(redis.port)}
        if relays == IN_THE_SIDECAR:
            env |= {"OUTBOX_URL": url, "OUTBOX_POLL_SECONDS": "0.1"}
        sidecar = stack.enter_context(SidecarProcess(env))
        programs = Programs(url, tmp_path, stack)
        writers = programs.writers(3)
        workers = programs.relays(relays, sidecar)
        log = workers[0].tail if workers else sidecar.logs
        until(lambda: len(stream(redis)) > 20, 60, "events arrive")
        time.sleep(chance.uniform(0.05, 0.5))  # the primary may die at any point of a transaction

        primary.kill()
        before = {event.event_id for event in stream(redis)}
        standby.promote()  # its own commits wait for nobody: it was copied before the settings
        engine = create_engine(standby.url)
        until(lambda: len({event.event_id for event in stream(redis)} - before) > 100, 60, f"events arrive\n{log()}")
        for writer in writers:
            writer.kill()
        until(lambda: status(engine)[0] == 0, 90, f"the outbox is empty\n{log()}")
        events = stream(redis)
        assert status(engine).failed == 0
        engine.dispose()
    print(f"seed {seed}: {programs.check(events)}")


def replicas(engine: Engine, what: str = "state") -> list[str]:
    """What the primary says of them."""
    with engine.connect() as connection:
        return list(connection.execute(text(f"SELECT {what} FROM pg_stat_replication")).scalars())


def of_both(*servers: Postgres) -> str:
    """A URL that leads to whichever of them takes writes."""
    hosts = [("host", f"127.0.0.1:{server.port}") for server in servers]
    return f"postgresql+psycopg://postgres@/postgres?{urlencode([*hosts, ('target_session_attrs', 'read-write')])}"
