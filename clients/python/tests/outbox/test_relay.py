"""The relay: every row is published once and in order, then deleted; what is refused is kept aside."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator

import grpc
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from clients.python.tests.fake_sidecar import FakeSidecar, arrived, failure
from modelready import Durability, ModelReadyToDeploy, Publisher, PublishError, Receipt, Unavailable, outbox
from modelready.outbox import relay as relays
from modelready.outbox import store
from modelready.outbox.engine import create
from modelready.v1 import publisher_service_pb2 as pb
from tests.harness.database_server import DatabaseServer
from tests.harness.databases import DATABASES, SYNC, on, status
from tests.harness.waiting import until

SERVERS = ("postgresql+psycopg", "mysql+pymysql")


def register(engine: Engine, *versions: int, name: str = "fraud") -> None:
    with Session(engine) as session:
        for version in versions:
            outbox.add(session, name=name, version=version, uri="s3://m/")
        session.commit()


def invalid(event: ModelReadyToDeploy) -> object:
    if event.model.version != "2":
        return None
    return failure(grpc.StatusCode.INVALID_ARGUMENT, violations=[("event.model.version", "is refused")])


# -- what becomes of a row


@on(*DATABASES)
def test_a_refused_row_is_kept_aside_and_its_model_goes_on(
    engine: Engine, relay: outbox.Relay, sidecar: FakeSidecar
) -> None:
    sidecar.refuse = invalid
    register(engine, 1, 2, 3)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO modelready_outbox (event_id, event) VALUES ('no-event', '{')")
    assert relay.run_once() == 4
    assert relay.run_once() == 0
    assert [sent.model.version for sent in sidecar.entries] == ["1", "3"]
    assert status(engine) == (0, 0.0, 2)
    with engine.connect() as connection:
        errors = [row.error for row in store.failed(connection, 10)]
    assert "event.model.version: is refused" in errors[0]
    assert "not a ModelReadyToDeploy in JSON" in errors[1]


@on(*DATABASES)
def test_a_long_backlog_is_counted_up_to_a_limit(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_COUNTED", 3)
    register(engine, 1, 2, 3, 4, 5)
    assert status(engine).waiting == 3
    with engine.begin() as connection:
        store.settle(connection, [row.id for row in store.oldest(connection, 5)][:3], {})
    assert status(engine).waiting == 2


@on("sqlite")
def test_rows_wait_while_the_sidecar_is_away_or_not_set_up(
    engine: Engine, relay: outbox.Relay, sidecar: FakeSidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays, "PUBLISH_SECONDS", 0.2)
    register(engine, 1, 2)
    sidecar.failures.append(failure(grpc.StatusCode.PERMISSION_DENIED))
    with pytest.raises(PublishError):
        relay.run_once()
    sidecar.stop()
    with pytest.raises(Unavailable):
        relay.run_once()
    assert status(engine).waiting == 2
    sidecar.start()
    until(lambda: relay.run_once() == 2, 30, "both are published")
    arrived(sidecar, 1, 2)


@on("sqlite")
def test_rows_are_deleted_for_the_durability_that_is_asked_for(
    engine: Engine, relay: outbox.Relay, sidecar: FakeSidecar
) -> None:
    register(engine, 1)
    relay.run_once()
    with Publisher(sidecar.address) as publisher:
        register(engine, 2)
        outbox.Relay(engine, publisher, durability=Durability.REPLICATED).run_once()
    assert sidecar.durabilities == [pb.DURABILITY_PRIMARY, pb.DURABILITY_REPLICATED]


@on("sqlite")
def test_it_publishes_through_anything_that_has_publish_many(engine: Engine) -> None:
    class Port:
        def publish_many(
            self, events: Iterable[ModelReadyToDeploy], *, durability: Durability, timeout: float
        ) -> Iterator[Receipt | PublishError]:
            for event in events:
                if event.model.version == "2":
                    raise Unavailable("scripted")
                yield Receipt.from_message(pb.Receipt(event_id=event.event_id))

    register(engine, 1, 2, 3)
    with pytest.raises(Unavailable):
        outbox.Relay(engine, Port()).run_once()
    assert status(engine).waiting == 2


@on(*DATABASES)
def test_a_batch_of_large_events_is_small(engine: Engine, relay: outbox.Relay, sidecar: FakeSidecar) -> None:
    with engine.begin() as connection:
        for version in range(3):
            large = {str(n): "x" * 1000 for n in range(900)}
            connection.execute(outbox.insert(name="fraud", version=version, uri="s3://m/", labels=large))
        before = store.oldest(connection, 3)
        store._BATCH_CHARACTERS, kept = 1 << 20, store._BATCH_CHARACTERS
        try:
            assert [len(before), len(store.oldest(connection, 3))] == [3, 2]
        finally:
            store._BATCH_CHARACTERS = kept
    assert relay.run_once() == 3


# -- what wakes it


@on("sqlite", "mysql+pymysql")
def test_a_commit_of_its_process_wakes_it(engine: Engine, relay: outbox.Relay, sidecar: FakeSidecar) -> None:
    with relay:
        for version in range(3):
            register(engine, version)
            arrived(sidecar, *range(version + 1))


@on("postgresql+psycopg", "postgresql+psycopg2")
def test_an_insert_of_another_process_wakes_it_by_notify(
    engine: Engine, relay: outbox.Relay, sidecar: FakeSidecar
) -> None:
    with relay:
        for version in range(3):
            with engine.begin() as connection:  # no session: nothing but NOTIFY announces it
                connection.execute(outbox.insert(name="fraud", version=version, uri="s3://m/"))
            arrived(sidecar, *range(version + 1))


@on("postgresql+psycopg", "postgresql+psycopg2")
def test_it_listens_again_when_its_connections_were_cut(
    engine: Engine, relay: outbox.Relay, sidecar: FakeSidecar
) -> None:
    listeners = "FROM pg_stat_activity WHERE query = 'LISTEN modelready_outbox' AND state = 'idle'"

    def listening() -> bool:
        with other.connect() as connection:
            return bool(connection.execute(text(f"SELECT count(*) {listeners}")).scalar())

    other = create_engine(engine.url)
    with relay:
        until(listening, 30, "it listens")
        with other.begin() as connection:
            connection.execute(text(f"SELECT pg_terminate_backend(pid) {listeners}"))
        until(listening, 30, "it listens again")
        with other.begin() as connection:
            connection.execute(outbox.insert(name="fraud", version=1, uri="s3://m/"))
        arrived(sidecar, 1)
    other.dispose()


# -- once, and in order


@on(*SYNC)
def test_three_relays_publish_each_event_once_and_in_order(engine: Engine, sidecar: FakeSidecar) -> None:
    with Publisher(sidecar.address) as publisher:
        running = [outbox.Relay(engine, publisher, batch=7, poll_seconds=0.05).start() for _ in range(3)]
        try:
            for version in range(0, 60, 3):
                register(engine, version, version + 1, version + 2)
            until(lambda: status(engine).waiting == 0, 60, "the outbox is empty")
        finally:
            for one in running:
                one.stop()
    arrived(sidecar, *range(60))


@on(*SERVERS)
def test_where_a_registry_serialises_the_changes_of_a_model_its_events_are_in_that_order(
    engine: Engine, relay: outbox.Relay, sidecar: FakeSidecar
) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS versions"))
        connection.execute(text("CREATE TABLE versions (name VARCHAR(8) PRIMARY KEY, latest INT)"))
        connection.execute(text("INSERT INTO versions VALUES ('a', 0), ('b', 0)"))

    def change(name: str) -> None:
        for _ in range(8):
            with Session(engine) as session:
                latest = session.execute(
                    text("SELECT latest FROM versions WHERE name = :name FOR UPDATE"), {"name": name}
                ).scalar_one()
                session.execute(
                    text("UPDATE versions SET latest = :latest WHERE name = :name"),
                    {"name": name, "latest": latest + 1},
                )
                outbox.add(session, name=name, version=latest + 1, uri="s3://m/")
                session.commit()

    writers = [threading.Thread(target=change, args=(name,)) for name in "ab" * 3]
    with relay:
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        until(lambda: len(sidecar.entries) == 48, 60, "all events")
    sent = defaultdict(list)
    for event in sidecar.entries:
        sent[event.model.name].append(int(event.model.version))
    assert sent == {"a": list(range(1, 25)), "b": list(range(1, 25))}


@on(*SERVERS)
def test_a_row_whose_transaction_commits_late_is_not_missed(
    engine: Engine, relay: outbox.Relay, sidecar: FakeSidecar
) -> None:
    """Its id is lower than that of a row which is published before it: nothing serialised the two."""
    with Session(engine) as late:
        outbox.add(late, name="fraud", version=1, uri="s3://m/")
        late.flush()
        register(engine, 2)
        assert relay.run_once() == 1
        late.commit()
    assert relay.run_once() == 1
    arrived(sidecar, 2, 1)


@on(*SERVERS)
def test_a_connection_that_is_cut_between_publish_and_delete_makes_no_second_entry(
    engine: Engine, relay: outbox.Relay, sidecar: FakeSidecar
) -> None:
    def cut() -> None:
        sidecar.hold = lambda: None
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(
                    text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted")
                )
            else:
                lock = text("SELECT IS_USED_LOCK(CONCAT(DATABASE(), '.modelready_outbox'))")
                connection.exec_driver_sql(f"KILL {connection.execute(lock).scalar_one()}")

    register(engine, 1, 2, 3)
    sidecar.hold = cut
    with pytest.raises(DBAPIError):
        relay.run_once()
    assert status(engine).waiting == 3
    until(lambda: relay.run_once() == 3, 30, "its lock has gone with its connection")
    arrived(sidecar, 1, 2, 3)
    assert [len(frame) for frame in sidecar.frames] == [3, 3]


@on(*SERVERS)
def test_one_relay_works_at_a_time_but_a_lock_that_nobody_gives_up_stops_none(
    engine: Engine, relay: outbox.Relay, sidecar: FakeSidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(engine, 1)
    with engine.connect() as vanished:
        assert store.lock(vanished)
        assert relay.run_once() == 0
        monkeypatch.setattr(relays, "LOCK_SECONDS", 0.0)
        assert relay.run_once() == 1
        vanished.invalidate()
    arrived(sidecar, 1)
    register(engine, 2)
    until(lambda: relay.run_once() == 1, 30, "the lock is free")


@on(*SERVERS)
def test_a_failure_gives_the_lock_up(engine: Engine, relay: outbox.Relay, sidecar: FakeSidecar) -> None:
    register(engine, 1)
    sidecar.failures.append(failure(grpc.StatusCode.PERMISSION_DENIED))
    with pytest.raises(PublishError):
        relay.run_once()
    other = outbox.Relay(create_engine(engine.url), relay._publisher)
    assert other.run_once() == 1


# -- cost


@on(*DATABASES)
def test_neither_failed_rows_nor_the_backlog_are_read_on_the_way_to_a_batch(engine: Engine) -> None:
    rows = [{"event_id": f"{n}", "event": "{}", "failed": n < 3000} for n in range(6000)]
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO modelready_outbox (event_id, event, failed_at) "
                "VALUES (:event_id, :event, CASE WHEN :failed THEN CURRENT_TIMESTAMP END)"
            ),
            rows,
        )
    explain = {"sqlite": "EXPLAIN QUERY PLAN", "postgresql": "EXPLAIN", "mysql": "EXPLAIN"}[engine.dialect.name]
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE TABLE modelready_outbox" if "mysql" in engine.dialect.name else "ANALYZE")
        query = "SELECT id, event FROM modelready_outbox WHERE failed_at IS NULL ORDER BY id LIMIT 500"
        plan = str([tuple(row) for row in connection.exec_driver_sql(f"{explain} {query}")])
    index = "modelready_outbox_failed_waiting" if engine.dialect.name == "mysql" else "modelready_outbox_waiting"
    assert index in plan
    assert "Sort" not in plan
    assert "filesort" not in plan
    assert "TEMP B-TREE" not in plan
    with engine.connect() as connection:
        assert [int(row.event_id) for row in store.oldest(connection, 3)] == [3000, 3001, 3002]


def test_it_starts_while_the_database_is_away(sidecar: FakeSidecar, postgresql: DatabaseServer) -> None:
    with Publisher(sidecar.address) as publisher:
        away = create_engine(postgresql.url.replace(str(postgresql.port), "1"))
        with outbox.Relay(away, publisher) as relay:
            until(lambda: relay._failures > 1, 30, "it has tried more than once")


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_its_engine_reads_text_where_the_database_has_no_encoding(driver: str, postgresql: DatabaseServer) -> None:
    pytest.importorskip(driver)
    with create_engine(postgresql.url, isolation_level="AUTOCOMMIT").connect() as connection:
        name = f"no_encoding_{driver}"
        connection.exec_driver_sql(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    engine = create(postgresql.url_of(driver).rpartition("/")[0] + f"/{name}")
    outbox.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO modelready_outbox (event_id, event) VALUES ('1', 'naïve')")
        (row,) = store.oldest(connection, 1)
    engine.dispose()
    assert row.event == "naïve"
