"""A caller's trace goes on where the process uses OpenTelemetry; where it does not, the client does not import it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing, suppress
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

import modelready.aio.consumer
from clients.python.tests.fake_sidecar import FakeSidecar
from clients.python.tests.twins import CONSUMERS, PUBLISHERS
from modelready import ModelReadyToDeploy, model_ready
from modelready.consumer import Consumer
from modelready.entry import encode
from modelready.keys import Keys
from tests.harness.redis_server import RedisServer

STREAM = Keys("model-ready").events
PROCESS = f"process {STREAM}"
SENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333{}-01"
TRACE_ID, SPAN_IDS = 0x0AF7651916CD43DD8448EB211C80319C, [0xB7AD6B7169203330, 0xB7AD6B7169203331, 0xB7AD6B7169203332]


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[ReadableSpan]]:
    """The spans of this process, which uses OpenTelemetry."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return lambda: list(exporter.get_finished_spans())


@pytest.fixture
def server(shared: RedisServer) -> RedisServer:
    """With three events, each of a model of its own and with a span of its own."""
    with shared.client() as client:
        client.flushall()
        for number in range(3):
            event = model_ready(name=f"m{number}", version=1, uri="s3://m/", traceparent=SENT.format(number))
            client.xadd(STREAM, encode(event))
    return shared


@pytest.fixture(params=list(CONSUMERS))
def consumer(request: pytest.FixtureRequest, server: RedisServer) -> Iterator[Any]:
    quick: dict[str, Any] = {
        "block_seconds": 0.05,
        "backoff_base_seconds": 0.001,
        "backoff_max_seconds": 0.001,
        "batch": 3,
    }
    consumer = CONSUMERS[request.param].from_env(group="deployer", environ=environ(server), **quick)
    yield consumer
    consumer.close()


def environ(server: RedisServer) -> dict[str, str]:
    return {"REDIS_HOST": server.host, "REDIS_PORT": f"{server.port}"}


def current_span_id() -> int:
    return trace.get_current_span().get_span_context().span_id


def parents(spans: list[ReadableSpan]) -> list[int]:
    assert {span.name for span in spans} == {PROCESS}
    assert {span.parent.trace_id for span in spans if span.parent} == {TRACE_ID}
    return [span.parent.span_id for span in spans if span.parent]


@pytest.mark.parametrize("publish", list(PUBLISHERS))
def test_the_current_span_goes_with_an_event_that_names_none(
    publish: str, sidecar: FakeSidecar, ended: Callable[[], list[ReadableSpan]]
) -> None:
    with PUBLISHERS[publish](sidecar.address) as publisher:
        with trace.get_tracer("registry").start_as_current_span("register") as span:
            publisher.publish(name="fraud", version=1, uri="s3://m/")
            publisher.publish(name="fraud", version=2, uri="s3://m/", traceparent=SENT.format(1))
            list(publisher.publish_many([model_ready(name="fraud", version=3, uri="s3://m/")]))
        publisher.publish(name="fraud", version=4, uri="s3://m/")
    here = span.get_span_context()
    current = f"00-{here.trace_id:032x}-{here.span_id:016x}-{here.trace_flags:02x}"
    assert [event.traceparent for event in sidecar.entries] == [current, SENT.format(1), current, ""]


def test_each_call_of_a_handler_has_a_span(consumer: Any, ended: Callable[[], list[ReadableSpan]]) -> None:
    calls: list[int] = []

    def handle(event: ModelReadyToDeploy) -> None:
        calls.append(current_span_id())
        if len(calls) == 1:
            raise ValueError("not yet")
        if len(calls) == 4:
            consumer.stop()

    consumer.run(handle)
    spans = ended()
    assert [span.context and span.context.span_id for span in spans] == calls
    assert sorted(parents(spans)) == sorted([SPAN_IDS[0], *SPAN_IDS])
    assert [span.status.status_code for span in spans] == [StatusCode.ERROR, *[StatusCode.UNSET] * 3]
    assert [event.name for event in spans[0].events] == ["exception"]
    again = next(span for span in spans[1:] if span.parent and span.parent.span_id == SPAN_IDS[0])
    assert (again.attributes or {})["modelready.attempts"] == 2
    assert not trace.get_current_span().get_span_context().is_valid


def test_a_batch_has_one_span_with_a_link_to_each_event(consumer: Any, ended: Callable[[], list[ReadableSpan]]) -> None:
    consumer.run_batches(lambda events: consumer.stop())
    (span,) = ended()
    assert span.parent is None
    assert (span.attributes or {})["messaging.batch.message_count"] == 3
    assert [link.context.span_id for link in span.links] == SPAN_IDS


def check_block(inside: int, spans: list[ReadableSpan]) -> None:
    (span,) = spans
    assert span.context is not None
    assert span.context.span_id == inside
    assert parents(spans) == SPAN_IDS[:1]
    assert span.status.status_code is StatusCode.ERROR
    assert not trace.get_current_span().get_span_context().is_valid


def test_a_block_by_hand_has_a_span(server: RedisServer, ended: Callable[[], list[ReadableSpan]]) -> None:
    inside = 0
    for delivery in Consumer.from_env(group="hand", environ=environ(server)):
        with suppress(ValueError), delivery:
            inside = current_span_id()
            raise ValueError("no")
        break
    check_block(inside, ended())


async def test_a_block_by_hand_has_a_span_in_asyncio(
    server: RedisServer, ended: Callable[[], list[ReadableSpan]]
) -> None:
    inside = 0
    iterator: Any = aiter(modelready.aio.Consumer.from_env(group="aio", environ=environ(server)))
    async with aclosing(iterator) as deliveries:
        async for delivery in deliveries:
            with suppress(ValueError):
                async with delivery:
                    inside = current_span_id()
                    raise ValueError("no")
            break
    check_block(inside, ended())


def test_the_consumer_does_not_import_opentelemetry() -> None:
    """Where redis-py does not, which imports what it finds of it."""
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import modelready.consumer, modelready.aio.consumer\n"
        "from modelready._tracing import ProcessSpans, current_traceparent\n"
        "with ProcessSpans('stream', 'group').of_batch([]): print(repr(current_traceparent()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "''\n", done.stderr
