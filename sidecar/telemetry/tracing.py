"""Tracing with OpenTelemetry. Imported only if tracing is on: the SDK costs time and memory, and is optional.

Publishing never waits for a collector. Spans that cannot be sent are lost, and nothing else is.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from urllib.parse import unquote

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from modelready._thread import in_thread
from modelready.v1.event_pb2 import ModelReadyToDeploy
from sidecar import __version__
from sidecar.settings import TracingSettings

log = logging.getLogger(__name__)

_SERVICE = "modelready-sidecar"
_FLUSH_SECONDS = 2.0
_EXPORTERS = {
    "grpc": "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http.trace_exporter",
}
_W3C = TraceContextTextMapPropagator()


class EventTracing:
    """See publishing.interfaces.Tracing."""

    def __init__(self, provider: TracerProvider, stream: str, exporter: Exporter | None = None) -> None:
        """`stream`: the queue's key. `exporter`: where the provider's spans go, if this object has to close it."""
        self._tracer = provider.get_tracer(_SERVICE, __version__)
        self._provider = provider
        self._exporter = exporter
        self._stream = stream
        self._open: dict[str, Span] = {}  # by the traceparent that `begin` gave the event
        self._failed = False

    def begin(self, message: ModelReadyToDeploy) -> None:
        """See publishing.interfaces.Tracing.begin."""
        try:
            span = self._start("publish", SpanKind.PRODUCER, message)
            if span.get_span_context().is_valid and (span.is_recording() or not message.traceparent):
                carrier: dict[str, str] = {}
                _W3C.inject(carrier, set_span_in_context(span, Context()))
                message.traceparent = carrier["traceparent"]
                if span.is_recording():
                    self._open[message.traceparent] = span
        except Exception as error:  # noqa: BLE001 - samplers are third-party code; none may fail an event
            self._no_span(error)

    def end(self, message: ModelReadyToDeploy, outcome: str, entry_id: str) -> None:
        """See publishing.interfaces.Tracing.end."""
        span = self._open.pop(message.traceparent, None)
        if span is not None:
            _end(span, outcome, entry_id)

    def fail(self, message: ModelReadyToDeploy, reason: str) -> None:
        """See publishing.interfaces.Tracing.fail."""
        span = self._open.pop(message.traceparent, None)
        if span is not None:
            span.set_attribute("error.type", reason)
            span.set_status(StatusCode.ERROR)
            span.end()

    def forwarded(self, message: ModelReadyToDeploy, spooled_ms: int, outcome: str, entry_id: str) -> None:
        """See publishing.interfaces.Tracing.forwarded."""
        if message.traceparent:
            try:
                span = self._start("forward", SpanKind.INTERNAL, message, start_ns=spooled_ms * 1_000_000)
            except Exception as error:  # noqa: BLE001 - as above
                self._no_span(error)
            else:
                _end(span, outcome, entry_id)

    def _no_span(self, error: Exception) -> None:
        """Log the first failure."""
        if not self._failed:
            log.warning("spans cannot be begun, and are lost: %s", type(error).__name__)
        self._failed = True

    def _start(self, name: str, kind: SpanKind, message: ModelReadyToDeploy, start_ns: int | None = None) -> Span:
        return self._tracer.start_span(
            f"{name} {self._stream}",
            _W3C.extract({"traceparent": message.traceparent}, Context()) if message.traceparent else Context(),
            kind,
            {
                "messaging.system": "redis",
                "messaging.operation.name": name,
                "messaging.operation.type": "send",
                "messaging.destination.name": self._stream,
                "messaging.message.id": message.event_id,
                "messaging.message.conversation_id": message.correlation_id,
                "modelready.model.name": message.model.name,
                "modelready.model.version": message.model.version,
            },
            start_time=start_ns,
        )

    async def close(self, seconds: float) -> None:
        """Send the remaining spans, within `seconds`; do not wait while the collector is away."""
        if self._exporter is None:
            return
        with suppress(Exception):  # TimeoutError, and any error of the SDK
            async with asyncio.timeout(0 if self._exporter.away else min(seconds, _FLUSH_SECONDS)):
                await in_thread("spans", self._provider.shutdown)
        self._exporter.shutdown()


def _end(span: Span, outcome: str, entry_id: str) -> None:
    place = {"modelready.entry_id": entry_id} if entry_id else {}
    span.set_attributes({"modelready.outcome": outcome, **place})
    span.end()


class Exporter(SpanExporter):
    """Passes spans to another exporter. Logs once when the collector is away and once when it is back.

    The libraries would log it every second.
    """

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self._reason = _Reason()
        self._away_since: float | None = None

    @property
    def away(self) -> bool:
        """Whether the last spans did not reach the collector."""
        return self._away_since is not None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See SpanExporter.export."""
        result = self._inner.export(spans)
        if result is SpanExportResult.SUCCESS and self._away_since is not None:
            log.info("spans reach the collector", extra={"seconds_away": round(time.monotonic() - self._away_since, 1)})
            self._away_since = None
        elif result is not SpanExportResult.SUCCESS and self._away_since is None:
            self._away_since = time.monotonic()
            log.warning("spans do not reach the collector, and are lost: %s", self._reason.text)
        return result

    def shutdown(self) -> None:
        """See SpanExporter.shutdown."""
        self._inner.shutdown()


class _Reason(logging.Handler):
    """Keeps the last line that the libraries would log, without the values of headers, which may be tokens."""

    text = ""

    def __init__(self) -> None:
        super().__init__()
        headers = ",".join(os.environ.get(f"OTEL_EXPORTER_OTLP_{name}", "") for name in ("HEADERS", "TRACES_HEADERS"))
        values = [unquote(pair.partition("=")[2]).strip() for pair in headers.split(",")]
        self._secrets = [form for value in values if value for form in (value, repr(value)[1:-1])]
        for name in ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal"):
            library = logging.getLogger(name)
            library.propagate = False
            library.handlers[:] = [self]

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler.emit."""
        text = record.getMessage()
        for secret in self._secrets:
            text = text.replace(secret, "***")
        self.text = text


def from_env(settings: TracingSettings, stream: str) -> EventTracing:
    """Tracing as OpenTelemetry's own variables set it. Raises ImportError, ValueError, and any error of the SDK."""
    protocol = settings.traces_protocol or settings.protocol
    if protocol not in _EXPORTERS:
        name = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL" if settings.traces_protocol else "OTEL_EXPORTER_OTLP_PROTOCOL"
        raise ValueError(f"{name} is {protocol!r}: it may be {' or '.join(_EXPORTERS)}")
    logging.getLogger("opentelemetry.util.re").disabled = True  # it logs headers that it cannot parse
    for name in [name for name, value in os.environ.items() if name.startswith("OTEL_") and not value]:
        del os.environ[name]  # an empty variable counts as unset; the SDK would read some as a value
    try:
        library = import_module(_EXPORTERS[protocol])
    except ImportError as error:
        package = _EXPORTERS[protocol].rpartition(".")[0].replace(".", "-")
        raise ImportError(f"{protocol} needs {package}: {error}") from error
    exporter = Exporter(library.OTLPSpanExporter())
    # The process must not wait for a collector when it exits; `close` waits for a limited time.
    provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return EventTracing(provider, stream, exporter)


def _resource() -> Resource:
    named = Resource.create()
    if str(named.attributes.get("service.name", "")).startswith("unknown_service"):
        return named.merge(Resource({"service.name": _SERVICE}))
    return named
