"""The two publishers behind one plain face, so that one table of tests holds for both."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import modelready.aio
from modelready import Publisher, PublishError, Receipt

T = TypeVar("T")


class AioPublisher:
    """Runs `modelready.aio.Publisher` in a loop in a thread."""

    loop: asyncio.AbstractEventLoop | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        if AioPublisher.loop is None:
            AioPublisher.loop = asyncio.new_event_loop()
            threading.Thread(target=AioPublisher.loop.run_forever, daemon=True).start()
        self._publisher = modelready.aio.Publisher(*args, **options)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        assert AioPublisher.loop is not None
        return asyncio.run_coroutine_threadsafe(work, AioPublisher.loop).result(60)

    def publish(self, **fields: Any) -> Receipt:
        return self._run(self._publisher.publish(**fields))

    def publish_event(self, *args: Any, **options: Any) -> Receipt:
        return self._run(self._publisher.publish_event(*args, **options))

    def publish_many(self, *args: Any, **options: Any) -> Iterator[Receipt | PublishError]:
        results: Any = self._publisher.publish_many(*args, **options)
        return self._iterate(results)

    def _iterate(self, results: Any) -> Iterator[Receipt | PublishError]:
        async def following() -> Any:
            return await anext(results, None)

        try:
            while (result := self._run(following())) is not None:
                yield result
        finally:
            self._run(results.aclose())

    def __enter__(self) -> AioPublisher:
        self._run(self._publisher.__aenter__())
        return self

    def __exit__(self, *error: object) -> None:
        self._run(self._publisher.__aexit__(None, None, None))


TWINS: dict[str, Any] = {"sync": Publisher, "aio": AioPublisher}
