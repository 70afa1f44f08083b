"""A grpc.aio server that asks the core for its next calls ahead of time.

grpc.aio 1.85 has one request for a call under way at a time: between two calls it goes through the core, a thread and
the event loop, 150 µs on two slow cores, and while nothing else keeps the loop busy that is the rate of calls. With
some requests outstanding a server whose handler does nothing takes 1.3 times as many calls a second
(docs/adr/0011). The seam is private to grpc: where it is not as known here, the server is grpc's own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import grpc
from grpc._cython import cygrpc
from grpc.aio import _server

_AHEAD = 32


class _Core(cygrpc.AioServer):  # type: ignore[misc] # it has no types
    """Keeps requests for calls outstanding, and hands over the oldest."""

    ahead: deque[asyncio.Future[Any]]

    def _make_request_call_future(self, method: bytes | None) -> asyncio.Future[Any]:
        request = super()._make_request_call_future
        if method is not None:
            future: asyncio.Future[Any] = request(method)
            return future
        while len(self.ahead) <= _AHEAD:
            future = request(None)
            future.add_done_callback(_retrieve)
            self.ahead.append(future)
        return self.ahead.popleft()


class _Server(_server.Server):
    """grpc.aio's own, around that core."""

    def __init__(self, options: Sequence[tuple[str, Any]], maximum_concurrent_rpcs: int) -> None:
        self._loop = cygrpc.get_working_loop()
        arguments = _server._augment_channel_arguments(options, None)  # noqa: SLF001 - see the module's docstring
        self._server = _Core(self._loop, None, (), (), arguments, maximum_concurrent_rpcs)
        self._server.ahead = deque()


def server(options: Sequence[tuple[str, Any]], maximum_concurrent_rpcs: int) -> grpc.aio.Server:
    """As grpc.aio.server."""
    if hasattr(cygrpc.AioServer, "_make_request_call_future") and hasattr(_server, "_augment_channel_arguments"):
        return cast("grpc.aio.Server", _Server(options, maximum_concurrent_rpcs))
    return grpc.aio.server(options=options, maximum_concurrent_rpcs=maximum_concurrent_rpcs)


def _retrieve(request: asyncio.Future[Any]) -> None:
    """A stop fails those outstanding, which is no news."""
    if not request.cancelled():
        request.exception()
