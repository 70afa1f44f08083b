"""Metrics for CloudWatch: a line in the embedded metric format on standard output, each minute and at the stop.

CloudWatch Logs turns such lines into metrics, so this needs no agent, no AWS call and no permission. There are only two
dimensions, since AWS charges for each combination of their values; the task's id is a plain property of the line.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import Counter, Gauge, Histogram

from sidecar.errors import QueueError
from sidecar.metrics import Metrics
from sidecar.operations.interfaces import QueueInspector, QueueObserver
from sidecar.output import Output

log = logging.getLogger(__name__)

NAMESPACE = "ModelReady"
DIMENSIONS = ("Service", "Queue")
# Every metric and its unit as CloudWatch names it; docs/operations.md describes each.
UNITS = {
    "QueueDepth": "Count",
    "QueuePending": "Count",
    "OldestUnacknowledgedAge": "Seconds",
    "DeadLetters": "Count",
    "ListDepth": "Count",
    "ListProcessing": "Count",
    "ListDeadLetters": "Count",
    "SpoolDepth": "Count",
    "SpoolOldestAge": "Seconds",
    "SpoolBytesUsedPercent": "Percent",
    "SpoolDiskFreeBytes": "Bytes",
    "OutboxDepth": "Count",
    "OutboxOldestAge": "Seconds",
    "OutboxRefused": "Count",
    "PublishesStored": "Count",
    "PublishesDuplicate": "Count",
    "PublishesSpooled": "Count",
    "PublishesRefused": "Count",
    "RpcLatency": "Milliseconds",
    "RedisLatency": "Milliseconds",
    "ConnectionFailures": "Count",
    "AuthFailures": "Count",
    "RedisUp": "None",
    "EvictionPolicyWrong": "None",
    "RedisMemoryUsedPercent": "Percent",
}
_INTERVAL_SECONDS = 60.0
_LAST_SECONDS = 0.5
_ACKNOWLEDGED = {"stored": "PublishesStored", "duplicate": "PublishesDuplicate", "spooled": "PublishesSpooled"}
_MAX_CHARACTERS = 1024

_STANDARD_OUTPUT = 1

Values = dict[str, Any]
"""A number or a distribution for each metric, by its name."""
Counts = dict[tuple[str, float], float]
"""Totals since the start, by the metric's name and the upper bound of the bucket; 0 where it has no buckets."""


class EmbeddedMetrics:
    """Writes the metrics of one sidecar. Counts and distributions are those since the last line.

    Unknown values, such as those of the queue while Redis is away, are left out.
    """

    def __init__(
        self,
        metrics: Metrics,
        inspector: QueueInspector,
        observer: QueueObserver,
        *,
        service: str,
        outbox: bool = False,
        fd: int | None = None,
    ) -> None:
        """`service`: SIDECAR_SOURCE, the first dimension. `outbox`: OUTBOX_URL is set.

        `fd`: what to write to; default: standard output.
        """
        self._metrics = metrics
        self._inspector = inspector
        self._observer = observer
        self._outbox = outbox
        self._dimensions = dict(zip(DIMENSIONS, (_dimension(service), _dimension(inspector.name)), strict=True))
        self._before: Counts = {}
        self._task = task_id({})
        self._failed = False
        self._output = Output(_STANDARD_OUTPUT if fd is None else fd, failed=self._warn_once)

    async def run(self) -> None:
        """Write a line now and then every minute, until cancelled."""
        self._task = await asyncio.to_thread(task_id, os.environ)
        due = time.monotonic()
        while True:
            self._write(await self._queue())
            due += _INTERVAL_SECONDS
            await asyncio.sleep(max(due - time.monotonic(), 1))

    def close(self) -> None:
        """Write a last line, without the queue. It takes at most half a second, even if nobody reads it."""
        self._write({})
        self._output.close(_LAST_SECONDS)

    def _write(self, queue_values: Values) -> None:
        if self._output.busy:
            return  # the next line will have these counts
        counts = _counts(self._metrics)
        change = {key: count - self._before.get(key, 0) for key, count in counts.items()}
        values = queue_values | _gauges(self._metrics) | _grown(change)
        if self._outbox:
            values |= _outbox(self._metrics)
        line = json.dumps(self._line(values), separators=(",", ":"), allow_nan=False).encode() + b"\n"
        if self._output.put(line):
            self._before = counts

    def _line(self, values: Values) -> dict[str, Any]:
        directive = {
            "Namespace": NAMESPACE,
            "Dimensions": [list(DIMENSIONS)],
            "Metrics": [{"Name": name, "Unit": UNITS[name]} for name in values],
        }
        about = {"Timestamp": time.time_ns() // 1_000_000, "CloudWatchMetrics": [directive]}
        return {"_aws": about, **self._dimensions, **values, "TaskId": self._task}

    def _warn_once(self, _lines: int, error: OSError) -> None:
        if not self._failed:
            log.warning("cannot write metrics to standard output: %s", error.strerror)
        self._failed = True

    async def _queue(self) -> Values:
        """The metrics of the queue; empty while Redis is away."""
        values: Values = {}
        with suppress(QueueError):
            state = (await self._observer.observe()).state
            ages = [group.age(time.time()) for group in state.groups]
            values |= {
                "QueueDepth": state.depth,
                "QueuePending": sum(group.pending for group in state.groups),
                "OldestUnacknowledgedAge": round(max(ages, default=0.0), 3),
                "DeadLetters": state.dead_letters,
            }
            if state.lists:
                values |= {
                    "ListDepth": max(one.depth + one.processing for one in state.lists),
                    "ListProcessing": sum(one.processing for one in state.lists),
                    "ListDeadLetters": sum(one.dead_letters for one in state.lists),
                }
            redis = await self._inspector.redis()
            if redis.eviction_policy:
                values["EvictionPolicyWrong"] = int(redis.eviction_policy != "noeviction")
            if redis.max_memory:  # 0: no limit, so no percentage
                values["RedisMemoryUsedPercent"] = round(100 * redis.used_memory / redis.max_memory, 3)
        return values


def task_id(environ: Mapping[str, str]) -> str:
    """The ECS task's id, from the metadata endpoint of its containers; elsewhere the host's name."""
    endpoint = urlsplit(environ.get("ECS_CONTAINER_METADATA_URI_V4", ""))
    if endpoint.netloc:
        with suppress(OSError, HTTPException, ValueError, LookupError, TypeError):
            connection = HTTPConnection(endpoint.netloc, timeout=2)  # urllib would use a proxy
            connection.request("GET", f"{endpoint.path}/task")
            return str(json.loads(connection.getresponse().read())["TaskARN"]).rpartition("/")[2]
    return socket.gethostname()


def _dimension(value: str) -> str:
    """The value as CloudWatch accepts it: ASCII, not blank, not too long."""
    legible = "".join(character if " " <= character <= "~" else "?" for character in value)
    return legible[:_MAX_CHARACTERS] if legible.strip() else "-"


def _gauges(metrics: Metrics) -> Values:
    bytes_used, bytes_most = _value(metrics.spool_bytes), _value(metrics.spool_max_bytes)
    return {
        "SpoolDepth": int(_value(metrics.spool_depth)),
        "SpoolOldestAge": round(max(_value(metrics.spool_age), 0), 3),
        "SpoolBytesUsedPercent": round(100 * bytes_used / bytes_most, 3) if bytes_most else 0,
        "SpoolDiskFreeBytes": int(_value(metrics.spool_free_bytes)),
        "RedisUp": int(_value(metrics.redis_up)),
    }


def _outbox(metrics: Metrics) -> Values:
    return {
        "OutboxDepth": int(_value(metrics.outbox_waiting)),
        "OutboxOldestAge": round(_value(metrics.outbox_age), 3),
        "OutboxRefused": int(_value(metrics.outbox_refused)),
    }


def _value(gauge: Gauge) -> float:
    return next(sample.value for family in gauge.collect() for sample in family.samples)


def _counts(metrics: Metrics) -> Counts:
    counts: Counts = {(name, 0.0): 0.0 for name in (*_ACKNOWLEDGED.values(), "PublishesRefused")}
    for labels, value in _totals(metrics.published):
        counts[_ACKNOWLEDGED.get(labels["outcome"], "PublishesRefused"), 0.0] += value
    for name, counter in (("ConnectionFailures", metrics.connection_failures), ("AuthFailures", metrics.auth_failures)):
        counts[name, 0.0] = sum(value for _, value in _totals(counter))
    for name, histogram in (("RpcLatency", metrics.rpc_seconds), ("RedisLatency", metrics.redis_seconds)):
        for bound, value in _buckets(histogram):
            counts[name, bound] = counts.get((name, bound), 0) + value
    return counts


def _totals(counter: Counter) -> list[tuple[dict[str, str], float]]:
    samples = [sample for family in counter.collect() for sample in family.samples]
    return [(sample.labels, sample.value) for sample in samples if sample.name.endswith("_total")]


def _buckets(histogram: Histogram) -> list[tuple[float, float]]:
    """Upper bounds with the number of values up to each, in rising order for each label."""
    samples = [sample for family in histogram.collect() for sample in family.samples]
    return [(float(sample.labels["le"]), sample.value) for sample in samples if sample.name.endswith("_bucket")]


def _grown(change: Counts) -> Values:
    """The counts, and the distributions: each bucket counts as values that equal its upper bound."""
    values: Values = {name: int(count) for (name, bound), count in change.items() if not bound}
    for metric in ("RpcLatency", "RedisLatency"):
        upward = [(0.0, 0.0), *((bound, count) for (name, bound), count in change.items() if name == metric)]
        distribution: dict[str, list[float]] = {"Values": [], "Counts": []}
        for (below, fewer), (bound, count) in pairwise(upward):
            if count > fewer:
                seconds = bound if bound != float("inf") else 2 * below  # the last bucket has no bound
                distribution["Values"].append(round(seconds * 1000, 3))
                distribution["Counts"].append(int(count - fewer))
        if distribution["Values"]:
            values[metric] = distribution
    return values
