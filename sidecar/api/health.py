"""grpc.health.v1: Check and Watch of the three names.

The servicer that grpcio-health-checking brings writes to a watcher under the lock that setting a status needs, so that
one watcher that does not read would freeze every status; and its Watch never ends, which holds up a stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sidecar.publishing.readiness import State

PUBLISHER = "modelready.v1.PublisherService"
REDIS = "redis"
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class HealthService(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """The empty name: the process lives and is not draining. The publisher's: it can accept an event now.

    redis: an authenticated round trip succeeded lately.
    """

    def __init__(self) -> None:
        self._statuses: dict[str, int] = {"": _SERVING, PUBLISHER: _NOT_SERVING, REDIS: _NOT_SERVING}
        self._changed = asyncio.Event()
        self._draining = False

    async def update(self, state: State) -> None:
        """Take over what is known now."""
        if not self._draining:
            self._set({
                "": _SERVING,
                PUBLISHER: _SERVING if state.accepting else _NOT_SERVING,
                REDIS: _SERVING if state.redis_up else _NOT_SERVING,
            })  # fmt: skip

    def drain(self) -> None:
        """NOT_SERVING for good, and the end of every Watch."""
        self._draining = True
        self._set(dict.fromkeys(self._statuses, _NOT_SERVING))
        self._changed.set()

    def _set(self, statuses: dict[str, int]) -> None:
        if statuses != self._statuses:
            self._statuses = statuses
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    async def Check(  # noqa: N802 - the contract's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse:
        """The status of one name; NOT_FOUND for one that is not known."""
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r}")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(  # noqa: N802 - the contract's name
        self, request: health_pb2.HealthCheckRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The status of one name now and whenever it changes, until the sidecar drains."""
        sent = None
        while True:
            changed, status = self._changed, self._statuses.get(request.service, _UNKNOWN)
            if status != sent:
                yield health_pb2.HealthCheckResponse(status=status)
                sent = status
            if self._draining:
                return
            await changed.wait()
