"""The databases that the outbox is tested on: real servers of the tests' own, one of each kind for a run."""

from __future__ import annotations

import os

import pytest
from sqlalchemy import Engine

from clients.python.tests.fake_sidecar import FakeSidecar
from modelready import outbox
from modelready.outbox import store
from tests.harness.database_server import DatabaseServer, MariaDB, PgBouncer, Postgres
from tests.harness.waiting import until

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
    """Run the test with each of these drivers."""
    return pytest.mark.parametrize("url", drivers, indirect=True)


SYNC = ("sqlite", "postgresql+psycopg", "postgresql+psycopg2", "mysql+pymysql")
DATABASES = ("sqlite", "postgresql+psycopg", "mysql+pymysql")


def status(engine: Engine) -> outbox.Status:
    with engine.connect() as connection:
        return store.status(connection)


def arrived(sidecar: FakeSidecar, *versions: object) -> None:
    """Wait until the sidecar has these versions, in this order and once."""
    expected = [str(version) for version in versions]
    until(lambda: [event.model.version for event in sidecar.entries] == expected, 30, f"versions {expected}")
