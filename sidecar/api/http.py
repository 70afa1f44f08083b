"""HTTP in, on a thread of its own: /metrics for Prometheus, /healthz and /readyz for load balancers, and a site."""

from __future__ import annotations

import json
import logging
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST

from sidecar.errors import SettingsError

log = logging.getLogger(__name__)

MOST_BYTES = 64 * 1024  # of a request's body
_MOST_SITE_REQUESTS = 8  # at the same time; probes and metrics have no such bound
_MOST_CONNECTIONS = 64


class Page(NamedTuple):
    """An answer."""

    status: HTTPStatus
    content_type: str
    body: bytes
    headers: Sequence[tuple[str, str]] = ()


class Request(NamedTuple):
    """What a site is asked. `target`: path and query; `headers`: by their lower-case names; `peer`: an IP address."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    peer: str


Site = Callable[[Request], Page]


class HttpServer:
    """Serves pages that are functions of nothing, and a site that answers all else."""

    def __init__(self, listen: str, pages: dict[str, Callable[[], Page]], site: Site | None = None) -> None:
        """Bind. Raises SettingsError where the address cannot be had."""
        host, _, port = listen.rpartition(":")
        members = {"pages": pages, "site": staticmethod(site or _no_site)}
        members["turns"] = threading.BoundedSemaphore(_MOST_SITE_REQUESTS)
        handler = type("Handler", (_Handler,), members)
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


def text_page(status: HTTPStatus, text: str) -> Page:
    """Return a page of one line."""
    return Page(status, "text/plain; charset=utf-8", text.encode() + b"\n")


def _no_site(_request: Request) -> Page:
    return text_page(HTTPStatus.NOT_FOUND, "not found")


class _Server(ThreadingHTTPServer):
    """A connection too many ends the oldest: a byte a second from a thousand would take all that publishing needs."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._open: dict[socket.socket, None] = {}  # the oldest first
        self._lock = threading.Lock()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self._open) >= _MOST_CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                with suppress(OSError):  # it has ended by itself
                    oldest.shutdown(socket.SHUT_RDWR)
            self._open[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, _request: object, _client_address: object) -> None:
        error = sys.exception()
        if not isinstance(error, OSError):  # who asked has gone: no news
            log.error("an HTTP request failed", exc_info=error)


class _Handler(BaseHTTPRequestHandler):
    timeout = 5
    pages: dict[str, Callable[[], Page]]
    site: Site
    turns: threading.BoundedSemaphore
    server_version = "modelready-sidecar"
    sys_version = ""

    def do_GET(self) -> None:
        page = self.pages.get(self.path.partition("?")[0])
        self._answer(page() if page is not None else self._ask_site(b""))

    do_HEAD = do_GET  # noqa: N815 - the base class's name

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or len(length) > 9:
            self._answer(text_page(HTTPStatus.LENGTH_REQUIRED, "a request with a body needs its Content-Length"))
        elif int(length) > MOST_BYTES:
            self._answer(text_page(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has at most {MOST_BYTES} bytes"))
        else:
            self._answer(self._ask_site(self.rfile.read(int(length))))

    def _ask_site(self, body: bytes) -> Page:
        if not self.turns.acquire(blocking=False):
            return text_page(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests at the same time")
        try:
            headers = {name.lower(): value for name, value in self.headers.items()}
            method = "GET" if self.command == "HEAD" else self.command
            return self.site(Request(method, self.path, headers, body, self.client_address[0]))
        finally:
            self.turns.release()

    def _answer(self, answer: Page) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing: a probe a second is no news."""
