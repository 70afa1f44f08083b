"""What a consumer refuses before it works: a handler that would not run, and a second run at the same time."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import modelready.aio
from modelready import ModelReadyToDeploy, model_ready
from modelready._consumer.handler import blocking
from modelready.consumer import Consumer
from modelready.list_consumer import ListConsumer
from modelready.testing import FakeQueue
from tests.harness.waiting import until

FRAUD = model_ready(name="fraud", version="7", uri="s3://models/fraud/7/")
REDIS = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": "1", "QUEUE_LIST": "deployments"}


async def coroutine(_: object) -> None:
    """Never runs."""


async def asynchronous_generator(_: object) -> AsyncIterator[int]:
    yield 1


def generator(_: object) -> Iterator[int]:
    yield 1


class Awaited:
    async def __call__(self, _: object) -> None:
        """Never runs."""


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        (coroutine, "modelready.aio"),
        (functools.partial(coroutine), "modelready.aio"),
        (Awaited(), "modelready.aio"),
        (asynchronous_generator, "modelready.aio"),
        (generator, "yield"),
        (None, "it must be a function"),
    ],
)
def test_a_handler_that_would_not_run_is_refused_at_once(handler: Any, why: str) -> None:
    with pytest.raises(TypeError, match=why):
        blocking(handler)


@pytest.mark.parametrize(
    "run",
    [
        lambda: Consumer.from_env(group="deployer", environ=REDIS).run(coroutine),
        lambda: Consumer.from_env(group="deployer", environ=REDIS).run_batches(coroutine),
        lambda: ListConsumer.from_env(environ=REDIS).run(coroutine),
        lambda: FakeQueue(coroutine),
    ],
    ids=["run", "run_batches", "list", "fake"],
)
def test_every_blocking_consumer_refuses_a_coroutine_function_before_it_connects(run: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match="coroutine function"):
        run()


def test_a_coroutine_that_a_handler_returns_is_a_failed_attempt_and_not_acknowledged() -> None:
    delivered = FakeQueue(lambda event: coroutine(event), max_attempts=2).deliver(FRAUD)  # noqa: PLW0108 - a wrapper

    (dead,) = delivered.dead_letters
    assert delivered.acknowledged == []
    assert "a coroutine, which nobody awaits" in dead.detail


def test_a_handler_that_delivers_to_its_own_queue_is_refused() -> None:
    def handle(event: ModelReadyToDeploy) -> None:
        queue.deliver(event)

    queue = FakeQueue(handle, max_attempts=1)
    (dead,) = queue.deliver(FRAUD).dead_letters

    assert "cannot deliver to its own queue" in dead.detail


def test_a_second_run_at_the_same_time_is_refused_since_stop_would_end_one_alone() -> None:
    consumer = Consumer.from_env(group="deployer", environ=REDIS)
    running = threading.Thread(target=consumer.run, args=(print,))
    running.start()
    try:
        until(lambda: consumer._work is not None, 30, "it runs")
        with pytest.raises(RuntimeError, match="runs already"):
            consumer.run(print)
    finally:
        consumer.stop()
        running.join(30)
    assert not running.is_alive()


async def test_a_second_run_at_the_same_time_is_refused_in_asyncio() -> None:
    consumer = modelready.aio.Consumer.from_env(group="deployer", environ=REDIS)
    running = asyncio.create_task(consumer.run(coroutine))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="runs already"):
        await consumer.run(coroutine)
    consumer.stop()
    await asyncio.wait_for(running, 30)
