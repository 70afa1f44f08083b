"""Grafana's dashboard from its definition, with what a real Prometheus answers to its queries."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from scripts.monitoring import GRAFANA
from scripts.screenshots.drawing import Chart, Line, Place, Series, Span, Unit, chart, page, panel
from tests.harness.prometheus_server import PrometheusServer

WIDTH, _CELL, _GAP = 1160, 27, 8
_NAMED = {"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c", "blue": "#5794f2"}
_PALETTE = ("#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#ca95e5")
_UNITS = {"short": Unit(steps="whole"), "eps": Unit(" evt/s"), "percent": Unit("%")}


def queries(interval_seconds: int) -> Iterator[tuple[str, str]]:
    """Titles of panels, and their queries as Grafana sends them for that scrape interval."""
    for one in json.loads(GRAFANA.read_text())["panels"]:
        for target in one["targets"]:
            yield one["title"], as_sent(target["expr"], interval_seconds)


def as_sent(expression: str, interval_seconds: int) -> str:
    """Grafana's $__rate_interval is four scrapes."""
    return expression.replace("$__rate_interval", f"{4 * interval_seconds}s")


def draw(prometheus: PrometheusServer, span: Span, step: int) -> str:
    """The dashboard of these minutes as HTML. `step`: seconds between two scrapes."""
    dashboard = json.loads(GRAFANA.read_text())
    panels = []
    for one in dashboard["panels"]:
        place = Place(*(one["gridPos"][name] for name in "xywh"))
        body = _stat(one, prometheus, span.end, step) if one["type"] == "stat" else ""
        if one["type"] == "timeseries":
            body = _graph(one, prometheus, place, span, step)
        assert body, f"nobody knows how a panel {one['type']} looks"
        panels.append(panel(place, one["title"], body, one["type"]))
    return page(_STYLE, dashboard["title"], span, panels, width=WIDTH, cell=_CELL, gap=_GAP)


def _graph(one: dict[str, Any], prometheus: PrometheusServer, place: Place, span: Span, step: int) -> str:
    defaults = one["fieldConfig"]["defaults"]
    series: list[Series] = []
    for target in one["targets"]:
        query = as_sent(target["expr"], step)
        first = span.start // step * step + step
        for found in prometheus.query(query, start=first, end=span.end, step=step):
            points = [(at, float(value)) for at, value in found["values"] if value != "NaN"]
            name = _legend(target["legendFormat"], found["metric"])
            series.append(Series(name, _color(one, name, len(series)), points, 1.5 * step))
    lines = [
        Line(limit["value"], "", _NAMED[limit["color"]])
        for limit in defaults["thresholds"]["steps"]
        if limit["value"] is not None and defaults["custom"]["thresholdsStyle"]["mode"] != "off"
    ]
    most = max([value for line in series for _, value in line.points] + [line.value for line in lines] + [0])
    unit = _unit(defaults["unit"], most)
    width = (WIDTH - 32 + _GAP) / 24 * place.width - _GAP - 2
    return chart(Chart(span, series, lines, unit), width, place.height * _CELL - _GAP - 34)


def _legend(form: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda label: labels.get(label[1], ""), form)


def _color(one: dict[str, Any], name: str, number: int) -> str:
    for override in one["fieldConfig"]["overrides"]:
        wanted = override["matcher"]["options"]
        if name == wanted or (wanted.startswith("/") and re.search(wanted.strip("/"), name)):
            return _NAMED[override["properties"][0]["value"]["fixedColor"]]
    return _PALETTE[number % len(_PALETTE)]


def _unit(name: str, most: float) -> Unit:
    """Grafana's, of an axis that goes so far."""
    if name == "bytes":
        return Unit(" GiB", 1 << 30) if most >= 1 << 30 else Unit(" MiB", 1 << 20)
    return _seconds(most) if name == "s" else _UNITS[name]


def _seconds(most: float) -> Unit:
    if most < 1:
        return Unit(" ms", 0.001) if most else Unit(" s")
    return Unit(" s", steps="sixty") if most <= 120 else Unit(" min", 60, "sixty")


def _stat(one: dict[str, Any], prometheus: PrometheusServer, end: float, step: int) -> str:
    defaults = one["fieldConfig"]["defaults"]
    (found,) = prometheus.query(as_sent(one["targets"][0]["expr"], step), time=end)
    value = float(found["value"][1])
    color = [limit["color"] for limit in defaults["thresholds"]["steps"] if (limit["value"] or 0) <= value][-1]
    match defaults["unit"]:
        case "bool_yes_no":
            text = "Yes" if value else "No"
        case other:
            unit = _unit(other, value)
            text = f"{value / unit.scale:.3g}{unit.suffix}"
    return f'<p style="color: {_NAMED[color]}">{text}</p>'


_STYLE = """
body { background: #111217; color: #ccccdc }
section { background: #181b1f; border-color: #2c2f36; border-radius: 2px }
h1 { font-weight: 500 } h2 { font-weight: 500 }
svg text { fill: #9a9aa8 } .grid { stroke: #26292e }
.stat p { margin: 0; text-align: center; font-size: 34px; font-weight: 500 }
"""
