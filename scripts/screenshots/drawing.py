"""Line charts as SVG, and panels laid out on a dashboard's grid of 24 columns as HTML."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

COLUMNS = 24
Points = Sequence[tuple[float, float]]


class Span(NamedTuple):
    """From when to when, in Unix seconds."""

    start: float
    end: float

    def __str__(self) -> str:
        begin, end = (time.strftime("%H:%M", time.gmtime(at)) for at in self)
        return f"{time.strftime('%Y-%m-%d', time.gmtime(self.start))}, {begin} to {end} UTC"


class Series(NamedTuple):
    """A line. `points`: (Unix seconds, value), in order; it is broken where two are more than `gap` seconds apart."""

    name: str
    color: str
    points: Points
    gap: float


class Line(NamedTuple):
    """A limit across the chart."""

    value: float
    label: str
    color: str


class Unit(NamedTuple):
    """How an axis says its values: divided by `scale`, with `suffix`; `steps`: "sixty", "whole" or any round ones."""

    suffix: str = ""
    scale: float = 1
    steps: str = "round"


class Chart(NamedTuple):
    """Everything in one pair of axes."""

    span: Span
    series: Sequence[Series]
    lines: Sequence[Line] = ()
    unit: Unit = Unit()


class Place(NamedTuple):
    """Left, top, width and height in cells of the grid."""

    x: int
    y: int
    width: int
    height: int


_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 10, 22
_LEGEND_LINE, _LETTER, _MARKER = 17, 5.9, 27


def panel(place: Place, title: str, body: str, kind: str = "") -> str:
    cell = f"grid-area: {place.y + 1} / {place.x + 1} / span {place.height} / span {place.width}"
    heading = f"<h2>{escape(title)}</h2>" if title else ""
    return f'<section class="{kind}" style="{cell}">{heading}{body}</section>'


def chart(one: Chart, width: float, height: float) -> str:
    """Axes, limits, lines, and the legend below; all within the size, in pixels."""
    height -= _LEGEND_LINE * _legend_lines(one.series, width) + 6
    values = [value for series in one.series for _, value in series.points]
    most = max([*values, *(1.15 * line.value for line in one.lines)], default=0) or one.unit.scale
    step = _step(most / one.unit.scale, one.unit.steps) * one.unit.scale
    top = step * max(math.ceil(round(most / step, 6)), 1)

    def x(at: float) -> float:
        return _LEFT + (at - one.span.start) / (one.span.end - one.span.start) * (width - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return height - _BOTTOM - value / top * (height - _TOP - _BOTTOM)

    parts = []
    for number in range(round(top / step) + 1):
        level, label = y(number * step), f"{_number(number * step / one.unit.scale)}{one.unit.suffix if number else ''}"
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT:.1f}" y1="{level:.1f}" y2="{level:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{level + 4:.1f}" text-anchor="end">{escape(label)}</text>')
    for at in _minutes(one.span):
        clock = time.strftime("%H:%M", time.gmtime(at))
        parts.append(f'<text x="{x(at):.1f}" y="{height - 5:.1f}" text-anchor="middle">{clock}</text>')
    for series in one.series:
        for run in _runs(series):
            dots = [f"{x(at):.1f} {y(value):.1f}" for at, value in run]
            if len(dots) == 1:
                parts.append(f'<path class="dot" d="M{dots[0]} h0" stroke="{series.color}"/>')
            else:
                parts.append(f'<path d="M{" L".join(dots)}" stroke="{series.color}"/>')
    for line in one.lines:
        level = y(line.value)
        parts.append(
            f'<line class="limit" stroke="{line.color}" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{level}" y2="{level}"/>'
            f'<text x="{width - _RIGHT - 4}" y="{level - 4:.1f}" text-anchor="end" style="fill: {line.color}">'
            f"{escape(line.label)}</text>"
        )
    if not any(series.points for series in one.series):
        parts.append(f'<text class="none" x="{width / 2}" y="{height / 2}" text-anchor="middle">No data</text>')
    svg = f'<svg width="{width}" height="{height}">{"".join(parts)}</svg>'
    return svg + f'<p class="legend">{"".join(map(_legend, one.series))}</p>'


def _legend(series: Series) -> str:
    return f'<span><i style="background: {series.color}"></i>{escape(series.name)}</span>'


def _legend_lines(series: Sequence[Series], width: float) -> int:
    """How many lines the legend takes, about."""
    lines, used = 1, 0.0
    for one in series:
        needed = _MARKER + _LETTER * len(one.name)
        if used + needed > width - 24 and used:
            lines, used = lines + 1, 0.0
        used += needed
    return lines


def _step(most: float, steps: str) -> float:
    """Between two levels, so that there are five at most above nothing."""
    if steps == "whole" and most <= 5:
        return 1
    if steps == "sixty":
        return next(step for step in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600) if most <= 5 * step)
    scale = 10.0 ** math.floor(math.log10(most / 5))
    return next(step * scale for step in (1, 2, 2.5, 5, 10, 20) if most <= 5 * step * scale)


def _number(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{round(value, 6):g}"


def _minutes(span: Span) -> Iterator[int]:
    """Full minutes, six at most."""
    every = next(60 * n for n in (1, 2, 5, 10, 15, 30, 60) if span.end - span.start <= 60 * n * 6)
    yield from range(math.ceil(span.start / every) * every, int(span.end) + 1, every)


def _runs(series: Series) -> Iterator[list[tuple[float, float]]]:
    run: list[tuple[float, float]] = []
    for point in series.points:
        if run and point[0] - run[-1][0] > series.gap:
            yield run
            run = []
        run.append(point)
    if run:
        yield run


def page(style: str, title: str, span: Span, panels: Sequence[str], *, width: int, cell: float, gap: int) -> str:
    """A document. `cell`: the height of a row of the grid in pixels, the gap below it included."""
    grid = f"grid-template-columns: repeat({COLUMNS}, 1fr); grid-auto-rows: {cell - gap}px; gap: {gap}px"
    return (
        f'<!doctype html><meta charset="utf-8"><style>{_STYLE}{style}</style><body style="width: {width - 32}px">'
        f'<header><h1>{escape(title)}</h1><span>{span}</span></header><main style="{grid}">{"".join(panels)}</main>'
    )


_STYLE = """
body { margin: 0; padding: 14px 16px 16px; font: 12px "Liberation Sans", Arial, sans-serif }
main { display: grid }
header { display: flex; justify-content: space-between; align-items: baseline; margin: 0 0 12px }
h1 { font-size: 18px; margin: 0 } h2 { font-size: 13px; margin: 0; padding: 8px 12px 4px; white-space: nowrap }
section { border: 1px solid; overflow: hidden; box-sizing: border-box; min-width: 0 }
svg { display: block } svg text { font-size: 11px }
path { fill: none; stroke-width: 1.6; stroke-linejoin: round; stroke-linecap: round }
.limit { stroke-dasharray: 6 4 } .dot { stroke-width: 4 }
svg .none { font-size: 13px }
.legend { margin: 0; padding: 2px 12px 0; font-size: 11px; line-height: 17px }
.legend span { margin-right: 13px; white-space: nowrap; display: inline-block }
.legend i { display: inline-block; width: 10px; height: 3px; margin-right: 5px; vertical-align: 3px }
"""
