"""Plots of the last hour as inline SVG, drawn here. What they show stands in a table too."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from sidecar.web.history import HOUR_SECONDS, PERIOD_SECONDS
from sidecar.web.markup import Markup, html, join

_WIDTH, _HEIGHT = 320, 130
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 8, 10, 22
_GAP_SECONDS = 2.5 * PERIOD_SECONDS  # a longer pause between two samples is shown as one

Point = tuple[float, float | None]

_PLOT = """<figure class="plot {name}">
<figcaption><h3 id="{name}-title">{title}</h3><p class="now">{now} <span>{unit}</span></p></figcaption>
<svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="{name}-title {name}-desc">
<desc id="{name}-desc">{description}</desc>
{grid}{line}</svg>
</figure>
"""
_LEVEL = """<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>\
<text class="tick" x="{label:.1f}" y="{base:.1f}" text-anchor="end">{value}</text>"""
_HOUR = """<text class="tick" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{label}</text>"""


def plot(name: str, title: str, unit: str, points: Sequence[Point], now: float, *, least: float = 4) -> Markup:
    """One series of the hour before `now`, as (Unix seconds, value). `name`: an id of its own in the document.

    `least`: the least that the axis goes up to, so that next to nothing looks like it.
    """
    known = [value for _, value in points if value is not None]
    top = _round_up(max(known, default=0), least)
    current = points[-1][1] if points else None
    return html(
        _PLOT,
        name=name,
        title=title,
        now="not known" if current is None else number(current),
        unit="" if current is None else unit,
        width=_WIDTH,
        height=_HEIGHT,
        description=_describe(known, unit),
        grid=_grid(top),
        line=_line(points, now, top),
    )


def number(value: float) -> str:
    """A number as people write it: no more than three digits where there is a fraction."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _describe(known: Sequence[float], unit: str) -> str:
    if not known:
        return "Nothing is known of the last hour."
    least, most = number(min(known)), number(max(known))
    return (
        f"Over the last hour: least {least}, most {most}, last {number(known[-1])} {unit}. The table has the figures."
    )


def _round_up(value: float, least: float) -> float:
    """Where the axis ends: 2, 4, 6, 8 or 10 of a power of ten, so that half of it is as round."""
    value = max(value, least)
    scale = 10.0 ** math.floor(math.log10(value))
    return next(step * scale for step in (2, 4, 6, 8, 10) if value <= step * scale)


def _grid(top: float) -> Markup:
    right = _WIDTH - _RIGHT
    levels = [
        html(_LEVEL, left=_LEFT, right=right, y=_y(value, top), label=_LEFT - 5, base=_y(value, top) + 4, value=short)
        for value, short in ((part, _short(part)) for part in (0.0, top / 2, top))
    ]
    hours = [
        html(_HOUR, x=_LEFT + share * (right - _LEFT), y=_HEIGHT - 5, anchor=anchor, label=label)
        for share, anchor, label in ((0, "start", "60 min ago"), (0.5, "middle", "30 min"), (1, "end", "now"))
    ]
    return join([*levels, *hours])


def _short(value: float) -> str:
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g} {letter}"
    return f"{value:g}"


def _line(points: Sequence[Point], now: float, top: float) -> Markup:
    parts = []
    for run in _runs(points):
        dots = [(_x(at, now), _y(value, top)) for at, value in run]
        if len(dots) == 1:
            parts.append(html('<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2"/>', x=dots[0][0], y=dots[0][1]))
            continue
        path = " L".join(f"{x:.1f} {y:.1f}" for x, y in dots)
        area = f"M{dots[0][0]:.1f} {_y(0, top):.1f} L{path} L{dots[-1][0]:.1f} {_y(0, top):.1f} Z"
        parts.append(html('<path class="area" d="{area}"/><path class="curve" d="M{path}"/>', area=area, path=path))
    return join(parts)


def _runs(points: Sequence[Point]) -> Iterator[list[tuple[float, float]]]:
    """Stretches in which the value is known all the time."""
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
    return _WIDTH - _RIGHT - max(now - at, 0) / HOUR_SECONDS * (_WIDTH - _LEFT - _RIGHT)


def _y(value: float, top: float) -> float:
    return _HEIGHT - _BOTTOM - value / top * (_HEIGHT - _TOP - _BOTTOM)
