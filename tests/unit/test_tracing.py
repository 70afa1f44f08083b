"""When tracing is on, what keeps it off, and that each span ends once, whatever becomes of its event."""

from __future__ import annotations

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
from sidecar.errors import Unavailable
from sidecar.settings import Settings
from sidecar.telemetry.tracing import EventTracing, Exporter, from_env
from tests.harness.ports import LOOPBACK
from tests.unit.bench import AWAY, Bench, end, events

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
def test_a_wrong_value_is_logged_and_ends_no_start(
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
        tracing.begin(message)
        tracing.end(message, "stored", "1-0")
        assert message.traceparent == ""
        tracing.forwarded(ModelReadyToDeploy(traceparent=CALLER), 0, "stored", "1-0")
    assert [record.getMessage() for record in caplog.records] == [
        "spans cannot be begun, and are lost: ZeroDivisionError"
    ]


@pytest.mark.parametrize("value", ["Author ization=Bearer secretX", "authorization=Bearer%0AsecretX"])
def test_no_header_is_logged(value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
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


def test_a_collector_that_is_away_is_logged_once_and_once_when_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
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


class Ends(EventTracing):
    """Writes down how the span of each event ended, by the event's id."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, str]] = []

    def end(self, message: ModelReadyToDeploy, outcome: str, entry_id: str) -> None:
        self.ended.append((message.event_id, outcome))

    def fail(self, message: ModelReadyToDeploy, reason: str) -> None:
        self.ended.append((message.event_id, reason))

    def forwarded(self, message: ModelReadyToDeploy, spooled_ms: int, outcome: str, entry_id: str) -> None:
        self.ended.append((message.event_id, f"forwarded: {outcome}"))


async def test_a_span_ends_once_with_what_became_of_its_event() -> None:
    tracing = Ends()
    bench = Bench(tracing=tracing)
    stored, spooled, refused, abandoned = events(0, 4)
    await bench.publish([stored])
    bench.queue.always = AWAY
    with pytest.raises(Unavailable):
        await bench.publish([refused], pb.DURABILITY_PRIMARY, timeout=0.05)
    await bench.publish([spooled])
    bench.queue.always = None
    bench.forward()
    await bench.until(lambda: not bench.spool.depth)
    bench.queue.gate.clear()
    future = bench.publisher.submit([abandoned], pb.DURABILITY_SPOOLED, 1)
    await bench.until(lambda: bool(bench.publisher.pending))
    future.cancel()  # the caller is gone
    bench.queue.gate.set()
    await bench.until(lambda: not bench.publisher.pending)
    assert tracing.ended == [
        (stored.id, "stored"),
        (refused.id, "REDIS_UNAVAILABLE"),
        (spooled.id, "spooled"),
        (spooled.id, "forwarded: stored"),
        (abandoned.id, "stored"),
    ]
    await end(bench)


def test_what_is_begun_ends_and_nothing_is_kept_of_it(caplog: pytest.LogCaptureFixture) -> None:
    tracing = EventTracing(TracerProvider(shutdown_on_exit=False), "stream")
    messages = [ModelReadyToDeploy(event_id=str(number)) for number in range(3)]
    for message in messages:
        tracing.begin(message)
    assert len(tracing._open) == 3
    tracing.end(messages[0], "stored", "1-0")
    tracing.fail(messages[1], "OVERLOADED")
    tracing.fail(messages[1], "OVERLOADED")
    tracing.end(messages[2], "spooled", "")
    assert not tracing._open
    assert not caplog.records
