"""What a figure is, and how it is measured: rounds of the baseline and of ours, one after the other, in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from bench import load
from bench.processes import Pair


class Scale(NamedTuple):
    """How much is done: rounds, events a measurement by kind of load, and how much there is in the rows of growth."""

    rounds: int
    unary: int
    serial: int
    stream: int
    drain: int
    full: int
    models: int
    groups: int
    pending: int
    spooled: int


FULL = Scale(
    rounds=7, unary=20_000, serial=2_000, stream=100_000, drain=100_000, full=1_000_000, models=10_000, groups=1_000,
    pending=100_000, spooled=300_000,
)  # fmt: skip
QUICK = Scale(
    rounds=3, unary=4_000, serial=500, stream=20_000, drain=20_000, full=100_000, models=1_000, groups=100,
    pending=10_000, spooled=30_000,
)  # fmt: skip


class Round(NamedTuple):
    """What one round measured, in the figure's unit, and what the sidecar spent on an event; 0 where there is none."""

    baseline: float
    ours: float
    cpu_us: float
    peak_mb: float


Rounds = Iterator[Round]
Measure = Callable[[], float]


class Figure(NamedTuple):
    """`most` tells that the ratio must not be above `target`, else not below. `missing`: why it is left out, or "".

    `reason`: why the target is missed where it is, with the measurement that shows it.
    """

    name: str
    text: str
    baseline: str
    target: float
    unit: str
    rounds: Callable[[Scale], Rounds]
    most: bool = False
    missing: Callable[[], str] = load.h2load_missing
    reason: str = ""


def in_turns(
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
