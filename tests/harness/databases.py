"""The databases that an outbox is tested on: real servers of the tests' own. The fixtures are in fixtures.py."""

from __future__ import annotations

import os

import pytest
from sqlalchemy import Engine

from modelready import outbox
from modelready.outbox import store

from .database_server import DatabaseServer, MariaDB, PgBouncer, Postgres

SERVERS: dict[str, type[Postgres | MariaDB]] = {"postgresql": Postgres, "mysql": MariaDB}


def require(kind: type[Postgres | MariaDB | PgBouncer]) -> None:
    """Skip the test where its programs are missing, and fail it where REQUIRE_… is set."""
    if not kind.find():
        if os.environ.get(f"REQUIRE_{kind.__name__.upper()}"):
            pytest.fail(f"{kind.__name__} is not there")
        pytest.skip(f"{kind.__name__} is not installed")


def server(kind: str) -> DatabaseServer:
    """Not started."""
    pytest.importorskip(SERVERS[kind].driver)  # not there with the lowest versions
    require(SERVERS[kind])
    return SERVERS[kind]()


def on(*drivers: str) -> pytest.MarkDecorator:
    """Run the test with each of these databases, such as "sqlite", "postgresql" or "mysql+aiomysql"."""
    return pytest.mark.parametrize("url", drivers, indirect=True)


SYNC = ("sqlite", "postgresql+psycopg", "postgresql+psycopg2", "mysql+pymysql")
DATABASES = ("sqlite", "postgresql+psycopg", "mysql+pymysql")


def status(engine: Engine) -> outbox.Status:
    with engine.connect() as connection:
        return store.status(connection)
