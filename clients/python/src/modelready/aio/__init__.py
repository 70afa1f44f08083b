"""The asyncio twins: `Publisher`, and `Consumer` where redis is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelready.aio.publisher import Publisher

if TYPE_CHECKING:
    from modelready.aio.consumer import Consumer, Delivery

__all__ = ["Consumer", "Delivery", "Publisher"]


def __getattr__(name: str) -> Any:
    """Imports the consumer, and redis with it, when it is first asked for."""
    if name not in {"Consumer", "Delivery"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from modelready.aio import consumer  # noqa: PLC0415

    return getattr(consumer, name)
