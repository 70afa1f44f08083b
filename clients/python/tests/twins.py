"""The asyncio twins behind the face of the blocking ones, so that one table of tests holds for both."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import modelready.aio
from modelready import ModelReadyToDeploy, Publisher, PublishError, Receipt
from modelready.consumer import Consumer

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")


@functools.cache
def loop() -> asyncio.AbstractEventLoop:
    """One loop in a thread, for all."""
    made = asyncio.new_event_loop()
    threading.Thread(target=made.run_forever, daemon=True).start()
    return made


def wait(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run_coroutine_threadsafe(work, loop()).result(60)


def iterate(source: Any) -> Iterator[Any]:
    items = aiter(source)

    async def following() -> Any:
        return await anext(items, None)

    try:
        while (item := wait(following())) is not None:
            yield item
    finally:
        wait(items.aclose())


class AioPublisher:
    def __init__(self, *args: Any, **options: Any) -> None:
        self._publisher = modelready.aio.Publisher(*args, **options)

    def publish(self, **fields: Any) -> Receipt:
        return wait(self._publisher.publish(**fields))

    def publish_event(self, *args: Any, **options: Any) -> Receipt:
        return wait(self._publisher.publish_event(*args, **options))

    def publish_many(self, *args: Any, **options: Any) -> Iterator[Receipt | PublishError]:
        return iterate(self._publisher.publish_many(*args, **options))

    def __enter__(self) -> Self:
        wait(self._publisher.__aenter__())
        return self

    def __exit__(self, *error: object) -> None:
        wait(self._publisher.__aexit__(None, None, None))


class AioConsumer:
    def __init__(self, consumer: modelready.aio.Consumer) -> None:
        self._consumer = consumer

    @classmethod
    def from_env(cls, **options: Any) -> AioConsumer:
        return cls(modelready.aio.Consumer.from_env(**options))

    def run(self, handler: Callable[[ModelReadyToDeploy], object]) -> None:
        async def handle(event: ModelReadyToDeploy) -> None:
            handler(event)

        wait(self._consumer.run(handle))

    def run_batches(self, handler: Callable[[list[ModelReadyToDeploy]], object], most: int | None = None) -> None:
        async def handle(events: list[ModelReadyToDeploy]) -> None:
            handler(events)

        wait(self._consumer.run_batches(handle, most))

    def stop(self) -> None:
        self._consumer.stop()

    def close(self) -> None:
        wait(self._consumer.close())

    def __iter__(self) -> Iterator[AioDelivery]:
        return (AioDelivery(delivery) for delivery in iterate(self._consumer))


class AioDelivery:
    def __init__(self, delivery: modelready.aio.Delivery) -> None:
        self._delivery = delivery
        self.entry_id, self.event = delivery.entry_id, delivery.event
        self.attempts, self.first_seen = delivery.attempts, delivery.first_seen

    def ack(self) -> None:
        wait(self._delivery.ack())

    def __enter__(self) -> ModelReadyToDeploy:
        return wait(self._delivery.__aenter__())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        wait(self._delivery.__aexit__(kind, error, trace))


PUBLISHERS: dict[str, Any] = {"sync": Publisher, "aio": AioPublisher}
CONSUMERS: dict[str, Any] = {"sync": Consumer, "aio": AioConsumer}
