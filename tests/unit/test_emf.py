"""Embedded metrics: what a line says, and that nothing waits for its reader."""

import errno
import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, cast

import pytest

from modelready.redis.lists import ListSettings
from sidecar.errors import Unavailable
from sidecar.metrics import Metrics
from sidecar.operations.interfaces import DeadLetterCounts, GroupState, MirrorState, Observed, QueueState, RedisState
from sidecar.telemetry.emf import UNITS, EmbeddedMetrics, task_id
from tests.harness.embedded_metrics import check, embedded
from tests.harness.waiting import patience, until


class Inspector:
    """A queue of two groups."""

    name = "model-ready"

    def __init__(self) -> None:
        self.away = False
        self.policy = "noeviction"
        self.max_memory = 400

    async def observe(self) -> Observed:
        if self.away:
            raise Unavailable("away")
        old = int(time.time() * 1000) - 90_000
        groups = [GroupState("a", 7, 2, 1, old, 5, 0.0), GroupState("b", 3, 3, 1, old + 60_000, 0, 0.0)]
        lists = [MirrorState(mirror, 5, 2, 1) for mirror in ListSettings(list_names="a,b").lists]
        lists[1] = lists[1]._replace(depth=9)
        return Observed(QueueState(20, 4, old, groups, lists), DeadLetterCounts([], None))

    async def redis(self) -> RedisState:
        return RedisState(0.001, eviction_policy=self.policy, used_memory=100, max_memory=self.max_memory)


class Reader:
    """A sidecar's embedded metrics, and who reads them from a pipe."""

    def __init__(self, service: str = "//model-registry") -> None:
        self._read, self.write = os.pipe()
        os.set_blocking(self._read, False)
        self.metrics, self.inspector = Metrics(), Inspector()
        self.metrics.spool_max_bytes.set(1000)
        self.emf = emf_of(self.metrics, self.inspector, service, self.write)

    async def next_line(self) -> dict[str, Any]:
        """The next line."""
        self.emf._write(await self.emf._queue())
        return self.line()

    def line(self) -> dict[str, Any]:
        (root,) = embedded(until(self.read, 5, "there is a line"))
        return root

    def read(self) -> str:
        try:
            return os.read(self._read, 1 << 20).decode()
        except BlockingIOError:
            return ""

    def close(self) -> None:
        os.close(self._read)  # first: a thread that is still writing must end
        self.emf.close()
        os.close(self.write)


def emf_of(metrics: Metrics, inspector: Inspector, service: str, fd: int) -> EmbeddedMetrics:
    return EmbeddedMetrics(metrics, cast("Any", inspector), cast("Any", inspector), service=service, outbox=True, fd=fd)


@pytest.fixture
def reader() -> Iterator[Reader]:
    one = Reader()
    yield one
    one.close()


async def test_a_line_has_every_metric_and_its_task(reader: Reader) -> None:
    metrics = reader.metrics
    metrics.published.labels("stored").inc(3)
    metrics.published.labels("INVALID_EVENT").inc()
    metrics.published.labels("SPOOL_FULL").inc(2)
    metrics.rpc_seconds.labels("Publish").observe(0.0016)
    metrics.rpc_seconds.labels("PublishBatch").observe(0.0019)
    metrics.rpc_seconds.labels("Publish").observe(60)
    metrics.redis_seconds.observe(0.0004)
    metrics.spool_bytes.set(125)
    metrics.spool_free_bytes.set(1 << 30)
    metrics.outbox_waiting.set(3)
    metrics.outbox_age.set(1.5)
    metrics.redis_up.set(1)
    root = await reader.next_line()
    named = {one["Name"]: one["Unit"] for one in root["_aws"]["CloudWatchMetrics"][0]["Metrics"]}
    assert named == UNITS
    assert (root["Service"], root["Queue"], root["TaskId"]) == ("//model-registry", "model-ready", task_id({}))
    assert (root["QueueDepth"], root["QueuePending"], root["DeadLetters"]) == (7, 5, 4)
    assert (root["ListDepth"], root["ListProcessing"], root["ListDeadLetters"]) == (11, 4, 2)
    assert 90 <= root["OldestUnacknowledgedAge"] < 100
    assert (root["PublishesStored"], root["PublishesDuplicate"], root["PublishesRefused"]) == (3, 0, 3)
    assert root["RpcLatency"] == {"Values": [2.0, 10000.0], "Counts": [2, 1]}
    assert (root["OutboxDepth"], root["OutboxOldestAge"], root["OutboxRefused"]) == (3, 1.5, 0)
    assert root["RedisLatency"] == {"Values": [0.5], "Counts": [1]}
    assert root["SpoolDiskFreeBytes"] == 1 << 30
    assert (root["SpoolBytesUsedPercent"], root["RedisUp"], root["EvictionPolicyWrong"]) == (12.5, 1, 0)
    assert root["RedisMemoryUsedPercent"] == 25


async def test_counts_are_those_since_the_last_line(reader: Reader) -> None:
    reader.metrics.published.labels("spooled").inc(3)
    reader.metrics.rpc_seconds.labels("Publish").observe(0.001)
    first = await reader.next_line()
    reader.metrics.published.labels("spooled").inc(2)
    reader.metrics.auth_failures.inc()
    second = await reader.next_line()
    assert (first["PublishesSpooled"], second["PublishesSpooled"]) == (3, 2)
    assert (first["AuthFailures"], second["AuthFailures"]) == (0, 1)
    assert "RpcLatency" in first
    assert "RpcLatency" not in second  # nothing to tell is no distribution


async def test_what_is_not_known_is_left_out(reader: Reader) -> None:
    reader.inspector.policy, reader.inspector.max_memory = "", 0
    assert not {"EvictionPolicyWrong", "RedisMemoryUsedPercent"} & (await reader.next_line()).keys()
    reader.inspector.policy = "allkeys-lru"
    assert (await reader.next_line())["EvictionPolicyWrong"] == 1
    reader.inspector.away = True
    root = await reader.next_line()
    assert not {"QueueDepth", "OldestUnacknowledgedAge", "DeadLetters", "EvictionPolicyWrong"} & root.keys()
    assert root["RedisUp"] == 0


@pytest.mark.parametrize("service", ["", " ", "\n", "//régistry\t\x1b[2J", "x" * 5000])
async def test_any_service_is_a_dimension(service: str) -> None:
    reader = Reader(service)
    try:
        await reader.next_line()
    finally:
        reader.close()


async def test_a_line_is_one_write_of_any_pipe(reader: Reader) -> None:
    """Below PIPE_BUF nothing gets in between, even where logs go to the same pipe."""
    for family in (reader.metrics.rpc_seconds.labels("Publish"), reader.metrics.redis_seconds):
        for bound in family._upper_bounds:
            family.observe(min(bound, 60))
    reader.metrics.published.labels("stored").inc(123_456_789)
    root = await reader.next_line()
    assert len(root["RpcLatency"]["Values"]) == len(reader.metrics.redis_seconds._upper_bounds)
    assert len(json.dumps(root, separators=(",", ":"))) < 4096


async def test_a_full_pipe_stalls_nobody_and_no_count_is_lost(reader: Reader) -> None:
    stored = reader.metrics.published.labels("stored")
    fcntl.fcntl(reader.write, fcntl.F_SETPIPE_SZ, 4096)
    os.write(reader.write, b" " * 4095 + b"\n")
    began = time.monotonic()
    for _ in range(4):
        stored.inc()
        reader.emf._write({})
    assert time.monotonic() - began < patience(0.5)
    assert len(reader.read()) == 4096
    counted = 0
    while counted < 4:
        reader.emf._write({})
        counted += sum(root["PublishesStored"] for root in embedded(until(reader.read, 5, "there is a line")))
    assert counted == 4


def test_a_stop_does_not_wait_for_who_does_not_read() -> None:
    reader = Reader()
    fcntl.fcntl(reader.write, fcntl.F_SETPIPE_SZ, 4096)
    os.write(reader.write, b" " * 4096)
    began = time.monotonic()
    reader.emf.close()
    assert time.monotonic() - began < patience(2)
    reader.close()


def test_an_output_that_is_gone_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    reader = Reader()
    reader.close()
    full = os.open("/dev/full", os.O_WRONLY)
    gone = emf_of(reader.metrics, reader.inspector, "s", full)
    for _ in range(2):
        until(lambda: not gone._output.busy, 5, "it takes another")
        gone._write({})
    gone.close()
    os.close(full)
    assert caplog.text.count(os.strerror(errno.ENOSPC)) == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b'{"TaskARN": "arn:aws:ecs:eu-west-1:1:task/cluster/0f1e"}', "0f1e"),
        (b"{}", task_id({})),
        (b"[]", task_id({})),
        (b"nonsense", task_id({})),
    ],
)
def test_the_task_s_id_is_ecs_s_or_the_host_s_name(answer: bytes, expected: str) -> None:
    asked: list[str] = []

    class Endpoint(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Endpoint) as server:
        threading.Thread(target=server.handle_request).start()
        uri = f"http://127.0.0.1:{server.server_port}/v4/abc"
        assert task_id({"ECS_CONTAINER_METADATA_URI_V4": uri}) == expected
    assert asked == ["/v4/abc/task"]
    assert task_id({"ECS_CONTAINER_METADATA_URI_V4": "http://127.0.0.1:1/v4"}) == task_id({})


def test_the_check_refuses_what_cloudwatch_would() -> None:
    good = {
        "_aws": {
            "Timestamp": 1,
            "CloudWatchMetrics": [
                {"Namespace": "n", "Dimensions": [["d"]], "Metrics": [{"Name": "m", "Unit": "Count"}]},
            ],
        },
        "d": "v",
        "m": 1,
    }
    check(good)
    for change in ({"d": ""}, {"m": float("nan")}, {"m": "1"}, {"m": {"Values": [1.0], "Counts": []}}):
        with pytest.raises(AssertionError):
            check(good | change)
    with pytest.raises(KeyError):
        check({name: value for name, value in good.items() if name != "m"})
