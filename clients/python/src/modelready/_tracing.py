"""Continues a caller's trace if this process uses OpenTelemetry.

A process that has a span has imported OpenTelemetry already. So it is not imported here and need not be installed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer, TracerProvider

    from modelready._consumer.in_flight import Entry

_NO_SPAN = nullcontext()


def current_traceparent() -> str:
    """The current span's, in the form of W3C; empty where there is none."""
    get_current_span = _opentelemetry("get_current_span")
    if get_current_span is None:
        return ""
    span = get_current_span().get_span_context()
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}" if span.is_valid else ""


class ProcessSpans:
    """The spans of one consumer: one around each call of a handler."""

    def __init__(self, stream: str, group: str) -> None:
        """`stream`: the key of the queue."""
        self._name = f"process {stream}"
        self._attributes = {
            "messaging.system": "redis",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": stream,
            "messaging.consumer.group.name": group,
        }
        self._known: tuple[TracerProvider, Tracer | None] | None = None

    @property
    def wanted(self) -> bool:
        """Whether anything records them."""
        return self._tracer() is not None

    def of(self, entry: Entry) -> AbstractContextManager[object]:
        """Current within the block, as a child of the event's traceparent. What the block raises is recorded."""
        tracer = self._tracer()
        if tracer is None:
            return _NO_SPAN
        event = entry.event
        about: dict[str, str | int] = {
            "messaging.message.id": event.event_id,
            "messaging.message.conversation_id": event.correlation_id,
            "modelready.entry_id": entry.id,
            "modelready.attempts": entry.attempts,
            "modelready.model.name": event.model.name,
            "modelready.model.version": event.model.version,
        }
        parent = _context(event.traceparent) if event.traceparent else None
        return self._start(tracer, about, context=parent)

    def of_batch(self, entries: Sequence[Entry]) -> AbstractContextManager[object]:
        """The same for events that are handled together: a child of none of them, with a link to each."""
        tracer = self._tracer()
        if tracer is None:
            return _NO_SPAN
        from opentelemetry.trace import Link, get_current_span  # noqa: PLC0415 - it is imported already

        traceparents = [entry.event.traceparent for entry in entries if entry.event.traceparent]
        links = [Link(get_current_span(_context(each)).get_span_context()) for each in traceparents]
        return self._start(tracer, {"messaging.batch.message_count": len(entries)}, links=links)

    def _tracer(self) -> Tracer | None:
        """Of the provider that the process has named; None where it has not, and nothing could record a span."""
        get_tracer_provider, unnamed = _opentelemetry("get_tracer_provider"), _opentelemetry("ProxyTracerProvider")
        if get_tracer_provider is None or unnamed is None:
            return None
        provider, known = get_tracer_provider(), self._known
        if known is None or known[0] is not provider:
            tracer = None if isinstance(provider, unnamed) else provider.get_tracer("modelready")
            known = self._known = provider, tracer
        return known[1]

    def _start(self, tracer: Tracer, about: dict[str, str | int], **options: Any) -> AbstractContextManager[object]:
        from opentelemetry.trace import SpanKind  # noqa: PLC0415 - it is imported already

        return tracer.start_as_current_span(
            self._name, kind=SpanKind.CONSUMER, attributes={**self._attributes, **about}, **options
        )


def _opentelemetry(name: str) -> Any:
    """A function of opentelemetry.trace; None where the process does not use it, or is importing it just now."""
    return getattr(sys.modules.get("opentelemetry.trace"), name, None)


def _context(traceparent: str) -> Context:
    """The context that it names; one without a span where it is none."""
    from opentelemetry.context import Context  # noqa: PLC0415 - it is imported already
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415 - small

    return TraceContextTextMapPropagator().extract({"traceparent": traceparent}, Context())
