"""The loads. Each returns what it measured; that the events arrived is checked by the caller.

Calls are made by h2load, which is written in C: a load generator in Python would take a whole core for itself.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import redis.asyncio
import uvloop

from bench.events import KEYS, SERVICE, Entry, grpc_frame


class Calls(NamedTuple):
    """What h2load measured: the seconds from the first call to the last answer, and a call's median in milliseconds."""

    seconds: float
    median_ms: float


def h2load_missing() -> str:
    """Why there is none; "" where there is."""
    return "" if shutil.which("h2load") else "no h2load"


def call(address: str, method: str, body: Path, *, count: int = 1, callers: int = 1) -> Calls:
    """`count` calls with the same body, by `callers` at once on one connection. Raises where one fails in HTTP."""
    with tempfile.NamedTemporaryFile("r") as log:
        command = [
            "h2load", "-n", str(count), "-c", "1", "-m", str(callers), "-d", str(body), "--log-file", log.name,
            "-H", "content-type: application/grpc", "-H", "te: trailers", f"http://{address}{SERVICE}{method}",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout
        calls = [[int(number) for number in line.split()] for line in log]  # begin, HTTP status, duration, in us
    if f"{count} succeeded, 0 failed" not in done or len(calls) != count:
        raise RuntimeError(f"h2load failed:\n{done}")
    took = max(began + lasted for began, _, lasted in calls) - min(began for began, _, _ in calls)
    return Calls(took / 1e6, statistics.median(lasted for _, _, lasted in calls) / 1000)


def stream(address: str, frames: Sequence[bytes]) -> float:
    """Seconds until all frames of one PublishStream are answered. They are sent as fast as the sidecar takes them."""
    with tempfile.NamedTemporaryFile() as body:
        for frame in frames:
            body.write(grpc_frame(frame))
        body.flush()
        return call(address, "PublishStream", Path(body.name)).seconds


def latencies(function: Callable[[], object], count: int) -> float:
    """The median of what `function` takes, in milliseconds."""
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds) * 1000


def pipelines(url: str, entries: Sequence[Entry], size: int, under_way: int) -> float:
    """Seconds until redis-py has XADDed all entries, in pipelines of `size`, with some under way at a time."""

    async def work(client: redis.asyncio.Redis, waiting: Iterator[Sequence[Entry]]) -> None:
        for part in waiting:
            async with client.pipeline(transaction=False) as pipeline:
                for entry in part:
                    pipeline.xadd(KEYS.events, entry)
                await pipeline.execute()

    async def all_of_it() -> float:
        async with redis.asyncio.Redis.from_url(url, max_connections=under_way) as client:
            await asyncio.gather(*(client.ping() for _ in range(under_way)))
            waiting = iter([entries[start : start + size] for start in range(0, len(entries), size)])
            began = time.perf_counter()
            await asyncio.gather(*(work(client, waiting) for _ in range(under_way)))
            return time.perf_counter() - began

    return uvloop.run(all_of_it())
