"""Spans leave a real process for a collector, and nothing that a collector does reaches those who publish."""

from __future__ import annotations

import socket
import sys
import time

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.harness.collector import Collector
from tests.harness.ports import LOOPBACK, PortLease
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import patience, until
from tests.integration.calls import STORED, calling, entries, model_event, to_redis

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NO_SPANS = "spans do not reach the collector"


def publish(sidecar: SidecarProcess, count: int = 1) -> None:
    with calling(sidecar) as caller:
        for _ in range(count):
            assert caller.publish(model_event(traceparent=CALLER)).outcome == STORED


def in_python(code: str) -> tuple[str, ...]:
    """`serve`, with some code before or behind it."""
    return sys.executable, "-c", f"import sys; from sidecar.cli.main import main; {code}"


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_spans_reach_a_collector_at_the_latest_with_the_stop(protocol: str, server: RedisServer) -> None:
    with Collector(protocol) as collector:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
        with SidecarProcess(to_redis(server, **env)) as sidecar:
            publish(sidecar, 3)
            assert sidecar.terminate() == 0
        spans = collector.spans
        kinds = {(span.name, span.kind) for span in spans}
        assert kinds == {("publish {model-ready}:events", Span.SPAN_KIND_PRODUCER)}
        assert len(spans) == 3
        assert {f"00-{span.trace_id.hex()}-{span.parent_span_id.hex()}-01" for span in spans} == {CALLER}
        ids = {f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01" for span in spans}
        assert ids == {entry[b"traceparent"].decode() for entry in entries(server)[-3:]}
        assert collector.services == {"modelready-sidecar"}


def test_a_collector_that_is_away_is_logged_once_and_once_when_it_is_back(server: RedisServer) -> None:
    lease = PortLease()
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{LOOPBACK}:{lease.port}", "OTEL_SERVICE_NAME": "registry"}
    env["OTEL_BSP_SCHEDULE_DELAY"] = "50"
    # Less than the exporter's shortest wait before it tries again, so that it says at once what was wrong.
    env["OTEL_EXPORTER_OTLP_TIMEOUT"] = "0.75"
    with SidecarProcess(to_redis(server, **env)) as sidecar:
        publish(sidecar)
        until(lambda: NO_SPANS in sidecar.logs(), 10, "it is logged")
        with Collector(port=lease.port) as collector:

            def arrived() -> bool:
                publish(sidecar)
                return bool(collector.spans)

            until(arrived, 10, "spans arrive")
            assert sidecar.terminate() == 0
            assert collector.services == {"registry"}
        logs = sidecar.logs()
        (line_logged,) = [line for line in logs.splitlines() if NO_SPANS in line]
        assert f"to {LOOPBACK}:{lease.port}, error code: " in line_logged
        assert logs.count("spans reach the collector") == 1
        assert "opentelemetry" not in logs
    lease.release()


def test_a_collector_that_hangs_holds_up_neither_a_publish_nor_the_stop(server: RedisServer) -> None:
    with socket.create_server((LOOPBACK, 0)) as hanging:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{LOOPBACK}:{hanging.getsockname()[1]}"}
        small = {"OTEL_BSP_MAX_QUEUE_SIZE": "2", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1"}
        with SidecarProcess(to_redis(server, **env, **small)) as sidecar:
            began = time.monotonic()
            publish(sidecar, 20)
            assert time.monotonic() - began < patience(2)
            began = time.monotonic()
            assert sidecar.terminate() == 0
            assert time.monotonic() - began < patience(4)
            assert '"level": "error"' not in sidecar.logs()


def test_without_the_extra_a_line_is_logged_and_events_are_published(server: RedisServer) -> None:
    env = {"OTEL_TRACES_EXPORTER": "otlp"}
    command = in_python("sys.modules['opentelemetry'] = None; main(['serve'])")
    with SidecarProcess(to_redis(server, **env), command=command) as sidecar:
        publish(sidecar)
        assert entries(server)[-1][b"traceparent"].decode() == CALLER
        (line,) = [line for line in sidecar.logs().splitlines() if '"warning"' in line]
        assert "tracing is off: " in line
        assert "modelready-sidecar[otel]" in line


def test_with_tracing_off_opentelemetry_is_not_imported(server: RedisServer) -> None:
    """Though it is installed, and redis-py would."""
    loaded = "[name for name, module in sys.modules.items() if 'opentelemetry' in name and module]"
    command = in_python(f"main(['serve']); print('imported:', {loaded})")
    with SidecarProcess(to_redis(server), command=command) as sidecar:
        publish(sidecar)
        assert entries(server)[-1][b"traceparent"].decode() == CALLER
        assert sidecar.terminate() == 0
        assert "imported: []" in sidecar.logs()
