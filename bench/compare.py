"""`python -m bench --against CHECKOUT`: the CPU that a sidecar of this checkout and one of another spend, in turns.

Each checkout needs its `.venv` (`make install`). While a machine does other things, its rates and latencies say little.
CPU measured in turns says more: trust the median ratio of seven rounds and more.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from bench import events
from bench.processes import Pair, pair
from bench.publishing import FRAME, file_of, publish_alone, publish_batches, publish_stream, publish_unary
from bench.rounds import Scale


class _Work(NamedTuple):
    """`do` gives a sidecar the work; its CPU is then divided by `divisor`. `fresh`: the sidecar is started for it."""

    name: str
    divisor: int
    do: Callable[[Pair], object]
    fresh: bool = False


def compare(other: Path, scale: Scale) -> None:
    """Print the CPU of both in microseconds for an event, and for a start in milliseconds."""
    checkouts = [Path.cwd(), other.resolve()]
    with ExitStack() as stack:
        pairs = [stack.enter_context(pair(checkout / ".venv/bin")) for checkout in checkouts]
        print(
            f"{'CPU':36}" + "".join(f"{checkout.name:>16}" for checkout in checkouts) + "   ratio min-max", flush=True
        )
        bodies = [stack.enter_context(file_of(request)) for request in (events.request(), events.batch(FRAME))]
        for work in _works(scale, *bodies):
            # One round more, to get warm, does not count.
            rounds = [_round(pairs, work, backwards=bool(number % 2)) for number in range(scale.rounds + 1)][1:]
            medians = "".join(f"{statistics.median(column):16.1f}" for column in zip(*rounds, strict=True))
            ratios = [ours / theirs for ours, theirs in rounds]
            print(
                f"{work.name:36}{medians}   {statistics.median(ratios):.2f} {min(ratios):.2f}-{max(ratios):.2f}",
                flush=True,
            )


def _round(pairs: list[Pair], work: _Work, *, backwards: bool) -> list[float]:
    spent = [_spent(each, work) for each in (reversed(pairs) if backwards else pairs)]
    return spent[::-1] if backwards else spent


def _spent(on: Pair, work: _Work) -> float:
    before = 0.0 if work.fresh else on.sidecar.cpu_seconds()
    work.do(on)
    return (on.sidecar.cpu_seconds() - before) * 1e6 / work.divisor


def _works(scale: Scale, single: Path, batch: Path) -> list[_Work]:
    frames, frames_of_one = events.frames(scale.stream, FRAME), events.frames(scale.unary, 1)
    return [
        _Work("start to SERVING, ms", 1000, lambda on: on.sidecar.restart(), fresh=True),
        _Work("Publish, 64 callers, µs", scale.unary, lambda on: publish_unary(on, single, scale.unary)),
        _Work("Publish, one caller, µs", scale.serial, lambda on: publish_alone(on, single, scale.serial)),
        _Work("PublishBatch of 100, 4 callers, µs", scale.stream, lambda on: publish_batches(on, batch, scale.stream)),
        _Work("PublishStream, frames of 100, µs", scale.stream, lambda on: publish_stream(on, frames)),
        _Work("PublishStream, frames of 1, µs", scale.unary, lambda on: publish_stream(on, frames_of_one, 1)),
    ]
