"""The asyncio twin of modelready.list_consumer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING

from modelready._consumer.base import stopped_by_sigterm
from modelready._consumer.list_message import ListMessage
from modelready._consumer.list_reader import ListConsumerBase

if TYPE_CHECKING:
    from typing_extensions import Self


class ListConsumer(ListConsumerBase):
    """As modelready.list_consumer.ListConsumer, for one task. A handler that blocks the loop keeps no lease."""

    async def run(self, handler: Callable[[ListMessage], Awaitable[object]]) -> None:
        """Handles messages until `stop` or, in the main thread, SIGTERM; the message in flight is finished first."""
        with stopped_by_sigterm(self.stop):
            while (message := await self._reader.next()) is not None:
                await self._handle(handler, message)

    async def close(self) -> None:
        """Closes the connections."""
        await self._reader.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _handle(self, handler: Callable[[ListMessage], Awaitable[object]], message: ListMessage) -> None:
        try:
            await handler(message)
        except Exception as error:  # noqa: BLE001 - it is logged, and the message tried again
            await self._reader.failed(message, error)
        else:
            await self._reader.done(message)
