"""What CloudWatch makes of a sidecar's output: metrics of its lines, and the states of alarms.

The rules are those of "Configuring how CloudWatch alarms treat missing data" in CloudWatch's user guide.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from scripts.monitoring import INTERVAL_SECONDS
from sidecar.telemetry.emf import DIMENSIONS
from tests.deploy.template import RESOURCES, resolve
from tests.harness.embedded_metrics import embedded

OK, ALARM, UNKNOWN = "OK", "ALARM", "INSUFFICIENT_DATA"
FURTHER_BACK = 2
"""So many periods more are looked at where values are missing; of three periods the guide says so, else nothing."""
_COMPARED = {"GreaterThanThreshold": float.__gt__, "LessThanThreshold": float.__lt__}
Values = list[tuple[float, float]]
"""Values, and how often each came."""
Series = tuple[str, ...]
"""A namespace, the values of DIMENSIONS, and a name."""


class Metrics:
    """Values by series and period."""

    def __init__(self, output: str) -> None:
        """`output`: all that sidecars wrote, lines of their log among it."""
        self._values: defaultdict[Series, defaultdict[int, Values]] = defaultdict(lambda: defaultdict(list))
        for root in embedded(output):
            period = root["_aws"]["Timestamp"] // 1000 // INTERVAL_SECONDS * INTERVAL_SECONDS
            (directive,) = root["_aws"]["CloudWatchMetrics"]
            assert directive["Dimensions"] == [list(DIMENSIONS)]
            for definition in directive["Metrics"]:
                value = root[definition["Name"]]
                pairs = zip(value["Values"], value["Counts"], strict=True) if isinstance(value, dict) else [(value, 1)]
                series = (directive["Namespace"], *(root[name] for name in DIMENSIONS), definition["Name"])
                self._values[series][period] += pairs

    def points(self, series: Series, statistic: str) -> list[tuple[float, float]]:
        """A value for each period that has any, by the period's first second."""
        return [(at, _statistic(statistic, values)) for at, values in sorted(self._values[series].items())]

    def state(self, alarm: dict[str, Any], end: float) -> str:
        """The state of an alarm after the last whole period before `end`. `alarm`: properties of the template."""
        dimensions = {one["Name"]: one["Value"] for one in alarm["Dimensions"]}
        assert dimensions.keys() == set(DIMENSIONS)
        series = (alarm["Namespace"], *(dimensions[name] for name in DIMENSIONS), alarm["MetricName"])
        period, periods = int(alarm["Period"]), int(alarm["EvaluationPeriods"]) + FURTHER_BACK
        assert period == INTERVAL_SECONDS
        points = dict(self.points(series, alarm["Statistic"]))
        last = int(end // period - 1) * period
        return state(alarm, [points.get(last - number * period) for number in reversed(range(periods))])


def alarms() -> dict[str, dict[str, Any]]:
    """The properties of the template's alarms, by their names in a stack of the defaults."""
    made = (resolve(one["Properties"]) for one in RESOURCES.values() if one["Type"] == "AWS::CloudWatch::Alarm")
    return {properties["AlarmName"]: properties for properties in made}


def state(alarm: dict[str, Any], values: Sequence[float | None]) -> str:
    """The state of an alarm. `values`: of the last periods and of those FURTHER_BACK, the newest last."""
    looked, needed = int(alarm["EvaluationPeriods"]), int(alarm.get("DatapointsToAlarm", alarm["EvaluationPeriods"]))
    compare, threshold = _COMPARED[alarm["ComparisonOperator"]], float(alarm["Threshold"])
    marks = [None if value is None else compare(float(value), threshold) for value in values]
    known = [mark for mark in marks if mark is not None][-looked:]
    lacking, breaching = looked - len(known), sum(known)
    match alarm["TreatMissingData"]:
        case "breaching":
            breaching += lacking
        case "missing" if not known:
            return UNKNOWN
        case "missing" if lacking and all(known) and any(marks[-looked : len(marks) - needed + 1]):
            return ALARM  # nothing has spoken against it for as long as is needed
        case "missing" | "notBreaching":
            pass
        case other:
            raise NotImplementedError(other)
    return ALARM if breaching >= needed else OK


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
