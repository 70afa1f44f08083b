"""Fixtures of all tests: a pytest plugin, loaded by the conftest.py of the repository."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from .redis_server import RedisServer

if TYPE_CHECKING:  # SQLAlchemy takes 0.3 s; only tests with a database need it
    from sqlalchemy import Engine

    from .database_server import DatabaseServer


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """The module's own. A module that needs another kind, or one for each test, has a fixture of this name."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    """Of `server`, which is emptied first."""
    server.execute("FLUSHALL")
    with server.client() as client:
        yield client


@pytest.fixture(scope="session")
def postgresql() -> Iterator[DatabaseServer]:
    """One for the run."""
    from .databases import server as of_kind  # noqa: PLC0415

    with of_kind("postgresql") as started:
        yield started


@pytest.fixture(scope="session")
def mysql() -> Iterator[DatabaseServer]:
    """A MariaDB, one for the run."""
    from .databases import server as of_kind  # noqa: PLC0415

    with of_kind("mysql") as started:
        yield started


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of the database that the test names with `on`, and of its driver; of SQLite where it names none."""
    name: str = getattr(request, "param", "sqlite")
    kind, _, driver = name.partition("+")
    if kind == "sqlite":
        pytest.importorskip(driver or "sqlite3")
        return f"{name}:///{tmp_path}/registry.db"
    started: DatabaseServer = request.getfixturevalue(kind)
    pytest.importorskip(driver or started.driver)
    return started.url_of(driver or started.driver)


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """With an empty outbox, made by the statements of `ddl`."""
    from sqlalchemy import create_engine, delete, inspect, text  # noqa: PLC0415

    from modelready import outbox  # noqa: PLC0415

    engine = create_engine(url, pool_pre_ping=True)
    with engine.begin() as connection:
        if inspect(connection).has_table(outbox.table.name):
            connection.execute(delete(outbox.table))
        else:
            for statement in outbox.ddl(engine.dialect.name):
                connection.execute(text(statement))
    yield engine
    engine.dispose()
