from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from clients.python.tests.fake_sidecar import FakeSidecar
from modelready import Publisher, outbox


@pytest.fixture
def relay(engine: Engine, sidecar: FakeSidecar) -> Iterator[outbox.Relay]:
    """Not started; only what wakes it makes it look before half a minute is over."""
    with Publisher(sidecar.address) as publisher:
        yield outbox.Relay(engine, publisher, poll_seconds=30)
