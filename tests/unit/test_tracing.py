"""When tracing is on, what keeps it off, and that each span ends once, whatever becomes of its event."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from urllib.parse import unquote

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult

from modelready.v1 import publisher_service_pb2 as pb
from modelready.v1.event_pb2 import ModelReadyToDeploy
from sidecar.app import _tracing
from sidecar.errors import Overloaded, PublishError, ShuttingDown, Unavailable
from sidecar.publishing.interfaces import Appended, Event
from sidecar.publishing.submission import SPOOLED, Published
from sidecar.settings import Settings
from sidecar.tracing import EventTracing, Exporter, from_env
from tests.harness.ports import LOOPBACK
from tests.unit.bench import AWAY, Bench, events

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
URL = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4317"}


@pytest.mark.parametrize(
    ("environ", "on"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "registry"}, False),
        (URL, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:4317"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, True),
        ({**URL, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({**URL, "OTEL_SDK_DISABLED": "True"}, False),
        ({**URL, "OTEL_SDK_DISABLED": "true\n"}, False),
        ({**URL, "OTEL_SDK_DISABLED": ""}, True),
    ],
)
def test_opentelemetry_s_own_variables_turn_it_on(environ: dict[str, str], on: bool) -> None:
    assert Settings.from_env({"REDIS_HOST": "r", **environ}).tracing.on is on


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "'http/json': it may be grpc or http/protobuf"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "max_queue_size"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "soon"),
    ],
)
def test_a_wrong_value_is_told_and_ends_no_start(
    name: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for each, set_to in {**URL, name: value}.items():
        monkeypatch.setenv(each, set_to)
    assert _tracing(Settings.from_env({"REDIS_HOST": "r", **os.environ}), "stream", None) is None
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("tracing is off: ")
    assert expected in record.getMessage()


class Broken(Sampler):
    """Somebody's."""

    def should_sample(self, *_: object, **__: object) -> SamplingResult:
        raise ZeroDivisionError

    def get_description(self) -> str:
        return "broken"


def test_a_sampler_that_raises_costs_no_event(caplog: pytest.LogCaptureFixture) -> None:
    tracing = EventTracing(TracerProvider(sampler=Broken(), shutdown_on_exit=False), "stream")
    for _ in range(2):
        message = ModelReadyToDeploy(event_id="e")
        tracing.begin(message).end(Published(pb.OUTCOME_STORED, "1-0"))
        assert message.traceparent == ""
        tracing.forwarded(ModelReadyToDeploy(traceparent=CALLER), 0, Appended("1-0", duplicate=False))
    assert [record.getMessage() for record in caplog.records] == [
        "spans cannot be begun, and are lost: ZeroDivisionError"
    ]


@pytest.mark.parametrize("value", ["Author ization=Bearer secretX", "authorization=Bearer%0AsecretX"])
def test_no_header_is_told(value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", value)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{LOOPBACK}:1")
    tracing = from_env(Settings.from_env({"REDIS_HOST": "r", **os.environ}).tracing, "stream")
    exporter = tracing._exporter
    assert exporter is not None
    exporter._inner = Changeable()
    exporter._inner.said = f"Invalid header value: {unquote(value.partition('=')[2])!r}"
    exporter._inner.result = SpanExportResult.FAILURE
    exporter.export([])
    tracing._provider.shutdown()
    assert "spans do not reach the collector" in caplog.text
    assert "secretX" not in caplog.text


class Changeable(SpanExporter):
    result = SpanExportResult.SUCCESS
    said = "connection refused"

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self.result is SpanExportResult.FAILURE:
            logging.getLogger("opentelemetry.exporter.some").error("%s", self.said)
        return self.result


def test_a_collector_that_is_away_is_told_once_and_once_when_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    inner = Changeable()
    exporter = Exporter(inner)
    for result in [SpanExportResult.SUCCESS, *[SpanExportResult.FAILURE] * 3, *[SpanExportResult.SUCCESS] * 2] * 2:
        inner.result = result
        assert exporter.export([]) is result
        assert exporter.away is (result is SpanExportResult.FAILURE)
    assert [record.getMessage() for record in caplog.records] == [
        "spans do not reach the collector, and are lost: connection refused",
        "spans reach the collector",
    ] * 2


class Ends(list[Published | PublishError]):
    """Stands for the span of each event."""

    def end(self, result: Published | PublishError) -> None:
        self.append(result)


def traced(first: int, end: int) -> list[tuple[Event, Ends]]:
    spans = [Ends() for _ in range(first, end)]
    return [(event._replace(span=span), span) for event, span in zip(events(first, end), spans, strict=True)]


async def test_a_span_ends_with_what_became_of_its_event(bench: Bench) -> None:
    (one, stored), (two, spooled), (three, refused), (four, abandoned) = traced(0, 4)
    await bench.publish([one])
    bench.queue.always = AWAY
    with pytest.raises(Unavailable):
        await bench.publish([three], pb.DURABILITY_PRIMARY, timeout=0.05)
    await bench.publish([two])
    bench.queue.always = None
    bench.forward()
    await bench.until(lambda: not bench.spool.depth)
    assert (stored, spooled) == ([Published(pb.OUTCOME_STORED, "1-0")], [SPOOLED])
    assert [type(result) for result in refused] == [Unavailable]

    bench.queue.gate.clear()
    future = bench.publisher.submit([four], pb.DURABILITY_SPOOLED, 1)
    await asyncio.sleep(0.01)
    future.cancel()  # the caller is gone
    bench.queue.gate.set()
    await bench.until(lambda: bool(abandoned))
    assert [type(result) for result in abandoned] == [Published]


async def test_a_span_of_what_is_not_taken_ends_too(bench: Bench) -> None:
    crowd, ((late, span),) = traced(0, 1001), traced(1001, 1002)
    with pytest.raises(Overloaded):
        await bench.publish([event for event, _ in crowd])
    assert {type(span[0]) for _, span in crowd} == {Overloaded}
    assert {len(span) for _, span in crowd} == {1}
    await bench.publisher.close(0.1)
    with pytest.raises(ShuttingDown):
        await bench.publish([late])
    assert [type(result) for result in span] == [ShuttingDown]
