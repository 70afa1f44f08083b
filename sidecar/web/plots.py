"""The geometry of the plots of the last hour, which a template draws as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sidecar.web.history import HOUR_SECONDS, PERIOD_SECONDS

WIDTH, HEIGHT = 320, 130
LEFT, RIGHT, TOP, BOTTOM = 42, 8, 10, 22
_GAP_SECONDS = 2.5 * PERIOD_SECONDS  # a longer pause between two samples is shown as one

Point = tuple[float, float | None]


class Plot(NamedTuple):
    """One series, in the coordinates of the picture.

    `levels`: (y, label) of the horizontal lines; `runs`: the (x, y) of each stretch in which the value is known.
    """

    name: str
    title: str
    now: str
    unit: str
    description: str
    levels: list[tuple[float, str]]
    runs: list[list[tuple[float, float]]]


def plot(name: str, title: str, unit: str, points: Sequence[Point], now: float, *, least: float = 4) -> Plot:
    """One series of the hour before `now`, as (Unix seconds, value). `name`: an id of its own in the document.

    `least`: the least top of the axis, so that small values look small.
    """
    known = [value for _, value in points if value is not None]
    top = _round_up(max(known, default=0), least)
    current = points[-1][1] if points else None
    return Plot(
        name,
        title,
        "not known" if current is None else number(current),
        "" if current is None else unit,
        _describe(known, unit),
        [(_y(value, top), _short(value)) for value in (0.0, top / 2, top)],
        [[(_x(at, now), _y(value, top)) for at, value in run] for run in _runs(points)],
    )


def number(value: float) -> str:
    """A number as people write it: no more than three digits where there is a fraction."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _describe(known: Sequence[float], unit: str) -> str:
    if not known:
        return "Nothing is known of the last hour."
    least, most, last = number(min(known)), number(max(known)), number(known[-1])
    return f"Over the last hour: least {least}, most {most}, last {last} {unit}. The table has the figures."


def _round_up(value: float, least: float) -> float:
    """The top of the axis: 2, 4, 6, 8 or 10 of a power of ten, so that its half is round, too."""
    value = max(value, least)
    scale = 10.0 ** math.floor(math.log10(value))
    return next(step * scale for step in (2, 4, 6, 8, 10) if value <= step * scale)


def _short(value: float) -> str:
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g} {letter}"
    return f"{value:g}"


def _runs(points: Sequence[Point]) -> Iterator[list[tuple[float, float]]]:
    run: list[tuple[float, float]] = []
    for at, value in points:
        if run and (value is None or at - run[-1][0] > _GAP_SECONDS):
            yield run
            run = []
        if value is not None:
            run.append((at, value))
    if run:
        yield run


def _x(at: float, now: float) -> float:
    return WIDTH - RIGHT - max(now - at, 0) / HOUR_SECONDS * (WIDTH - LEFT - RIGHT)


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM)
