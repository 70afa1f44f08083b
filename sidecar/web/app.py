"""What HTTP answers: /metrics for Prometheus, /healthz and /readyz for probes, and the page for people."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sidecar.web.auth import is_own_name
from sidecar.web.pages import POLICY

log = logging.getLogger(__name__)

Probe = Callable[[], tuple[bool, dict[str, object]]]
"""Whether all is well, and the details."""

_HEADERS = [
    (name.encode(), value.encode())
    for name, value in (
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        # Not no-referrer, with which a browser would send no Origin with the page's own forms.
        ("referrer-policy", "same-origin"),
        ("x-frame-options", "DENY"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cache-control", "no-store"),
    )
]


def build(metrics: Callable[[], bytes], healthz: Probe, readyz: Probe, page: ASGIApp, listen: str) -> Starlette:
    """Return the ASGI application. `listen`: SIDECAR_HTTP_LISTEN, whose name the page answers to."""

    async def serve_metrics(_: Request) -> Response:
        return Response(metrics(), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[
            Route("/metrics", serve_metrics),
            Route("/healthz", _probe(healthz)),
            Route("/readyz", _probe(readyz)),
            Mount("/", Guard(page, listen)),
        ]
    )


def _probe(ask: Probe) -> Callable[[Request], Awaitable[Response]]:
    async def probe(_: Request) -> Response:
        well, details = ask()
        return Response(json.dumps(details) + "\n", 200 if well else 503, media_type="application/json")

    return probe


class Guard:
    """Lets the page answer under its own names alone, with strict headers; the text of no error leaves by accident."""

    def __init__(self, page: ASGIApp, listen: str) -> None:
        self._page = page
        self._name = listen.rpartition(":")[0].strip("[]").lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_strictly(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        app = self._page
        if not is_own_name(Request(scope).headers.get("host", ""), self._name):
            text = "this page answers under localhost, an IP address or the name in SIDECAR_HTTP_LISTEN\n"
            app = PlainTextResponse(text, 421)
        try:
            await app(scope, receive, send_strictly)
        except Exception:  # Starlette has answered 500
            log.exception("the page failed")
