"""HTTP in, on a thread of its own: /metrics for Prometheus, /healthz and /readyz for load balancers and people."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST

from sidecar.errors import SettingsError


class Page(NamedTuple):
    """An answer."""

    status: HTTPStatus
    content_type: str
    body: bytes


class HttpServer:
    """Serves pages that are functions of nothing."""

    def __init__(self, listen: str, pages: dict[str, Callable[[], Page]]) -> None:
        """Bind. Raises SettingsError where the address cannot be had."""
        host, _, port = listen.rpartition(":")
        handler = type("Handler", (_Handler,), {"pages": pages})
        try:
            self._server = _Server((host.strip("[]"), int(port)), handler)
        except OSError as error:
            raise SettingsError(f"SIDECAR_HTTP_LISTEN is {listen!r}: {error.strerror}") from None
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="http", daemon=True)

    def start(self) -> None:
        """Serve."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving; a request under way may be cut."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


def metrics_page(render: Callable[[], bytes]) -> Callable[[], Page]:
    """Return the page of /metrics."""
    return lambda: Page(HTTPStatus.OK, CONTENT_TYPE_LATEST, render())


def health_page(well: Callable[[], bool], details: Callable[[], dict[str, object]]) -> Callable[[], Page]:
    """Return a page that is 200 while all is well, else 503, with details in JSON."""

    def page() -> Page:
        status = HTTPStatus.OK if well() else HTTPStatus.SERVICE_UNAVAILABLE
        return Page(status, "application/json", json.dumps(details()).encode() + b"\n")

    return page


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


class _Handler(BaseHTTPRequestHandler):
    timeout = 5
    pages: dict[str, Callable[[], Page]]
    server_version = "modelready-sidecar"
    sys_version = ""

    def do_GET(self) -> None:
        page = self.pages.get(self.path.partition("?")[0])
        if page is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        answer = page()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(answer.body)

    do_HEAD = do_GET  # noqa: N815 - the base class's name

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing: a probe a second is no news."""
