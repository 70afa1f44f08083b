from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from clients.python.tests.fake_sidecar import FakeSidecar
from clients.python.tests.twins import PUBLISHERS
from modelready.seen import SeenGuard
from tests.harness.redis_server import RedisServer

GUARD = "user guard on >secret resetchannels -@all +hello +eval +evalsha +get +set +del +pttl ~{model-ready}:done:*"

logging.getLogger("grpc").setLevel(logging.CRITICAL)


@pytest.fixture
def sidecar() -> Iterator[FakeSidecar]:
    fake = FakeSidecar()
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture(params=list(PUBLISHERS))
def twin(request: pytest.FixtureRequest) -> Any:
    """The class of one of the publishers."""
    return PUBLISHERS[request.param]


@pytest.fixture
def publisher(twin: Any, sidecar: FakeSidecar) -> Iterator[Any]:
    with twin(sidecar.address) as publisher:
        yield publisher


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    """The server of a module that has no other."""
    with RedisServer(appendonly=True, acl=[GUARD]) as server:
        yield server


@pytest.fixture
def make_guard(server: RedisServer) -> Iterator[Callable[..., SeenGuard]]:
    """Makes guards of the group "deployer" with the least rights."""
    with server.client(username="guard", password="secret") as client:
        yield lambda group="deployer", **options: SeenGuard(client, group, **options)
    with server.client() as client:
        assert client.acl_log() == []


@pytest.fixture
def server(shared: RedisServer) -> Iterator[RedisServer]:
    """The module's own server, `shared`, emptied after each test."""
    yield shared
    with shared.client() as client:
        client.flushall()
        client.acl_log_reset()
