"""What readiness says is what a caller of Publish gets; a change is logged once."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest

from modelready.v1 import publisher_service_pb2 as pb
from sidecar.app import met
from sidecar.errors import AuthFailed, QueueError, QueueFull, RequestError, SetupFault, SpoolUnavailable, Unavailable
from sidecar.metrics import Metrics
from sidecar.publishing.interfaces import Attempts, Queue
from sidecar.publishing.readiness import Readiness, State
from sidecar.publishing.submission import SPOOLED, Submission
from tests.unit.bench import SETTINGS, Bench, end, events

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
async def test_an_outage_is_logged_when_it_begins_and_when_it_ends_however_many_reasons_it_gives(
    pings: list[QueueError | None], expected: list[str], bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sidecar.publishing.readiness")
    states: list[State] = []

    class Pinged:
        async def ping(self) -> None:
            error = pings[len(states)]
            if error is not None:
                raise error

        async def try_write(self) -> None:
            pass

    async def listen(state: State) -> None:
        states.append(state)

    readiness = Readiness(
        cast("Queue", Pinged()), bench.spool, Metrics(), listen, durability="spooled", replicas=1, met=lambda: None
    )
    for _ in pings:
        await readiness.refresh()
    assert [record.levelname for record in caplog.records] == expected
    assert [state.redis_up for state in states] == [error is None for error in pings]
    assert hasattr(caplog.records[-1], "seconds_away") == any(pings)


QUEUES: dict[str, QueueError | None] = {
    "up": None,
    "away": REFUSED,
    "full memory": Unavailable("Redis answered OOM", reason="REDIS_OOM"),
    "credentials refused": AUTH,
    "a right is missing": NO_RIGHT,
    "queue full": QueueFull("the queue is full"),
}
BROKEN = SpoolUnavailable("the disk is full")
FULL_BYTES = 10_000


@pytest.mark.parametrize("durability", ["spooled", "primary", "replicated"])
@pytest.mark.parametrize("disk", ["works", "fails"])
@pytest.mark.parametrize("spool", ["empty", "holds", "full"])
@pytest.mark.parametrize("queue", QUEUES)
async def test_it_says_what_a_caller_gets(queue: str, spool: str, disk: str, durability: str) -> None:
    """Every combination, with the committer and the forwarder at work."""
    bench = Bench(FULL_BYTES, replace(SETTINGS, durability=durability))
    try:
        bench.queue.always = QUEUES[queue] or REFUSED
        await fill(bench, spool)
        bench.spool.fail_with = BROKEN if disk == "fails" else None
        bench.forward()
        bench.queue.always = QUEUES[queue]
        readiness = Readiness(
            bench.queue,
            bench.spool,
            Metrics(),
            ignore,
            durability=durability,
            replicas=1,
            met=lambda: met(None, bench.publisher, bench.spool, bench.gate),
        )
        if queue == "up" and disk == "works":
            await bench.until(lambda: not bench.spool.depth)
        elif bench.spool.depth:
            await bench.until(lambda: bench.gate.last_error is not None)
        for number in range(2):  # before it was tried, and after
            await readiness.refresh()
            state = readiness.state
            outcome = await publish(bench, number)
            assert (state.accepting, state.spooling) == (outcome != "refused", outcome == "spooled"), state
            assert state.summary.startswith({"stored": "acknowledged by the Redis primary",
                                             "spooled": "acknowledged by this task's disk: ",
                                             "refused": "refused: "}[outcome])  # fmt: skip
            assert state.problem in state.summary
            assert bool(state.problem) == (queue != "up" or disk == "fails")
    finally:
        await end(bench)


async def ignore(_: State) -> None:
    pass


async def fill(bench: Bench, spool: str) -> None:
    if spool != "empty":
        await bench.gate.put([Submission(events(100, 102), pb.DURABILITY_SPOOLED, 1)], Attempts())
    if spool == "full":
        room = bench.spool.max_bytes - bench.spool.bytes - 256 - 20
        filler = events(102, 103)[0]._replace(data=b"x" * room)
        await bench.gate.put([Submission([filler], pb.DURABILITY_SPOOLED, 1)], Attempts())


async def publish(bench: Bench, number: int) -> str:
    """What a caller gets that names no durability."""
    try:
        [result] = await bench.publish(events(number, number + 1), pb.DURABILITY_UNSPECIFIED, timeout=0.15)
    except RequestError:
        return "refused"
    return "spooled" if result is SPOOLED else "stored"
