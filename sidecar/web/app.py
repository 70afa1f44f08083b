"""What HTTP answers: /metrics for Prometheus, /healthz and /readyz for load balancers, and the page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from sidecar.web.http import Request as OldRequest
from sidecar.web.http import Site

Probe = Callable[[], tuple[bool, dict[str, object]]]
"""Whether all is well, and the details."""

MAX_BYTES = 64 * 1024  # of a request's body
_MAX_PAGE_REQUESTS = 8  # at the same time; probes and metrics have no such bound


def build(
    metrics: Callable[[], bytes],
    health: Probe,
    ready: Probe,
    site: Site,
) -> Starlette:
    """Return the ASGI application."""
    under_way = 0

    async def serve_metrics(_: Request) -> Response:
        return Response(metrics(), media_type=CONTENT_TYPE_LATEST)

    async def serve_page(request: Request) -> Response:
        nonlocal under_way
        if under_way >= _MAX_PAGE_REQUESTS:
            return PlainTextResponse("too many requests at the same time\n", HTTPStatus.SERVICE_UNAVAILABLE)
        under_way += 1
        try:
            body = b""
            if request.method == "POST":
                length = request.headers.get("content-length", "")
                if not length.isdecimal() or len(length) > 9:
                    return PlainTextResponse(
                        "a request with a body needs its Content-Length\n", HTTPStatus.LENGTH_REQUIRED
                    )
                if int(length) > MAX_BYTES:
                    return PlainTextResponse(
                        f"a body has at most {MAX_BYTES} bytes\n", HTTPStatus.REQUEST_ENTITY_TOO_LARGE
                    )
                body = await request.body()
            method = "GET" if request.method == "HEAD" else request.method
            target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            page = await run_in_threadpool(
                site,
                OldRequest(method, target, dict(request.headers), body, request.client.host if request.client else ""),
            )
            return Response(page.body, page.status, dict(page.headers), page.content_type)
        finally:
            under_way -= 1

    return Starlette(
        routes=[
            Route("/metrics", serve_metrics),
            Route("/healthz", _probe(health)),
            Route("/readyz", _probe(ready)),
            Route("/{rest:path}", serve_page, methods=["GET", "POST"]),
        ]
    )


def _probe(state: Probe) -> Callable[[Request], Awaitable[Response]]:
    async def probe(_: Request) -> Response:
        well, details = state()
        return JSONResponse(details, HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE)

    return probe
