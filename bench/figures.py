"""The figures. Each is a generator of rounds: the baseline and ours, one after the other, in turns."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from redis import Redis

from bench import consuming, events, load
from bench.processes import Pair, noop, pair
from tests.harness.waiting import until

_CALLERS = 64
FRAME = 100
_UNDER_WAY = 4
_TIMEOUT = 60.0


class Scale(NamedTuple):
    """How much is done: rounds, and events a measurement by kind of load."""

    rounds: int
    unary: int
    serial: int
    stream: int
    drain: int
    full: int


FULL = Scale(rounds=7, unary=20_000, serial=2_000, stream=100_000, drain=100_000, full=1_000_000)
QUICK = Scale(rounds=3, unary=4_000, serial=500, stream=20_000, drain=20_000, full=100_000)


class Round(NamedTuple):
    """What one round measured, in the figure's unit, and what the sidecar spent on it."""

    baseline: float
    ours: float
    cpu_us: float
    peak_mb: float


Rounds = Iterator[Round]
Measure = Callable[[], float]


class Figure(NamedTuple):
    """`most` tells that the ratio must not be above `target`, else not below."""

    name: str
    text: str
    baseline: str
    target: float
    unit: str
    rounds: Callable[[Scale], Rounds]
    needs_h2load: bool = False
    most: bool = False


def _unary(scale: Scale) -> Rounds:
    with pair() as ours, noop() as base, request_file() as body:

        def measure_noop() -> float:
            return load.h2load(base.address, body, scale.unary, _CALLERS)

        yield from _in_turns(scale, ours, scale.unary, measure_noop, lambda: publish_unary(ours, body, scale.unary))


def _one_caller(scale: Scale) -> Rounds:
    request = events.request()
    (entry,) = events.entries(1)
    with (
        pair() as ours,
        noop() as base,
        load.channel(base.address) as to_noop,
        load.channel(ours.sidecar.address) as to_sidecar,
        Redis.from_url(ours.redis.url) as client,
    ):
        call_noop, call_sidecar = load.unary(to_noop, "Publish"), load.unary(to_sidecar, "Publish")

        def measure_parts() -> float:
            call = load.latencies(lambda: call_noop(request, timeout=_TIMEOUT), scale.serial)
            return call + load.latencies(lambda: client.xadd(events.KEYS.events, entry), scale.serial)

        def measure() -> float:
            ours.empty()
            median = load.latencies(lambda: call_sidecar(request, timeout=_TIMEOUT), scale.serial)
            ours.check(scale.serial)
            return median

        yield from _in_turns(scale, ours, scale.serial, measure_parts, measure)


def _stream(scale: Scale) -> Rounds:
    frames, entries = events.frames(scale.stream, FRAME), events.entries(scale.stream)
    with pair() as ours:
        yield from _in_turns(
            scale, ours, scale.stream, lambda: _pipelines(ours, entries), lambda: publish_stream(ours, frames)
        )


def _batch(scale: Scale) -> Rounds:
    batches, entries = events.batches(scale.stream, FRAME), events.entries(scale.stream)
    with pair() as ours:
        yield from _in_turns(
            scale, ours, scale.stream, lambda: _pipelines(ours, entries), lambda: publish_batches(ours, batches)
        )


def _spooling(scale: Scale) -> Rounds:
    with pair() as ours, request_file() as body:

        def measure() -> float:
            ours.empty()
            ours.redis.kill()
            rate = load.h2load(ours.sidecar.address, body, scale.unary, _CALLERS)
            ours.check_spooled(scale.unary)
            return rate

        def settle() -> None:
            ours.revive(scale.unary)

        yield from _in_turns(
            scale, ours, scale.unary, lambda: publish_unary(ours, body, scale.unary), measure, after=settle
        )


def _draining(scale: Scale) -> Rounds:
    frames = events.frames(scale.drain, FRAME)
    with pair() as ours:

        def fill() -> None:
            ours.empty()
            ours.redis.kill()
            load.stream(ours.sidecar.address, frames, _UNDER_WAY)
            ours.check_spooled(scale.drain)

        def measure() -> float:
            ours.revive(scale.drain)
            return _rate_of_entries(ours)

        yield from _in_turns(scale, ours, scale.drain, lambda: publish_stream(ours, frames), measure, before=fill)


def _full_stream(scale: Scale) -> Rounds:
    frames = events.frames(scale.stream, FRAME)
    with pair() as empty, pair() as full:
        _fill(full, scale.full)

        def measure(into: Pair, length: int) -> float:
            rate = scale.stream / load.stream(into.sidecar.address, frames, _UNDER_WAY)
            into.check(length + scale.stream)
            # Both are put back in the same way: after FLUSHALL a server is slower, since it allocates its memory again.
            into.redis.execute("XTRIM", events.KEYS.events, "MAXLEN", length)
            _forget_ids(into)
            return rate

        yield from _in_turns(scale, full, scale.stream, lambda: measure(empty, 0), lambda: measure(full, scale.full))


FIGURES = (
    Figure(
        "unary", "unary Publish, 64 callers", "a grpc.aio server that does nothing", 0.85, "events/s", _unary,
        needs_h2load=True,
    ),
    Figure(
        "one-caller", "unary Publish, one caller, p50", "the no-op's p50 + one XADD's p50", 1.5, "ms", _one_caller,
        most=True,
    ),
    Figure(
        "stream", "PublishStream, frames of 100, dedup on", "redis-py asyncio pipelines of 100 XADDs, no dedup", 1.0,
        "events/s", _stream,
    ),
    Figure("batch", "PublishBatch of 100, 4 callers, dedup on", "the same pipelines", 0.9, "events/s", _batch),
    Figure(
        "spooling", "unary Publish while Redis is away, 64 callers", "the same with Redis up", 0.7, "events/s",
        _spooling, needs_h2load=True,
    ),
    Figure("draining", "draining the spool", "PublishStream", 0.8, "events/s", _draining),
    Figure("full-stream", "PublishStream into a full stream", "into an empty one", 0.95, "events/s", _full_stream),
    Figure(
        "consuming", "Consumer.run_batches of 100, a handler that does nothing",
        "XREADGROUP, decode, XACK with redis-py, the same batches", 0.4, "events/s", consuming.batches,
    ),
    Figure(
        "consuming-singly", "Consumer.run, a handler that does nothing",
        "XREADGROUP of one, decode, XACK with redis-py", 0.8, "events/s", consuming.singles,
    ),
    Figure(
        "slow-handler", "Consumer.run, a handler of 10 ms", "XREADGROUP, decode, the handler, XACK with redis-py", 0.9,
        "events/s", consuming.slow_handler,
    ),
)  # fmt: skip


def _in_turns(
    scale: Scale,
    ours: Pair,
    count: int,
    measure_baseline: Measure,
    measure_ours: Measure,
    *,
    before: Callable[[], None] = lambda: None,
    after: Callable[[], None] = lambda: None,
) -> Rounds:
    """Rounds of both, the first of each in every other round; one more before them to get warm, which does not count.

    `before` and `after` stand around ours, and are not measured.
    """
    for number in range(scale.rounds + 1):
        if number % 2:
            baseline = measure_baseline()
        before()
        cpu = ours.sidecar.cpu_seconds()
        measured = measure_ours()
        cpu = ours.sidecar.cpu_seconds() - cpu
        after()
        if not number % 2:
            baseline = measure_baseline()
        if number:
            yield Round(baseline, measured, cpu * 1e6 / count, ours.peak_mb)


@contextmanager
def request_file() -> Iterator[Path]:
    """The body of a Publish for h2load."""
    with tempfile.NamedTemporaryFile() as body:
        path = Path(body.name)
        path.write_bytes(events.grpc_frame(events.request()))
        yield path


def publish_unary(ours: Pair, body: Path, count: int) -> float:
    """Publish by 64 callers; calls a second."""
    ours.empty()
    rate = load.h2load(ours.sidecar.address, body, count, _CALLERS)
    ours.check(count)
    return rate


def publish_batches(ours: Pair, batches: list[bytes]) -> float:
    """PublishBatch of FRAME events each, by four callers; events a second."""
    count = len(batches) * FRAME
    ours.empty()
    rate = count / load.batches(ours.sidecar.address, batches, 4)
    ours.check(count)
    return rate


def publish_stream(ours: Pair, frames: list[bytes], size: int = FRAME) -> float:
    """One PublishStream of frames with `size` events each, some under way at a time; events a second."""
    count = len(frames) * size
    ours.empty()
    rate = count / load.stream(ours.sidecar.address, frames, _UNDER_WAY)
    ours.check(count)
    return rate


def _pipelines(ours: Pair, entries: list[events.Entry]) -> float:
    ours.empty()
    rate = len(entries) / load.pipelines(ours.redis.url, entries, FRAME, _UNDER_WAY)
    ours.check(len(entries))
    return rate


def _rate_of_entries(ours: Pair) -> float:
    """Entries a second, from the first millisecond (whose entries do not count) to the last, by their own ids."""
    with ours.redis.client() as client:
        info = client.xinfo_stream(events.KEYS.events)
        first, last = (int(info[name][0].split(b"-")[0]) for name in ("first-entry", "last-entry"))
        at_once = len(client.xrange(events.KEYS.events, first, first))
        return float((info["length"] - at_once) * 1000 / (last - first))


def _fill(ours: Pair, count: int) -> None:
    """Put entries into the stream by a script, which is quick."""
    (entry,) = events.entries(1)
    script = """for i = 1, tonumber(ARGV[1]) do redis.call('XADD', KEYS[1], '*', unpack(ARGV, 2)) end"""
    fields = [part for pair_ in entry.items() for part in pair_]
    for _ in range(count // 10_000):
        ours.redis.execute("EVAL", script, 1, events.KEYS.events, 10_000, *fields)
    ours.check(count)


def _forget_ids(ours: Pair) -> None:
    with ours.redis.client() as client:
        ids = events.KEYS.seen_prefix + "*"
        for page in _pages(list(client.scan_iter(ids, count=10_000)), 10_000):
            client.unlink(*page)
        # What the sidecar writes of its looks at the queue stays.
        until(lambda: not any(client.scan_iter(ids, count=10_000)), 10, "no id is left")
    time.sleep(0.2)  # UNLINK frees in the background


def _pages(items: list[bytes], size: int) -> Iterator[list[bytes]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
