"""CloudWatch's dashboard from its definition in the template, with the lines that a sidecar printed for CloudWatch."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from html import escape
from typing import Any

from deploy.monitoring import INTERVAL_SECONDS, METRICS
from tests.deploy.template import RESOURCES, resolve
from tests.harness.embedded_metrics import embedded
from tests.pictures.drawing import Chart, Line, Place, Points, Series, Span, Unit, chart, page, panel

WIDTH, _CELL, _GAP = 1160, 36, 10
_COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728")
_LIMIT = "#c21f1f"
_UNITS = {metric.name: metric.unit for metric in METRICS}
_COMPARED = {"GreaterThanThreshold": float.__gt__, "LessThanThreshold": float.__lt__}
Values = list[tuple[float, float]]
"""Values, and how often each came."""


class Metrics:
    """What CloudWatch makes of the lines: values by metric and period."""

    def __init__(self, output: str) -> None:
        self._values: defaultdict[str, defaultdict[int, Values]] = defaultdict(lambda: defaultdict(list))
        for root in embedded(output):
            period = root["_aws"]["Timestamp"] // 1000 // INTERVAL_SECONDS * INTERVAL_SECONDS
            for definition in root["_aws"]["CloudWatchMetrics"][0]["Metrics"]:
                value = root[definition["Name"]]
                pairs = zip(value["Values"], value["Counts"], strict=True) if isinstance(value, dict) else [(value, 1)]
                self._values[definition["Name"]][period] += pairs

    def points(self, metric: str, statistic: str) -> Points:
        """A value for each period that has any."""
        return [(at, _statistic(statistic, values)) for at, values in sorted(self._values[metric].items())]


def _statistic(name: str, values: Values) -> float:
    if name == "Sum":
        return sum(value * count for value, count in values)
    total = sum(count for _, count in values)
    if name == "SampleCount":
        return total
    share = {"Minimum": 0.0, "Maximum": 1.0}.get(name)
    if share is None:
        share = float(name.removeprefix("p")) / 100
    reached = 0.0
    for value, count in sorted(values):
        reached += count
        if reached >= share * total:
            return value
    raise ValueError(f"no values for {name}")


def in_alarm(alarm: dict[str, Any], metrics: Metrics, end: float) -> bool:
    """Whether it would be in ALARM after the last whole period before `end`. `alarm`: properties of the template."""
    points = dict(metrics.points(alarm["MetricName"], alarm["Statistic"]))
    last = int(end // INTERVAL_SECONDS - 1) * INTERVAL_SECONDS
    breaching = 0
    for number in range(int(alarm["EvaluationPeriods"])):
        value = points.get(last - number * INTERVAL_SECONDS)
        if value is None:
            breaching += alarm["TreatMissingData"] == "breaching"
        else:
            breaching += _COMPARED[alarm["ComparisonOperator"]](float(value), float(alarm["Threshold"]))
    return breaching >= int(alarm["DatapointsToAlarm"])


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
    for number, (namespace, name, *_, options) in enumerate(shown["metrics"]):
        points = metrics.points(name, options["stat"]) if namespace == "ModelReady" else []
        series.append(Series(options.get("label", name), _COLORS[number], points, 1.5 * shown["period"]))
        units.add(_UNITS.get(name, "Count"))
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
    named = {}
    for one in RESOURCES.values():
        if one["Type"] == "AWS::CloudWatch::Alarm":
            properties = resolve(one["Properties"])
            named[properties["AlarmName"]] = properties
    tiles = []
    for arn in arns:
        name = arn.rpartition(":")[2]
        kind, state = ("alarm", "In alarm") if in_alarm(named[name], metrics, end) else ("ok", "OK")
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
    grid-template-columns: repeat(5, 1fr); gap: 6px 8px }
.alarms li { border: 1px solid; border-left-width: 5px; border-radius: 3px; padding: 5px 8px;
    display: flex; justify-content: space-between; white-space: nowrap }
.alarms .ok { border-color: #1d8102; background: #f2f8f0 } .alarms .ok b { color: #1d8102 }
.alarms .alarm { border-color: #d13212; background: #fdf3f1 } .alarms .alarm b { color: #d13212 }
table { border-collapse: collapse; margin: 2px 12px; font-size: 11.5px; width: calc(100% - 24px) }
th { text-align: left; color: #545b64 } td, th { padding: 3px 12px 3px 0; border-bottom: 1px solid #eaeded }
tr:nth-child(n + 10) { display: none }
td { white-space: nowrap } td:last-child { width: 100% }
"""
