"""uvicorn in a thread with its own event loop: probes do not wait for the sidecar's (docs/adr/0019)."""

from __future__ import annotations

import asyncio
import socket
import threading

import uvloop
from starlette.types import ASGIApp
from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from sidecar.errors import SettingsError

_MAX_CONNECTIONS = 64
_CONNECTION_SECONDS = 20.0  # for one request and its answer; a replay may take ten
_MAX_HEAD_BYTES = 16 << 10
_STOP_SECONDS = 1


class HttpServer:
    """Serves an ASGI application, one request a connection."""

    def __init__(self, listen: str, app: ASGIApp) -> None:
        """Bind. `listen`: host:port. Raises SettingsError where the address cannot be bound."""
        try:
            self._socket = _bind(listen)
        except OSError as error:
            raise SettingsError(f"SIDECAR_HTTP_LISTEN is {listen!r}: {error.strerror}") from None
        self.port: int = self._socket.getsockname()[1]
        self._server = Server(
            Config(
                app,
                http=_BoundedProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",  # what callers send wrong is not logged
                access_log=False,
                proxy_headers=False,
                server_header=False,
                headers=[("Connection", "close")],
                backlog=_MAX_CONNECTIONS,
                h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
                timeout_graceful_shutdown=_STOP_SECONDS,
            )
        )
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def start(self) -> None:
        """Serve."""
        self._thread.start()

    async def stop(self) -> None:
        """Stop serving; a request that has not been answered within a second is cut."""
        self._server.should_exit = True
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)
        self._socket.close()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._server.serve([self._socket]))


class _BoundedProtocol(H11Protocol):
    """A connection has 20 seconds, and one too many ends the oldest.

    A byte a second from a thousand would otherwise take the files that Redis and gRPC need.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.opened = self.loop.time()
        self._limit = self.loop.call_later(_CONNECTION_SECONDS, transport.abort)
        if len(self.connections) > _MAX_CONNECTIONS:
            oldest = min(self.connections, key=lambda one: one.opened)  # type: ignore[union-attr]
            self.connections.discard(oldest)
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._limit.cancel()
        super().connection_lost(exc)


def _bind(listen: str) -> socket.socket:
    """A bound socket; [::] takes IPv4 too, as it does for gRPC. Raises OSError."""
    host, _, port = listen.rpartition(":")
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, _, _, address = found[0]
    bound = socket.socket(family, kind)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound
