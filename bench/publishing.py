"""The figures of publishing, and the work of which they are made."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis

from bench import events, load
from bench.processes import Pair, noop, pair
from bench.rounds import Rounds, Scale, in_turns

_CALLERS = 64
FRAME = 100
UNDER_WAY = 4
_TIMEOUT = 60.0


def unary(scale: Scale) -> Rounds:
    with pair() as ours, noop() as base, request_file() as body:

        def measure_noop() -> float:
            return load.h2load(base.address, body, scale.unary, _CALLERS)

        yield from in_turns(scale, ours, scale.unary, measure_noop, lambda: publish_unary(ours, body, scale.unary))


def one_caller(scale: Scale) -> Rounds:
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

        yield from in_turns(scale, ours, scale.serial, measure_parts, measure)


def stream(scale: Scale) -> Rounds:
    frames, entries = events.frames(scale.stream, FRAME), events.entries(scale.stream)
    with pair() as ours:
        yield from in_turns(
            scale, ours, scale.stream, lambda: publish_pipelines(ours, entries), lambda: publish_stream(ours, frames)
        )


def batch(scale: Scale) -> Rounds:
    batches, entries = events.batches(scale.stream, FRAME), events.entries(scale.stream)
    with pair() as ours:
        yield from in_turns(
            scale, ours, scale.stream, lambda: publish_pipelines(ours, entries), lambda: publish_batches(ours, batches)
        )


def spooling(scale: Scale) -> Rounds:
    with pair() as ours, request_file() as body:

        def measure() -> float:
            ours.empty()
            ours.redis.kill()
            rate = load.h2load(ours.sidecar.address, body, scale.unary, _CALLERS)
            ours.check_spooled(scale.unary)
            return rate

        def settle() -> None:
            ours.revive(scale.unary)

        yield from in_turns(
            scale, ours, scale.unary, lambda: publish_unary(ours, body, scale.unary), measure, after=settle
        )


def draining(scale: Scale) -> Rounds:
    frames = events.frames(scale.drain, FRAME)
    with pair() as ours:

        def fill() -> None:
            ours.empty()
            ours.redis.kill()
            load.stream(ours.sidecar.address, frames, UNDER_WAY)
            ours.check_spooled(scale.drain)

        def measure() -> float:
            ours.revive(scale.drain)
            return _rate_of_entries(ours)

        yield from in_turns(scale, ours, scale.drain, lambda: publish_stream(ours, frames), measure, before=fill)


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
    rate = count / load.stream(ours.sidecar.address, frames, UNDER_WAY)
    ours.check(count)
    return rate


def publish_pipelines(ours: Pair, entries: list[events.Entry]) -> float:
    ours.empty()
    rate = len(entries) / load.pipelines(ours.redis.url, entries, FRAME, UNDER_WAY)
    ours.check(len(entries))
    return rate


def _rate_of_entries(ours: Pair) -> float:
    """Entries a second, from the first millisecond (whose entries do not count) to the last, by their own ids."""
    with ours.redis.client() as client:
        info = client.xinfo_stream(events.KEYS.events)
        first, last = (int(info[name][0].split(b"-")[0]) for name in ("first-entry", "last-entry"))
        at_once = len(client.xrange(events.KEYS.events, first, first))
        return float((info["length"] - at_once) * 1000 / (last - first))
