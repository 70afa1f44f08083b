"""The loads. Each returns what it measured; that the events arrived is checked by the caller."""

from __future__ import annotations

import asyncio
import re
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import redis.asyncio
import uvloop

from bench.events import KEYS, SERVICE, Entry

_OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]


def h2load_missing() -> bool:
    return shutil.which("h2load") is None


def h2load(address: str, body: Path, count: int, callers: int) -> float:
    """Unary Publish calls a second, by `callers` at once on one connection. Raises where one fails in HTTP."""
    command = [
        "h2load", "-n", str(count), "-c", "1", "-m", str(callers), "-d", str(body),
        "-H", "content-type: application/grpc", "-H", "te: trailers", f"http://{address}{SERVICE}Publish",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", done)
    if not rate or f"{count} succeeded, 0 failed" not in done:
        raise RuntimeError(f"h2load failed:\n{done}")
    return float(rate[1])


def latencies(call: Callable[[], object], count: int) -> float:
    """The median of what `call` takes, in milliseconds."""
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds) * 1000


def channel(address: str) -> grpc.Channel:
    return grpc.insecure_channel(address, _OPTIONS)


def unary(to: grpc.Channel, method: str) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
    return to.unary_unary(SERVICE + method)


def stream(address: str, frames: Sequence[bytes], under_way: int) -> float:
    """Seconds until all frames are answered, with some under way at a time."""
    window = threading.Semaphore(under_way)

    def send() -> Iterator[bytes]:
        for frame in frames:
            window.acquire()
            yield frame

    with channel(address) as to:
        grpc.channel_ready_future(to).result(10)
        began = time.perf_counter()
        answers = 0
        call: grpc.StreamStreamMultiCallable[bytes, bytes] = to.stream_stream(SERVICE + "PublishStream")
        for _ in call(send(), timeout=600):
            window.release()
            answers += 1
        assert answers == len(frames), f"{answers} of {len(frames)} frames were answered"
        return time.perf_counter() - began


def batches(address: str, requests: Sequence[bytes], callers: int) -> float:
    """Seconds until all batches are answered, by some callers at once."""
    with channel(address) as to, ThreadPoolExecutor(callers) as pool:
        grpc.channel_ready_future(to).result(10)
        call = unary(to, "PublishBatch")
        began = time.perf_counter()
        for _ in pool.map(lambda request: call(request, timeout=60), requests):
            pass
        return time.perf_counter() - began


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
