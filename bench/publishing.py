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
_BATCH_CALLERS = 4
FRAME = 100
_UNDER_WAY = 4  # pipelines of redis-py


def unary(scale: Scale) -> Rounds:
    with pair() as ours, noop() as base, file_of(events.request()) as body:

        def measure_noop() -> float:
            return _rate(load.call(base.address, "Publish", body, count=scale.unary, callers=_CALLERS), scale.unary)

        yield from in_turns(scale, ours, scale.unary, measure_noop, lambda: publish_unary(ours, body, scale.unary))


def one_caller(scale: Scale) -> Rounds:
    (entry,) = events.entries(1)
    with (
        pair() as ours,
        noop() as base,
        file_of(events.request()) as body,
        Redis.from_url(ours.redis.url) as client,
    ):

        def measure_parts() -> float:
            noop_ms = load.call(base.address, "Publish", body, count=scale.serial).median_ms
            return noop_ms + load.latencies(lambda: client.xadd(events.KEYS.events, entry), scale.serial)

        def measure() -> float:
            return publish_alone(ours, body, scale.serial).median_ms

        yield from in_turns(scale, ours, scale.serial, measure_parts, measure)


def stream(scale: Scale) -> Rounds:
    frames, entries = events.frames(scale.stream, FRAME), events.entries(scale.stream)
    with pair() as ours:
        yield from in_turns(
            scale, ours, scale.stream, lambda: publish_pipelines(ours, entries), lambda: publish_stream(ours, frames)
        )


def batch(scale: Scale) -> Rounds:
    entries = events.entries(scale.stream)
    with pair() as ours, file_of(events.batch(FRAME)) as body:
        yield from in_turns(
            scale,
            ours,
            scale.stream,
            lambda: publish_pipelines(ours, entries),
            lambda: publish_batches(ours, body, scale.stream),
        )


def spooling(scale: Scale) -> Rounds:
    with pair() as ours, file_of(events.request()) as body:

        def measure() -> float:
            ours.empty()
            ours.redis.kill()
            calls = load.call(ours.sidecar.address, "Publish", body, count=scale.unary, callers=_CALLERS)
            ours.check_spooled(scale.unary)
            return _rate(calls, scale.unary)

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
            load.stream(ours.sidecar.address, frames)
            ours.check_spooled(scale.drain)

        def measure() -> float:
            ours.revive(scale.drain)
            return _rate_of_entries(ours)

        yield from in_turns(scale, ours, scale.drain, lambda: publish_stream(ours, frames), measure, before=fill)


@contextmanager
def file_of(request: bytes) -> Iterator[Path]:
    """The body of a call for h2load."""
    with tempfile.NamedTemporaryFile() as body:
        path = Path(body.name)
        path.write_bytes(events.grpc_frame(request))
        yield path


def publish_alone(ours: Pair, body: Path, count: int) -> load.Calls:
    """Publish, one call after the other."""
    return _publish(ours, "Publish", body, count)


def publish_unary(ours: Pair, body: Path, count: int) -> float:
    """Publish by 64 callers; events a second."""
    return _rate(_publish(ours, "Publish", body, count, callers=_CALLERS), count)


def publish_batches(ours: Pair, body: Path, count: int) -> float:
    """PublishBatch of FRAME events each, by four callers; events a second."""
    return _rate(_publish(ours, "PublishBatch", body, count, size=FRAME, callers=_BATCH_CALLERS), count)


def publish_stream(ours: Pair, frames: list[bytes], size: int = FRAME) -> float:
    """One PublishStream of frames with `size` events each; events a second."""
    count = len(frames) * size
    ours.empty()
    seconds = load.stream(ours.sidecar.address, frames)
    ours.check(count)
    return count / seconds


def _publish(ours: Pair, method: str, body: Path, count: int, *, size: int = 1, callers: int = 1) -> load.Calls:
    ours.empty()
    calls = load.call(ours.sidecar.address, method, body, count=count // size, callers=callers)
    ours.check(count)
    return calls


def _rate(calls: load.Calls, count: int) -> float:
    return count / calls.seconds


def publish_pipelines(ours: Pair, entries: list[events.Entry]) -> float:
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
