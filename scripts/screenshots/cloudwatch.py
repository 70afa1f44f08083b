"""CloudWatch's dashboard from its definition in the template, with the lines that a sidecar printed for CloudWatch."""

from __future__ import annotations

import json
import re
from html import escape
from typing import Any

from scripts.monitoring import INTERVAL_SECONDS
from scripts.screenshots.drawing import Chart, Line, Place, Series, Span, Unit, chart, page, panel
from sidecar.telemetry.emf import UNITS
from tests.deploy.cloudwatch import ALARM, Metrics, alarms
from tests.deploy.template import RESOURCES, resolve

WIDTH, _CELL, _GAP = 1160, 36, 10
_COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728")
_LIMIT = "#c21f1f"


def draw(output: str, span: Span) -> str:
    """The dashboard of these minutes as HTML. `output`: all that the sidecar wrote."""
    span = Span(span.start // INTERVAL_SECONDS * INTERVAL_SECONDS, span.end)
    properties = resolve(RESOURCES["Dashboard"]["Properties"])
    metrics = Metrics(output)
    panels = []
    for widget in json.loads(properties["DashboardBody"])["widgets"]:
        place = Place(widget["x"], widget["y"], widget["width"], widget["height"])
        shown, title = widget["properties"], widget["properties"].get("title", "")
        match widget["type"]:
            case "text":
                panels.append(panel(place, "", _text(shown["markdown"]), "text"))
            case "alarm":
                panels.append(panel(place, title, _alarms(shown["alarms"], metrics, span.end), "alarms"))
            case "log":
                panels.append(panel(place, title, _log(output, shown["query"]), "log"))
            case "metric":
                panels.append(panel(place, title, _graph(shown, metrics, place, span)))
            case other:
                raise AssertionError(f"nobody knows how a widget {other} looks")
    return page(_STYLE, properties["DashboardName"], span, panels, width=WIDTH, cell=_CELL, gap=_GAP)


def _graph(shown: dict[str, Any], metrics: Metrics, place: Place, span: Span) -> str:
    series, units = [], set()
    for number, (namespace, name, *dimensions, options) in enumerate(shown["metrics"]):
        points = metrics.points((namespace, *dimensions[1::2], name), options["stat"])
        series.append(Series(options.get("label", name), _COLORS[number], points, 1.5 * shown["period"]))
        units.add(UNITS.get(name, "Count"))
    lines = [Line(one["value"], one["label"], _LIMIT) for one in shown.get("annotations", {}).get("horizontal", [])]
    width = (WIDTH - 32 + _GAP) / 24 * place.width - _GAP - 2
    unit = ", ".join(unit for unit in sorted(units) if unit != "None") or "No unit"
    steps = Unit(steps="whole" if units <= {"Count", "None"} else "round")
    drawn = chart(Chart(span, series, lines, steps), width, place.height * _CELL - _GAP - 50)
    return f'<p class="unit">{unit}</p>{drawn}'


def _text(markdown: str) -> str:
    heading, _, rest = markdown.partition("\n")
    return f"<h1>{escape(heading.removeprefix('## '))}</h1><p>{escape(rest)}</p>"


def _alarms(arns: list[str], metrics: Metrics, end: float) -> str:
    named = alarms()
    tiles = []
    for arn in arns:
        name = arn.rpartition(":")[2]
        kind, state = ("alarm", "In alarm") if metrics.state(named[name], end) == ALARM else ("ok", "OK")
        tiles.append(f'<li class="{kind}">{escape(name)}<b>{state}</b></li>')
    return f"<ul>{''.join(tiles)}</ul>"


def _log(output: str, query: str) -> str:
    """The newest of the lines that the query asks for."""
    lines = [json.loads(line) for line in output.splitlines()]
    columns = re.findall(r"fields (.+?) \|", query)[0].split(", ")
    levels = [level for level in ("debug", "info", "warning", "error", "critical") if f"'{level}'" in query]
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(line.get(column, ''))}" for column in columns)
        for line in ({**line, "@timestamp": line["time"][:23]} for line in reversed(lines) if "time" in line)
        if line["level"] in levels
    )
    return f"<table><tr>{''.join(f'<th>{column}' for column in columns)}{rows}</table>"


_STYLE = """
body { background: #f2f3f3; color: #16191f }
section { background: #fff; border-color: #d5dbdb; border-radius: 3px }
svg text { fill: #545b64 } .grid { stroke: #eaeded }
.unit { margin: 0; padding: 0 12px; font-size: 11px; color: #545b64; height: 14px }
.text h1 { font-size: 17px; padding: 8px 12px 2px } .text p { margin: 0; padding: 0 12px }
.alarms ul { list-style: none; margin: 0; padding: 4px 12px; display: grid;
    grid-template-columns: repeat(5, 1fr); gap: 3px 8px }
.alarms li { border: 1px solid; border-left-width: 5px; border-radius: 3px; padding: 1px 8px;
    display: flex; justify-content: space-between; white-space: nowrap }
.alarms .ok { border-color: #1d8102; background: #f2f8f0 } .alarms .ok b { color: #1d8102 }
.alarms .alarm { border-color: #d13212; background: #fdf3f1 } .alarms .alarm b { color: #d13212 }
table { border-collapse: collapse; margin: 2px 12px; font-size: 11.5px; width: calc(100% - 24px) }
th { text-align: left; color: #545b64 } td, th { padding: 3px 12px 3px 0; border-bottom: 1px solid #eaeded }
tr:nth-child(n + 10) { display: none }
td { white-space: nowrap } td:last-child { width: 100% }
"""
