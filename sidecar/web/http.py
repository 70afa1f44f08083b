"""HTTP in, on a thread of its own: /metrics for Prometheus, /healthz and /readyz for load balancers, and a site."""

from __future__ import annotations

import json
import logging
import socket
import socketserver
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

MAX_BYTES = 64 * 1024  # of a request's body
_MAX_SITE_REQUESTS = 8  # at the same time; probes and metrics have no such bound
_MAX_CONNECTIONS = 64
_PROBES, _PROBE_BYTES = ("/healthz", "/readyz"), 4096


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
        members = {"pages": pages, "site": staticmethod(site or _no_site)}
        members["turns"] = threading.BoundedSemaphore(_MAX_SITE_REQUESTS)
        handler = type("Handler", (_Handler,), members)
        try:
            self._server = _Server(listen, handler, pages)
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

    def __init__(
        self, listen: str, handler: type[BaseHTTPRequestHandler], pages: Mapping[str, Callable[[], Page]]
    ) -> None:
        self._probes = {f"GET {path} HTTP/1.".encode(): pages[path] for path in _PROBES if path in pages}
        self._open: dict[socket.socket, None] = {}  # the oldest first
        self._lock = threading.Lock()
        host, _, port = listen.rpartition(":")
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family = found[0][0]
        super().__init__((str(found[0][4][0]), int(port)), handler)

    def server_bind(self) -> None:
        """As the base class's, without its look-up of a name; [::] is IPv4, too, as it is for gRPC."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._answer_probe(request):
            super().shutdown_request(request)
            return
        with self._lock:
            if len(self._open) >= _MAX_CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                with suppress(OSError):  # it has ended by itself
                    oldest.shutdown(socket.SHUT_RDWR)
            self._open[request] = None
        super().process_request(request, client_address)

    def _answer_probe(self, request: socket.socket) -> bool:
        """Answer at once, where all of it is here already; in a thread of its own it would wait ten times for its turn.

        Whether it was one. Nothing here waits for the peer.
        """
        with suppress(OSError):
            sent = request.recv(_PROBE_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            page = self._probes.get(sent[: sent.find(b"HTTP/1.") + 7])
            if page is not None and sent.endswith(b"\r\n\r\n"):
                status, kind, body, _ = page()
                about = f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close"
                head = f"HTTP/1.1 {status.value} {status.phrase}\r\n{about}\r\n\r\n".encode()
                request.recv(_PROBE_BYTES, socket.MSG_DONTWAIT)  # unread, it would make the close a reset
                request.send(head + body, socket.MSG_DONTWAIT)
                return True
        return False

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
        elif int(length) > MAX_BYTES:
            self._answer(text_page(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has at most {MAX_BYTES} bytes"))
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
