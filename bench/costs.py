"""What Redis spends on an event, and what a start costs and takes."""

from __future__ import annotations

import time
from collections.abc import Callable

from bench import events, quota
from bench.processes import noop, pair
from bench.publishing import FRAME, publish_pipelines, publish_stream
from bench.rounds import Round, Rounds, Scale, in_turns


def redis_time(scale: Scale) -> Rounds:
    """Microseconds of CPU that Redis spends on one event, by its own `INFO cpu`: reading and answering are in it.

    Not `INFO commandstats`, which counts the time by the clock: on a busy machine that is twice as much.
    """
    frames, entries = events.frames(scale.stream, FRAME), events.entries(scale.stream)
    with pair() as ours:

        def measure(publish: Callable[[], float]) -> float:
            ours.empty()  # or what `publish` empties would count
            before = ours.redis_cpu_seconds()
            publish()
            return (ours.redis_cpu_seconds() - before) * 1e6 / scale.stream

        yield from in_turns(
            scale,
            ours,
            scale.stream,
            lambda: measure(lambda: publish_pipelines(ours, entries)),
            lambda: measure(lambda: publish_stream(ours, frames)),
        )


def start(scale: Scale) -> Rounds:
    """Milliseconds of CPU until SERVING; the peak of memory is then what an idle one takes."""
    with pair() as ours:
        for number in range(scale.rounds + 1):
            ours.sidecar.restart()
            cpu = ours.sidecar.cpu_seconds() * 1000
            with noop() as base:
                baseline = base.cpu_seconds * 1000
            if number:
                yield Round(baseline, cpu, 0.0, ours.peak_mb)


def start_on_a_quarter(scale: Scale) -> Rounds:
    """Seconds until SERVING on 0.25 vCPU, and until the no-op server takes a connection there."""
    with quota.prefix(0.25) as prefix, pair(prefix=prefix) as ours:
        for number in range(scale.rounds + 1):
            ours.sidecar.terminate()
            began = time.perf_counter()
            ours.sidecar.start()
            seconds = time.perf_counter() - began
            began = time.perf_counter()
            with noop(prefix):
                baseline = time.perf_counter() - began
            if number:
                yield Round(baseline, seconds, 0.0, ours.peak_mb)
