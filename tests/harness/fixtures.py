"""Fixtures of all tests: a pytest plugin, loaded by the conftest.py of the repository."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from .redis_server import RedisServer


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
