"""The asyncio twin of modelready.list_consumer."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from modelready._consumer.base import stopped_by_sigterm
from modelready._consumer.list_reader import ListMessage, ListReader

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)


class ListConsumer:
    """As modelready.list_consumer.ListConsumer, for one task. A handler that blocks the loop keeps no lease."""

    def __init__(self, reader: ListReader) -> None:
        """Use `from_env`."""
        self._reader = reader

    @classmethod
    def from_env(
        cls, list_name: str | None = None, *, environ: Mapping[str, str] | None = None, **options: Any
    ) -> Self:
        """See modelready.list_consumer.ListConsumer.from_env."""
        return cls(ListReader.from_env(list_name, environ, **options))

    async def run(self, handler: Callable[[ListMessage], Awaitable[object]]) -> None:
        """Handles messages until `stop` or, in the main thread, SIGTERM; the message in hand is finished first."""
        with stopped_by_sigterm(self.stop):
            while (message := await self._reader.next()) is not None:
                if await self._handled(handler, message):
                    await self._reader.done(message)
                else:
                    await self._reader.failed(message)

    def stop(self) -> None:
        """Ends `run` after the message in hand; for any thread or a signal handler. It is for good."""
        self._reader.stop()

    async def close(self) -> None:
        """Closes the connections."""
        await self._reader.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @staticmethod
    async def _handled(handler: Callable[[ListMessage], Awaitable[object]], message: ListMessage) -> bool:
        try:
            await handler(message)
        except Exception:
            logger.exception("message %s: its handler raised", message.label)
            return False
        return True
