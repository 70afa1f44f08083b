"""A sidecar of the module's own, and its clients. A module that needs another one has a fixture of that name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.integration.calls import Caller, calling, to_redis
from tests.integration.operators import Operator, operating


@pytest.fixture(scope="module")
def sidecar(server: RedisServer) -> Iterator[SidecarProcess]:
    with SidecarProcess(to_redis(server)) as running:
        yield running


@pytest.fixture
def operator(server: RedisServer, sidecar: SidecarProcess) -> Iterator[Operator]:
    """Over an empty queue."""
    server.execute("FLUSHALL")
    with operating(sidecar) as caller:
        yield caller


@pytest.fixture
def publisher(sidecar: SidecarProcess) -> Iterator[Caller]:
    with calling(sidecar) as caller:
        yield caller
