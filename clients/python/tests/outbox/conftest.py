from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, delete, inspect, text

from clients.python.tests.fake_sidecar import FakeSidecar
from clients.python.tests.outbox.databases import server
from modelready import Publisher, outbox
from tests.harness.database_server import DatabaseServer


@pytest.fixture(scope="session")
def postgresql() -> Iterator[DatabaseServer]:
    with server("postgresql") as started:
        yield started


@pytest.fixture(scope="session")
def mysql() -> Iterator[DatabaseServer]:
    with server("mysql") as started:
        yield started


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of the driver that the test names, such as mysql+pymysql."""
    kind, _, driver = request.param.partition("+")
    pytest.importorskip(driver or "sqlite3")
    if kind == "sqlite":
        return f"{request.param}:///{tmp_path}/registry.db"
    started: DatabaseServer = request.getfixturevalue(kind)
    return started.url_of(driver)


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """With an empty table, made by the statements of `ddl`."""
    engine = create_engine(url)
    with engine.begin() as connection:
        if inspect(connection).has_table(outbox.table.name):
            connection.execute(delete(outbox.table))
        else:
            for statement in outbox.ddl(engine.dialect.name):
                connection.execute(text(statement))
    yield engine
    engine.dispose()


@pytest.fixture
def relay(engine: Engine, sidecar: FakeSidecar) -> Iterator[outbox.Relay]:
    """Not started; only what wakes it makes it look before half a minute is over."""
    with Publisher(sidecar.address) as publisher:
        yield outbox.Relay(engine, publisher, poll_seconds=30)
