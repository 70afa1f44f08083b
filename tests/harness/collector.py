"""A collector of spans that OTLP reaches over gRPC or HTTP, in this process."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from .ports import LOOPBACK


class Collector:
    """Keeps what it is sent. `protocol` as in OTEL_EXPORTER_OTLP_PROTOCOL. A context manager."""

    def __init__(self, protocol: str = "grpc", port: int = 0) -> None:
        self.services: set[str] = set()
        """The service.name of those who sent."""
        self.spans: list[Span] = []
        self._server = _Http(self._keep, port) if protocol == "http/protobuf" else _Grpc(self._keep, port)

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self._server.port}"

    def _keep(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            attributes = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            self.services.add(attributes["service.name"])
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()


class _Grpc(TraceServiceServicer):
    def __init__(self, keep: Any, port: int) -> None:
        self._keep = keep
        self._server = grpc.server(ThreadPoolExecutor(1))
        add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self.port = self._server.add_insecure_port(f"{LOOPBACK}:{port}")
        self._server.start()

    def Export(self, request: ExportTraceServiceRequest, context: Any) -> ExportTraceServiceResponse:  # noqa: N802 - gRPC's
        self._keep(request)
        return ExportTraceServiceResponse()

    def close(self) -> None:
        self._server.stop(None).wait()


class _Http:
    def __init__(self, keep: Any, port: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["content-length"]))
                keep(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer((LOOPBACK, port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
