"""The consumer against a bare loop, each in a process of its own: `run_batches`, and `run`, also with a slow handler.

`python -m bench.consuming bare|ours URL COUNT BATCH SECONDS` is such a process; it prints the events a second from the
first to the last, its CPU microseconds an event and its peak of resident memory in MB. The handler takes SECONDS for
each call. Bare is redis-py's blocking client: XREADGROUP of BATCH, `modelready.entry.decode`, a call of the handler for
all, XACK; no retries, no claims, no order. Ours is `run_batches(BATCH)`, or `run` where that is 1.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from redis import Redis

from bench import events
from bench.processes import redis_binary
from bench.rounds import Round, Scale
from modelready import ModelReadyToDeploy
from modelready.consumer import Consumer
from modelready.entry import decode, encode
from tests.harness.redis_server import RedisServer

_MODELS = 50
_GROUP = "deployer"
_STREAM = events.KEYS.events


class Measured(NamedTuple):
    """What one process says of itself."""

    rate: float
    cpu_us: float
    peak_mb: float


def batches(scale: Scale) -> Iterator[Round]:
    """Batches of 100, and a handler that does nothing."""
    return _rounds(scale, scale.stream, batch=100, seconds=0.0)


def singles(scale: Scale) -> Iterator[Round]:
    """One event at a time, and a handler that does nothing."""
    return _rounds(scale, scale.unary, batch=1, seconds=0.0)


def slow_handler(scale: Scale) -> Iterator[Round]:
    """One event at a time, and a handler of 10 ms."""
    return _rounds(scale, scale.serial, batch=1, seconds=0.01)


def many_models(scale: Scale) -> Iterator[Round]:
    """`run_batches` with many models against the same with few."""
    with RedisServer(binary=redis_binary(), config={"appendonly": "no"}) as server:
        for number in range(scale.rounds + 1):
            few_first = bool(number % 2)
            kinds = [_MODELS, scale.models] if few_first else [scale.models, _MODELS]
            measured = {models: _measure("ours", server, scale.unary, 100, 0.0, models=models) for models in kinds}
            if number:
                many = measured[scale.models]
                yield Round(measured[_MODELS].rate, many.rate, many.cpu_us, many.peak_mb)


def _rounds(scale: Scale, count: int, *, batch: int, seconds: float) -> Iterator[Round]:
    """Rounds of both in turns, after one to get warm."""
    with RedisServer(binary=redis_binary(), config={"appendonly": "no"}) as server:
        for number in range(scale.rounds + 1):
            kinds = ["bare", "ours"] if number % 2 else ["ours", "bare"]
            measured = {kind: _measure(kind, server, count, batch, seconds) for kind in kinds}
            if number:
                ours = measured["ours"]
                yield Round(measured["bare"].rate, ours.rate, ours.cpu_us, ours.peak_mb)


def _measure(
    kind: str, server: RedisServer, count: int, batch: int, seconds: float, *, models: int = _MODELS
) -> Measured:
    with server.client() as client:
        client.flushall()
        entries = [encode(event) for event in events.events(count, models=models)]
        for start in range(0, count, 1000):
            pipeline = client.pipeline(transaction=False)
            for entry in entries[start : start + 1000]:
                pipeline.xadd(_STREAM, dict[Any, Any](entry))
            pipeline.execute()
        client.xgroup_create(_STREAM, _GROUP, id="0")
        command = [sys.executable, "-m", "bench.consuming", kind, server.url, str(count), str(batch), str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
        assert client.xpending(_STREAM, _GROUP)["pending"] == 0, "not all were acknowledged"
        assert client.xreadgroup(_GROUP, "check", {_STREAM: ">"}, count=1) in ({}, []), "not all were read"
    return Measured(*json.loads(done.stdout))


class Handler:
    """Takes `seconds` for each call, and notes when the first and the last of `count` events came."""

    def __init__(self, count: int, seconds: float, last: Callable[[], object] = lambda: None) -> None:
        self._left = count
        self._count = count
        self._seconds = seconds
        self._last = last
        self._began = self._ended = self._cpu = 0.0

    def __call__(self, events: Sequence[ModelReadyToDeploy]) -> None:
        if self._left == self._count:
            self._began, self._cpu = time.perf_counter(), time.process_time()
        if self._seconds:
            time.sleep(self._seconds)
        self._left -= len(events)
        if not self._left:
            self._ended, self._cpu = time.perf_counter(), time.process_time() - self._cpu
            self._last()

    def measured(self) -> Measured:
        # Not ru_maxrss, which begins with what the parent had when it made this process.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
        return Measured(self._count / (self._ended - self._began), self._cpu * 1e6 / self._count, peak)


def _bare(url: str, count: int, batch: int, seconds: float) -> Measured:
    handler = Handler(count, seconds)
    with Redis.from_url(url, protocol=3) as client:
        done = 0
        while done < count:
            reply: Any = client.xreadgroup(_GROUP, "bare", {_STREAM: ">"}, count=batch, block=1000)
            ((entries,),) = reply.values()
            handler([decode(fields) for _, fields in entries])
            client.xack(_STREAM, _GROUP, *(entry_id for entry_id, _ in entries))
            done += len(entries)
    return handler.measured()


def _ours(url: str, count: int, batch: int, seconds: float) -> Measured:
    where = urlsplit(url)
    environ = {"REDIS_HOST": str(where.hostname), "REDIS_PORT": str(where.port)}
    consumer = Consumer.from_env(group=_GROUP, environ=environ, batch=batch, block_seconds=0.1)
    handler = Handler(count, seconds, consumer.stop)
    if batch > 1:
        consumer.run_batches(handler)
    else:
        consumer.run(lambda event: handler([event]))
    return handler.measured()


if __name__ == "__main__":
    kind, url, count, batch, seconds = sys.argv[1:]
    print(json.dumps((_bare if kind == "bare" else _ours)(url, int(count), int(batch), float(seconds))))
