"""grpc.health.v1: Check and Watch of the three names.

The servicer that grpcio-health-checking brings writes to a watcher under the lock that setting a status needs, so that
one watcher that does not read would freeze every status; and its Watch never ends, which holds up a stop. These calls
need no token, so their number at the same time and the size of what they send are bounded here.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from sidecar.errors import Overloaded
from sidecar.publishing.readiness import State
from sidecar.rpc.auth import Context, Intake, Places, answered, parse

NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
PUBLISHER = "modelready.v1.PublisherService"
REDIS = "redis"
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
_MAX_CHECKS, _MAX_WATCHES = 1000, 500
_RECEIVED_AT_ONCE, _SECONDS = 8, 1.0


class HealthService:
    """The empty name: the process lives and is not draining. The publisher's: it can accept an event now.

    redis: an authenticated round trip succeeded recently.
    """

    def __init__(self) -> None:
        self._statuses: dict[str, int] = {"": _SERVING, PUBLISHER: _NOT_SERVING, REDIS: _NOT_SERVING}
        self._changed = asyncio.Event()
        self.draining = False
        """Set when the sidecar stops; any thread may ask."""
        self._intake = Intake(_RECEIVED_AT_ONCE, _SECONDS, newest_first=True)

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        """The methods by their names."""
        return {
            "Check": grpc.stream_stream_rpc_method_handler(answered(self._check, Places(_MAX_CHECKS))),
            "Watch": grpc.stream_stream_rpc_method_handler(answered(self._watch, Places(_MAX_WATCHES))),
        }

    async def update(self, state: State) -> None:
        """Set the statuses from this state."""
        if not self.draining:
            self._set({
                "": _SERVING,
                PUBLISHER: _SERVING if state.accepting else _NOT_SERVING,
                REDIS: _SERVING if state.redis_up else _NOT_SERVING,
            })  # fmt: skip

    @property
    def statuses(self) -> dict[str, int]:
        """By the names of services. Any thread may ask."""
        return self._statuses

    def drain(self) -> None:
        """Set NOT_SERVING until the process ends, and end every Watch."""
        self.draining = True
        self._set(dict.fromkeys(self._statuses, _NOT_SERVING))
        self._changed.set()

    def _set(self, statuses: dict[str, int]) -> None:
        if statuses != self._statuses:
            self._statuses = statuses
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    async def _check(self, context: Context) -> None:
        """The status of one name; NOT_FOUND for one that is not known."""
        name = await self._name(context)
        status = self._statuses.get(name)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {name!r}")
        try:
            async with asyncio.timeout(_SECONDS):
                await context.write(_response(status))
        except TimeoutError:
            raise Overloaded("the caller does not read the answer") from None

    async def _watch(self, context: Context) -> None:
        """The status of one name now and whenever it changes, until the sidecar drains."""
        name, sent = await self._name(context), None
        while True:
            changed, status = self._changed, self._statuses.get(name, _UNKNOWN)
            if status != sent:
                await context.write(_response(status))
                sent = status
            if self.draining:
                return
            await changed.wait()

    async def _name(self, context: Context) -> str:
        return str(parse(health_pb2.HealthCheckRequest, await self._intake.receive(context)).service)


def _response(status: int) -> bytes:
    return bytes(health_pb2.HealthCheckResponse(status=status).SerializeToString())
