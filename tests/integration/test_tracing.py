"""Tracing: a trace is one from the caller to the consumer, and costs no event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

import modelready
import modelready.aio
from modelready import ModelReadyToDeploy
from modelready.consumer import Consumer
from sidecar.app import Running, running
from sidecar.settings import Settings
from tests.harness.ports import LOOPBACK
from tests.harness.redis_server import RedisServer
from tests.integration.calls import entries, to_redis

STREAM = "{model-ready}:events"
FIELDS: dict[str, Any] = {"name": "fraud", "version": 7, "uri": "s3://models/fraud/7/"}
NOT_SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


class Recorded:
    """The spans that ended, of the caller, the sidecar and the consumer alike."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")

    def named(self, name: str) -> list[ReadableSpan]:
        """Those with a name, in the order of their ends."""
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """What a registry and a deployer do once at their start: name a provider for the process."""
    recorded = Recorded()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", recorded.provider)
    return recorded


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@asynccontextmanager
async def sidecar_with(provider: TracerProvider, server: RedisServer, spool: Path) -> AsyncIterator[Running]:
    listen = {"SIDECAR_LISTEN": f"{LOOPBACK}:0", "SIDECAR_HTTP_LISTEN": f"{LOOPBACK}:0", "SPOOL_DIR": str(spool)}
    settings = Settings.from_env(to_redis(server, SIDECAR_SHUTDOWN_SECONDS="3", **listen))
    async with running(settings, provider) as sidecar:
        yield sidecar


def traceparent(span: ReadableSpan) -> str:
    context = span.context
    assert context is not None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def is_child(child: ReadableSpan, parent: ReadableSpan) -> bool:
    assert child.context is not None
    assert parent.context is not None
    same = child.context.trace_id == parent.context.trace_id
    return same and child.parent is not None and child.parent.span_id == parent.context.span_id


def consume_one(server: RedisServer, recorded: Recorded) -> None:
    consumer = Consumer.from_env(group="deployer", environ=to_redis(server), block_seconds=0.1)

    def deploy(event: ModelReadyToDeploy) -> None:
        with recorded.tracer.start_as_current_span("deploy"):
            consumer.stop()

    consumer.run(deploy)


async def consume_one_aio(server: RedisServer, recorded: Recorded) -> None:
    consumer = modelready.aio.Consumer.from_env(group="deployer", environ=to_redis(server), block_seconds=0.1)

    async def deploy(event: ModelReadyToDeploy) -> None:
        with recorded.tracer.start_as_current_span("deploy"):
            await asyncio.sleep(0)
            consumer.stop()

    await consumer.run(deploy)


@pytest.mark.parametrize("twin", ["sync", "aio"])
async def test_a_trace_is_whole_from_the_caller_to_the_consumer(
    twin: str, recorded: Recorded, server: RedisServer, tmp_path: Path
) -> None:
    async with sidecar_with(recorded.provider, server, tmp_path) as sidecar:
        with recorded.tracer.start_as_current_span("register"):
            if twin == "sync":
                with modelready.Publisher(sidecar.addresses[0]) as publisher:
                    receipt = await asyncio.to_thread(publisher.publish, correlation_id="change-7", **FIELDS)
            else:
                async with modelready.aio.Publisher(sidecar.addresses[0]) as publisher:
                    receipt = await publisher.publish(correlation_id="change-7", **FIELDS)
        if twin == "sync":
            await asyncio.to_thread(consume_one, server, recorded)
        else:
            await consume_one_aio(server, recorded)

    names = "register", f"publish {STREAM}", f"process {STREAM}", "deploy"
    register, publish, process, deploy = (recorded.one(name) for name in names)
    assert len(recorded.exporter.get_finished_spans()) == len(names)
    assert register.parent is None
    assert is_child(publish, register)
    assert is_child(process, publish)
    assert is_child(deploy, process)

    (entry,) = entries(server)
    assert entry[b"traceparent"].decode() == traceparent(publish)
    assert (publish.kind, process.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    message = {
        "messaging.system": "redis",
        "messaging.destination.name": STREAM,
        "messaging.message.id": receipt.event_id,
        "messaging.message.conversation_id": "change-7",
        "modelready.entry_id": receipt.entry_id,
        "modelready.model.name": "fraud",
        "modelready.model.version": "7",
    }
    sent = {"messaging.operation.name": "publish", "messaging.operation.type": "send", "modelready.outcome": "stored"}
    assert publish.attributes == message | sent
    assert process.attributes == message | {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.consumer.group.name": "deployer",
        "modelready.attempts": 1,
    }
