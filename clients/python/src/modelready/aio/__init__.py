"""The asyncio twins: `Publisher`, and `Consumer` and `ListConsumer` where redis is installed."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from modelready.aio.publisher import Publisher

if TYPE_CHECKING:
    from modelready.aio.consumer import Consumer, Delivery
    from modelready.aio.list_consumer import ListConsumer

__all__ = ["Consumer", "Delivery", "ListConsumer", "Publisher"]

_CONSUMERS = {"Consumer": "consumer", "Delivery": "consumer", "ListConsumer": "list_consumer"}


def __getattr__(name: str) -> Any:
    """Imports a consumer, and redis with it, when it is first asked for."""
    if name not in _CONSUMERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"modelready.aio.{_CONSUMERS[name]}"), name)
