"""An outage is told once when it begins and once when it ends, however many reasons it gives meanwhile."""

from typing import cast

import pytest

from sidecar.errors import AuthFailed, QueueError, SetupFault, Unavailable
from sidecar.metrics import Metrics
from sidecar.publishing.interfaces import Queue
from sidecar.publishing.readiness import Readiness, State
from tests.unit.bench import Bench

REFUSED, TIMEOUT = Unavailable("no connection to Redis: refused"), Unavailable("Redis did not answer in time")
LOADING = Unavailable("Redis answered LOADING", reason="REDIS_LOADING")
AUTH, NO_RIGHT, NO_TRUST = AuthFailed("WRONGPASS"), SetupFault("lacks a right"), SetupFault("the certificate")
BEGINS, REFUSES, ENDS = "WARNING", "ERROR", "INFO"


@pytest.mark.parametrize(
    ("pings", "expected"),
    [
        ([None, None], [ENDS]),
        ([REFUSED, TIMEOUT, REFUSED, LOADING, None, None], [BEGINS, ENDS]),
        ([None, *[REFUSED, TIMEOUT, None] * 3], [ENDS, *[BEGINS, ENDS] * 3]),
        ([None, TIMEOUT, AUTH, AUTH, None], [ENDS, BEGINS, REFUSES, ENDS]),
        ([NO_RIGHT, NO_RIGHT, NO_TRUST, None], [REFUSES, REFUSES, ENDS]),  # the next fault is news
    ],
)
async def test_what_is_told(
    pings: list[QueueError | None], expected: list[str], bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sidecar.publishing.readiness")
    states: list[State] = []

    class Pinged:
        async def ping(self) -> None:
            error = pings[len(states)]
            if error is not None:
                raise error

    async def listen(state: State) -> None:
        states.append(state)

    readiness = Readiness(cast("Queue", Pinged()), bench.spool, bench.publisher, Metrics(), listen)
    for _ in pings:
        await readiness.look()
    assert [record.levelname for record in caplog.records] == expected
    assert [state.redis_up for state in states] == [error is None for error in pings]
    assert hasattr(caplog.records[-1], "seconds_away") == any(pings)
