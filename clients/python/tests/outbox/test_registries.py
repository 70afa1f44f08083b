"""The examples of docs/registries.md run as they stand, but for the address."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Engine, create_engine, inspect
from sqlalchemy.orm import Session

from clients.python.tests.fake_sidecar import FakeSidecar, arrived
from clients.python.tests.outbox.documents import examples
from modelready import outbox
from tests.harness.databases import DATABASES, on, status

(FIVE_LINES,) = examples("The outbox in five lines")
(MIGRATION,) = examples("The table")
(INSERT,) = examples("One INSERT in any language", "sql")
(HOOKS,) = examples("Without a table")


def run(code: str, sidecar: FakeSidecar) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(code.replace("127.0.0.1:50051", sidecar.address), names)
    return names


@on("sqlite")
def test_the_five_lines(engine: Engine, sidecar: FakeSidecar) -> None:
    names = run(FIVE_LINES, sidecar)
    relay = names["start"](engine)
    try:
        with Session(engine) as session:
            names["register"](session, "fraud", 7, "s3://models/fraud/7/")
        arrived(sidecar, 7)
    finally:
        relay.stop()


@on(*DATABASES)
def test_the_migration_and_the_insert(url: str, relay: outbox.Relay, sidecar: FakeSidecar) -> None:
    engine = create_engine(url)
    names = run(MIGRATION, sidecar)
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
        names["downgrade"]()
        assert not inspect(connection).has_table("modelready_outbox")
        names["upgrade"]()
    with engine.begin() as connection:
        connection.exec_driver_sql(INSERT)
    assert relay.run_once() == 1
    assert status(engine) == (0, 0.0, 0)
    arrived(sidecar, 7)
    engine.dispose()


def test_the_hooks(sidecar: FakeSidecar) -> None:
    names = run(HOOKS, sidecar)
    with Session(create_engine("sqlite://")) as session:
        names["promote"](session, SimpleNamespace(name="fraud", version=7, uri="s3://m/"))
    arrived(sidecar, 7)
