"""Tracing: a trace is one from the caller to the consumer, and costs no event."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

import modelready
import modelready.aio
from modelready import Durability, ModelReadyToDeploy, Outcome, PublishError, Unavailable, model_ready
from modelready._tracing import current_traceparent
from modelready.consumer import Consumer
from sidecar.app import Running, running
from sidecar.settings import Settings
from tests.harness.ports import LOOPBACK
from tests.harness.redis_server import RedisServer
from tests.harness.waiting import auntil
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


async def test_a_spooled_event_keeps_its_trace(recorded: Recorded, tmp_path: Path) -> None:
    server = RedisServer()
    try:
        async with (
            sidecar_with(recorded.provider, server, tmp_path) as sidecar,
            modelready.aio.Publisher(sidecar.addresses[0]) as publisher,
        ):
            with recorded.tracer.start_as_current_span("register"):
                receipt = await publisher.publish(**FIELDS)
            assert receipt.outcome is Outcome.SPOOLED
            away = time.time_ns()
            server.start()
            await auntil(lambda: bool(recorded.named(f"forward {STREAM}")), 5, "the event is forwarded")
        publish, forward = recorded.one(f"publish {STREAM}"), recorded.one(f"forward {STREAM}")
        (entry,) = entries(server)
        assert entry[b"traceparent"].decode() == traceparent(publish)
        assert is_child(publish, recorded.one("register"))
        assert is_child(forward, publish)
        outcomes = [(span.attributes or {})["modelready.outcome"] for span in (publish, forward)]
        assert outcomes == ["spooled", "stored"]
        assert forward.start_time is not None
        assert forward.end_time is not None
        assert forward.start_time < away < forward.end_time  # its time is that in the spool
    finally:
        server.close()


async def test_each_event_of_a_frame_goes_on_with_its_own_trace(
    recorded: Recorded, server: RedisServer, tmp_path: Path
) -> None:
    def supply() -> Iterator[ModelReadyToDeploy]:
        for version in range(3):
            with recorded.tracer.start_as_current_span(f"register {version}"):
                here = current_traceparent()
                yield model_ready(name="fraud", version=version, uri="s3://models/fraud/", traceparent=here)
        yield model_ready(name="fraud", version="not sampled", uri="s3://models/fraud/", traceparent=NOT_SAMPLED)
        yield model_ready(name="fraud", version="no trace", uri="s3://models/fraud/")

    async with (
        sidecar_with(recorded.provider, server, tmp_path) as sidecar,
        modelready.aio.Publisher(sidecar.addresses[0]) as publisher,
    ):
        receipts = [result async for result in publisher.publish_many(list(supply()))]
    assert not any(isinstance(result, PublishError) for result in receipts)
    spans = recorded.named(f"publish {STREAM}")
    sent = {str((span.attributes or {})["modelready.model.version"]): span for span in spans}
    assert sent.keys() == {"0", "1", "2", "no trace"}
    assert all(is_child(sent[str(version)], recorded.one(f"register {version}")) for version in range(3))
    assert sent["no trace"].parent is None
    theirs = [traceparent(sent[version]) for version in ("0", "1", "2", "no trace")]
    stored = [entry[b"traceparent"].decode() for entry in entries(server)]
    assert stored == [*theirs[:3], NOT_SAMPLED, theirs[3]]


async def test_a_failure_is_in_the_trace_by_its_reason_alone(recorded: Recorded, tmp_path: Path) -> None:
    server = RedisServer()
    async with (
        sidecar_with(recorded.provider, server, tmp_path) as sidecar,
        modelready.aio.Publisher(sidecar.addresses[0], timeout=2, durability=Durability.PRIMARY) as publisher,
    ):
        with pytest.raises(Unavailable):
            await publisher.publish(**FIELDS)
    failed = recorded.named(f"publish {STREAM}")[0]
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.status.description is None
    assert failed.attributes is not None
    assert failed.attributes["error.type"] == "REDIS_UNAVAILABLE"
    assert "modelready.outcome" not in failed.attributes
    server.close()


async def test_with_a_sampler_that_takes_none_the_entry_says_so(server: RedisServer, tmp_path: Path) -> None:
    """Else consumers would record traces that begin nowhere."""
    provider = TracerProvider(ALWAYS_OFF, shutdown_on_exit=False)
    async with (
        sidecar_with(provider, server, tmp_path) as sidecar,
        modelready.aio.Publisher(sidecar.addresses[0]) as publisher,
    ):
        await publisher.publish(**FIELDS)
    (entry,) = entries(server)
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[02]", entry[b"traceparent"].decode())
