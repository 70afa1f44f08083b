"""OUTBOX_URL: the sidecar empties a registry's outbox, on real databases, and nothing of it reaches anyone else."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from modelready.entry import decode
from modelready.v1.event_pb2 import ModelReadyToDeploy
from tests.harness.database_server import DatabaseServer
from tests.harness.databases import on, status
from tests.harness.redis_server import RedisServer
from tests.harness.relay import Relay
from tests.harness.sidecar_process import SERVING, SidecarProcess
from tests.harness.waiting import until
from tests.integration.calls import KEYS, STORED, calling, model_event

SOON = {"OUTBOX_POLL_SECONDS": "0.05"}


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer(appendonly=True) as started:
        yield started


@contextmanager
def relaying(redis: RedisServer, url: str, env: Mapping[str, str] = SOON) -> Iterator[SidecarProcess]:
    redis_at = {"REDIS_HOST": redis.host, "REDIS_PORT": str(redis.port)}
    with SidecarProcess({**redis_at, "OUTBOX_URL": url, **env}) as sidecar:
        yield sidecar


def add(engine: Engine, *versions: object, name: str = "fraud") -> None:
    """As a program in any language does it."""
    event = '{"model": {"name": "%s", "version": "%s"}, "artifact": {"uri": "s3://m/"}}'
    insert = text("INSERT INTO modelready_outbox (event_id, event) VALUES (:id, :event)")
    with engine.begin() as connection:
        for version in versions:
            connection.execute(insert, {"id": f"{name}-{version}", "event": event % (name, version)})


def stream(redis: RedisServer) -> list[ModelReadyToDeploy]:
    with redis.client() as client:
        return [decode(fields) for _, fields in client.xrange(KEYS.events)]


def arrived(redis: RedisServer, *versions: object) -> None:
    """Wait until the stream has these versions, in this order and once."""
    expected = [str(version) for version in versions]
    until(lambda: [event.model.version for event in stream(redis)] == expected, 30, f"versions {expected}")


@on("sqlite", "postgresql", "mysql")
def test_rows_of_any_language_are_published_in_order_and_gone(redis: RedisServer, url: str, engine: Engine) -> None:
    add(engine, *range(3))
    with relaying(redis, url, {**SOON, "SIDECAR_SOURCE": "//registry"}) as sidecar:
        arrived(redis, *range(3))
        add(engine, *range(3, 600))  # more than one batch, and than one group
        arrived(redis, *range(600))
        assert {event.source for event in stream(redis)} == {"//registry"}
        assert abs(stream(redis)[0].occurred_at.seconds - time.time()) < 300
        until(lambda: status(engine) == (0, 0.0, 0), 30, "the table is empty")
        assert sidecar.metrics()['modelready_published_events_total{outcome="stored"}'] == 600
        assert sidecar.terminate() == 0


@on("postgresql")
def test_a_commit_wakes_it_on_postgresql(redis: RedisServer, url: str, engine: Engine) -> None:
    with relaying(redis, url, {"OUTBOX_POLL_SECONDS": "3600"}) as sidecar:
        add(engine, "first")
        arrived(redis, "first")
        until(lambda: status(engine).waiting == 0, 30, "the row is deleted")
        add(engine, "second")
        arrived(redis, "first", "second")
        assert sidecar.terminate() == 0


def test_while_redis_is_away_the_rows_wait_in_the_database_and_not_in_the_spool(
    redis: RedisServer, url: str, engine: Engine
) -> None:
    with relaying(redis, url) as sidecar:
        redis.kill()
        add(engine, *range(10))
        until(lambda: sidecar.metrics()["modelready_outbox_failing"] == 1, 30, "it says so")
        assert status(engine).waiting == 10
        assert sidecar.metrics()["modelready_spool_events"] == 0
        redis.start()
        arrived(redis, *range(10))
        until(lambda: sidecar.metrics()["modelready_outbox_failing"] == 0, 30, "it says that it is over")
        counted = {
            name for name, count in sidecar.metrics().items() if name.startswith("modelready_published") and count
        }
        assert {name for name in counted if "_total" in name} <= {
            'modelready_published_events_total{outcome="stored"}',
            'modelready_published_events_total{outcome="duplicate"}',
        }, "what waits in the outbox was not refused"


def test_an_outbox_of_durability_spooled_goes_to_the_disk_while_redis_is_away(
    redis: RedisServer, url: str, engine: Engine
) -> None:
    with relaying(redis, url, {**SOON, "OUTBOX_DURABILITY": "spooled"}) as sidecar:
        redis.kill()
        add(engine, *range(10))
        until(lambda: sidecar.metrics()["modelready_spool_events"] == 10, 30, "they are spooled")
        until(lambda: status(engine).waiting == 0, 30, "the rows are gone")
        redis.start()
        arrived(redis, *range(10))


@on("sqlite", "postgresql")
def test_a_refused_row_is_kept_and_counted_and_those_behind_it_go_on(
    redis: RedisServer, url: str, engine: Engine
) -> None:
    add(engine, 1)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO modelready_outbox (event_id, event) VALUES ('x', 'no event')"))
        connection.execute(text("INSERT INTO modelready_outbox (event_id, event) VALUES ('y', '{\"model\": {}}')"))
    add(engine, 2)
    with relaying(redis, url) as sidecar, calling(sidecar) as caller:
        arrived(redis, 1, 2)
        until(lambda: sidecar.metrics()["modelready_outbox_refused_rows"] == 2, 30, "they are counted")
        known = caller.status()
        assert (known.outbox.depth, known.outbox.refused, known.outbox.error) == (0, 2, "")
        assert "2 rows of the outbox refused" in sidecar.get("/readyz")[1]
    with engine.connect() as connection:
        errors = connection.execute(text("SELECT error FROM modelready_outbox ORDER BY id")).scalars().all()
    assert errors[0].startswith("not a ModelReadyToDeploy in JSON")
    assert (
        errors[1] == "event.model.name: is required; event.model.version: is required; event.artifact.uri: is required"
    )


@on("postgresql")
def test_a_database_that_hangs_holds_up_no_call_no_probe_and_no_stop(
    redis: RedisServer, url: str, engine: Engine, postgresql: DatabaseServer
) -> None:
    with Relay(postgresql.port) as network:
        behind = url.replace(f":{postgresql.port}/", f":{network.port}/")
        with relaying(redis, behind) as sidecar, calling(sidecar) as caller:
            add(engine, 1)
            arrived(redis, 1)
            network.stall()
            add(engine, 2)
            for version in range(100, 120):
                assert caller.publish(model_event(version)).outcome == STORED
                assert sidecar.health() == SERVING
            assert sidecar.get("/healthz")[0] == sidecar.get("/readyz")[0] == 200
            began = time.monotonic()
            assert sidecar.terminate() == 0
            assert time.monotonic() - began < 20  # SIDECAR_SHUTDOWN_SECONDS is 25
        network.resume()
        with relaying(redis, url):
            until(lambda: "2" in [event.model.version for event in stream(redis)], 30, "the row that waited arrives")
    assert len(stream(redis)) == 22


@on("postgresql")
def test_a_database_that_is_away_is_reported_and_its_rows_follow(
    redis: RedisServer, url: str, engine: Engine, postgresql: DatabaseServer
) -> None:
    with Relay(postgresql.port) as network:
        network.refuse()
        behind = url.replace(f":{postgresql.port}/", f":{network.port}/")
        add(engine, 1)
        with relaying(redis, behind) as sidecar, calling(sidecar) as caller:
            until(lambda: caller.status().outbox.error, 30, "the status has the reason")
            assert sidecar.get("/readyz")[0] == 200
            assert "the outbox is not being emptied" in sidecar.get("/readyz")[1]
            network.accept()
            arrived(redis, 1)
            add(engine, 2)
            network.cut()
            arrived(redis, 1, 2)


def test_without_an_outbox_sqlalchemy_is_not_loaded(redis: RedisServer, tmp_path: Path) -> None:
    redis_at = {"REDIS_HOST": redis.host, "REDIS_PORT": str(redis.port)}
    with SidecarProcess(redis_at) as sidecar:
        assert "sqlalchemy" not in Path(f"/proc/{sidecar.pid}/maps").read_text()
