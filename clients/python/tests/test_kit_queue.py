"""What a handler meets at `modelready.testing.FakeQueue` is what it meets in a consumer: one suite for both."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

import modelready.testing.aio
from clients.python.tests.twins import CONSUMERS
from modelready import ModelReadyToDeploy, model_ready
from modelready.entry import encode
from modelready.keys import Keys
from modelready.testing import Delivered, FakeQueue
from tests.harness.redis_server import RedisServer
from tests.harness.waiting import until

KEYS = Keys("model-ready")
Handler = Callable[[Any], object]


class Met(NamedTuple):
    """What became of events."""

    calls: list[list[str]]
    acknowledged: set[str]
    dead: list[tuple[str, str, str, int]]


def fake(handler: Handler, *events: ModelReadyToDeploy, batches: bool = False, **options: Any) -> Met:
    return met(FakeQueue(handler, batches=batches, **options).deliver(*events))


def fake_aio(handler: Handler, *events: ModelReadyToDeploy, batches: bool = False, **options: Any) -> Met:
    async def handle(argument: Any) -> None:
        await asyncio.sleep(0)
        handler(argument)

    async def deliver() -> Delivered:
        return await modelready.testing.aio.FakeQueue(handle, batches=batches, **options).deliver(*events)

    return met(asyncio.run(deliver()))


def met(delivered: Delivered) -> Met:
    return Met(
        [[event.model.version for event in call] for call in delivered.calls],
        {event.model.version for event in delivered.acknowledged},
        [(dead.event.model.version, dead.reason, dead.detail, dead.attempts) for dead in delivered.dead_letters],
    )


class Real:
    """A consumer of a server."""

    def __init__(self, server: RedisServer, kind: str) -> None:
        self._server = server
        self._kind = kind

    def __call__(self, handler: Handler, *events: ModelReadyToDeploy, batches: bool = False, **options: Any) -> Met:
        calls: list[list[str]] = []

        def handle(argument: Any) -> None:
            calls.append([event.model.version for event in (argument if batches else [argument])])
            handler(argument)

        with self._server.client() as client:
            client.flushall()
            for event in events:
                client.xadd(KEYS.events, encode(event))
        environ = {"REDIS_HOST": self._server.host, "REDIS_PORT": f"{self._server.port}"}
        quick = {"backoff_base_seconds": 0.0, "backoff_max_seconds": 0.0, "block_seconds": 0.2}
        consumer = CONSUMERS[self._kind].from_env(group="testing", environ=environ, **quick, **options)
        thread = threading.Thread(target=consumer.run_batches if batches else consumer.run, args=(handle,))
        thread.start()
        until(self._is_done, 20, "all are settled")
        consumer.stop()
        thread.join()
        dead = self._dead_letters()
        return Met(calls, {event.model.version for event in events} - {version for version, *_ in dead}, dead)

    def _is_done(self) -> bool:
        with self._server.client() as client:
            groups: list[Any] = client.xinfo_groups(KEYS.events)
        return bool(groups) and groups[0]["lag"] == groups[0]["pending"] == 0

    def _dead_letters(self) -> list[tuple[str, str, str, int]]:
        entries: list[Any] = self._server.execute("XRANGE", KEYS.dead_letters, "-", "+")
        dead = []
        for _, fields in entries:
            event = ModelReadyToDeploy.FromString(fields[b"data"])
            reason, detail = fields[b"dl_reason"].decode(), fields[b"dl_detail"].decode()
            dead.append((event.model.version, reason, detail, int(fields[b"dl_attempts"])))
        return dead


@pytest.fixture(params=["fake", "fake aio", "sync", "aio"])
def deliver(request: pytest.FixtureRequest) -> Any:
    if request.param.startswith("fake"):
        return fake if request.param == "fake" else fake_aio
    return Real(request.getfixturevalue("shared"), request.param)


def event(model: str, version: int) -> ModelReadyToDeploy:
    return model_ready(name=model, version=version, uri="s3://models/")


def failing(times: int, version: str = "1") -> Handler:
    """A handler that raises the first times that it is given this version, alone or in a batch."""
    left = [times]

    def handle(argument: Any) -> None:
        events = argument if isinstance(argument, list) else [argument]
        if version in {event.model.version for event in events} and left[0]:
            left[0] -= 1
            raise LookupError("no cluster")

    return handle


def test_an_event_is_acknowledged_when_its_handler_returns(deliver: Any) -> None:
    assert deliver(failing(0), event("a", 1), event("b", 2)) == Met([["1"], ["2"]], {"1", "2"}, [])


def test_a_handler_that_raises_is_called_again_and_the_model_waits(deliver: Any) -> None:
    found = deliver(failing(2), event("a", 1), event("a", 2))
    assert found == Met([["1"], ["1"], ["1"], ["2"]], {"1", "2"}, [])


def test_after_the_last_attempt_it_is_a_dead_letter_and_the_model_goes_on(deliver: Any) -> None:
    found = deliver(failing(99), event("a", 1), event("a", 2), max_attempts=2)
    assert found == Met([["1"], ["1"], ["2"]], {"2"}, [("1", "HANDLER_FAILED", "LookupError: no cluster", 2)])


def test_a_batch_that_fails_is_handled_one_by_one_and_the_call_for_all_counts_as_no_attempt(deliver: Any) -> None:
    events = [event("a", 1), event("b", 2), event("c", 3)]
    found = deliver(failing(99), *events, batches=True, batch=3, max_attempts=2)
    assert found.calls[0] == ["1", "2", "3"]
    assert sorted(found.calls[1:]) == [["1"], ["1"], ["2"], ["3"]]
    assert found.acknowledged == {"2", "3"}
    assert found.dead == [("1", "HANDLER_FAILED", "LookupError: no cluster", 2)]


# -- what only the fake one does


@pytest.mark.parametrize(("begun_before", "calls"), [(0, 3), (2, 1), (3, 0)])
def test_deaths_of_consumers_count_as_attempts(begun_before: int, calls: int) -> None:
    queue = FakeQueue(failing(99), max_attempts=3)
    delivered = queue.deliver(event("a", 1), begun_before=begun_before)
    assert len(delivered.calls) == len(delivered.errors) == calls
    assert [dead.reason for dead in delivered.dead_letters] == ["HANDLER_FAILED" if calls else "CONSUMER_DIED"]
    assert queue.deliver(event("a", 2)).acknowledged[0].model.version == "2"


def test_the_handler_s_errors_are_kept_and_a_failure_of_the_test_is_raised() -> None:
    (error,) = FakeQueue(failing(1)).deliver(event("a", 1)).errors
    assert str(error) == "no cluster"

    def handle(_: ModelReadyToDeploy) -> None:
        pytest.fail("the test's own")

    with pytest.raises(pytest.fail.Exception, match="the test's own"):
        FakeQueue(handle).deliver(event("a", 1))


def test_an_option_that_no_consumer_takes_is_refused() -> None:
    with pytest.raises(ValueError, match="max_attempts"):
        FakeQueue(failing(0), max_attempts=0)


async def test_it_works_within_an_event_loop_and_a_cancellation_is_a_failure_unless_the_test_is_cancelled() -> None:
    assert FakeQueue(failing(0)).deliver(event("a", 1)).acknowledged

    async def cancelled(_: ModelReadyToDeploy) -> None:
        raise asyncio.CancelledError

    queue = modelready.testing.aio.FakeQueue(cancelled, max_attempts=2)
    assert [dead.attempts for dead in (await queue.deliver(event("a", 1))).dead_letters] == [2]

    async def hanging(_: ModelReadyToDeploy) -> None:
        await asyncio.sleep(600)

    delivering = asyncio.create_task(modelready.testing.aio.FakeQueue(hanging).deliver(event("a", 1)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    delivering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await delivering
