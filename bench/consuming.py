"""The consumer against a bare loop: both read, decode and acknowledge batches of 100, each in a process of its own.

`python -m bench.consuming bare|ours URL COUNT` is such a process; it prints the events a second from the first to the
last, its CPU microseconds an event and its peak of resident memory in MB. The handler does nothing. Bare is redis-py's
blocking client: XREADGROUP, `modelready.entry.decode`, a call of the handler, XACK; no retries, no claims, no order.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from redis import Redis

from bench import events
from bench.processes import redis_binary
from modelready import ModelReadyToDeploy
from modelready.consumer import Consumer
from modelready.entry import decode, encode
from tests.harness.redis_server import RedisServer

if TYPE_CHECKING:
    from bench.figures import Round, Scale

_BATCH = 100
_MODELS = 50
_GROUP = "deployer"
_STREAM = events.KEYS.events


class Measured(NamedTuple):
    """What one process says of itself."""

    rate: float
    cpu_us: float
    peak_mb: float


def rounds(scale: Scale) -> Iterator[Round]:
    """Rounds of both in turns, after one to get warm."""
    from bench.figures import Round  # noqa: PLC0415 - which imports this

    with RedisServer(binary=redis_binary(), config={"appendonly": "no"}) as server:
        for number in range(scale.rounds + 1):
            kinds = ["bare", "ours"] if number % 2 else ["ours", "bare"]
            measured = {kind: _measure(kind, server, scale.stream) for kind in kinds}
            if number:
                ours = measured["ours"]
                yield Round(measured["bare"].rate, ours.rate, ours.cpu_us, ours.peak_mb)


def _measure(kind: str, server: RedisServer, count: int) -> Measured:
    with server.client() as client:
        client.flushall()
        entries = [encode(_of_model(event, number % _MODELS)) for number, event in enumerate(events.events(count))]
        for start in range(0, count, 1000):
            pipeline = client.pipeline(transaction=False)
            for entry in entries[start : start + 1000]:
                pipeline.xadd(_STREAM, dict[Any, Any](entry))
            pipeline.execute()
        client.xgroup_create(_STREAM, _GROUP, id="0")
        command = [sys.executable, "-m", "bench.consuming", kind, server.url, str(count)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
        assert client.xpending(_STREAM, _GROUP)["pending"] == 0, "not all were acknowledged"
        assert client.xreadgroup(_GROUP, "check", {_STREAM: ">"}, count=1) in ({}, []), "not all were read"
    return Measured(*json.loads(done.stdout))


def _of_model(event: ModelReadyToDeploy, number: int) -> ModelReadyToDeploy:
    event.model.name = f"fraud-{number}"
    return event


class Handler:
    """Does nothing with each of `count` events, and notes when the first and the last came."""

    def __init__(self, count: int, last: Callable[[], object] = lambda: None) -> None:
        self._left = count
        self._count = count
        self._last = last
        self._began = self._ended = self._cpu = 0.0

    def __call__(self, _: ModelReadyToDeploy) -> None:
        if self._left == self._count:
            self._began, self._cpu = time.perf_counter(), time.process_time()
        self._left -= 1
        if not self._left:
            self._ended, self._cpu = time.perf_counter(), time.process_time() - self._cpu
            self._last()

    def measured(self) -> Measured:
        # Not ru_maxrss, which begins with what the parent had when it made this process.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
        return Measured(self._count / (self._ended - self._began), self._cpu * 1e6 / self._count, peak)


def _bare(url: str, count: int) -> Measured:
    handler = Handler(count)
    with Redis.from_url(url, protocol=3) as client:
        done = 0
        while done < count:
            reply: Any = client.xreadgroup(_GROUP, "bare", {_STREAM: ">"}, count=_BATCH, block=1000)
            ((entries,),) = reply.values()
            for _, fields in entries:
                handler(decode(fields))
            client.xack(_STREAM, _GROUP, *(entry_id for entry_id, _ in entries))
            done += len(entries)
    return handler.measured()


def _ours(url: str, count: int) -> Measured:
    where = urlsplit(url)
    environ = {"REDIS_HOST": str(where.hostname), "REDIS_PORT": str(where.port)}
    consumer = Consumer.from_env(group=_GROUP, environ=environ, batch=_BATCH, block_seconds=0.1)
    handler = Handler(count, consumer.stop)
    consumer.run(handler)
    return handler.measured()


if __name__ == "__main__":
    kind, url, count = sys.argv[1:]
    print(json.dumps((_bare if kind == "bare" else _ours)(url, int(count))))
