"""A test kit: a sidecar and a queue in the test's own process. It needs the extra `testing`.

    FakeSidecar   the real protocol over a local socket; each answer and fault on demand
    FakeQueue     runs a handler with attempts, failures and dead letters, as a consumer does

`modelready.testing.aio` has the asyncio twin of `FakeQueue`. pytest finds the fixtures `fake_sidecar`, `publisher`,
`aio_publisher` and `published` by itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelready.testing.queue import DeadLetter, Delivered, FakeQueue
    from modelready.testing.sidecar import FakeSidecar

__all__ = ["DeadLetter", "Delivered", "FakeQueue", "FakeSidecar"]

_MODULES = {"DeadLetter": "queue", "Delivered": "queue", "FakeQueue": "queue", "FakeSidecar": "sidecar"}


def __getattr__(name: str) -> Any:
    """Imports what is asked for: a registry's tests need no redis."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"modelready.testing.{_MODULES[name]}"), name)
