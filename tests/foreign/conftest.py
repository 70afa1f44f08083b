"""The clients in other languages, built. `make foreign` runs these tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.foreign.clients import CLIENTS, Client, Driver

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of this directory."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker("foreign")
            item.add_marker(pytest.mark.timeout(600))  # the first build compiles Go's standard library


@pytest.fixture(scope="session", params=list(CLIENTS))
def client(request: pytest.FixtureRequest) -> Client:
    """The first time the build takes a minute."""
    return CLIENTS[request.param]()


@pytest.fixture(scope="module")
def driver(client: Client) -> Iterator[Driver]:
    with Driver(client) as driver:
        yield driver
