"""Lines in CloudWatch's embedded metric format, held against its published specification and schema."""

import json
import math
from typing import Any

_SIZES = [size + unit for unit in ("bytes", "bits") for size in ("Kilo", "Mega", "Giga", "Tera")] + ["Bytes", "Bits"]
UNITS = {
    *("Seconds", "Microseconds", "Milliseconds", "Percent", "Count", "Count/Second", "None"),
    *_SIZES,
    *(f"{size}/Second" for size in _SIZES),
}
MAX_BYTES = 256 * 1024


def embedded(output: str) -> list[dict[str, Any]]:
    """The lines among others, each checked; a line that is no JSON object fails."""
    roots = [json.loads(line) for line in output.splitlines()]
    lines = [root for root in roots if "_aws" in root]
    for root in lines:
        check(root)
    return lines


def check(root: dict[str, Any]) -> None:
    """AssertionError where CloudWatch would not take it."""
    assert len(json.dumps(root)) < MAX_BYTES
    about = root["_aws"]
    assert about.keys() == {"Timestamp", "CloudWatchMetrics"}
    assert type(about["Timestamp"]) is int
    assert about["CloudWatchMetrics"]
    for directive in about["CloudWatchMetrics"]:
        assert directive.keys() == {"Namespace", "Dimensions", "Metrics"}
        assert 1 <= len(directive["Namespace"]) <= 255
        assert directive["Dimensions"]
        for dimensions in directive["Dimensions"]:
            assert len(dimensions) <= 30
            for name in dimensions:
                assert 1 <= len(name) <= 250
                value = root[name]
                assert type(value) is str
                assert value.isascii()
                assert value.isprintable()
                assert value.strip()
                assert len(value) <= 1024
        names = [definition["Name"] for definition in directive["Metrics"]]
        assert len(names) == len(set(names)) <= 100
        for definition in directive["Metrics"]:
            _check_metric(definition, root)


def _check_metric(definition: dict[str, Any], root: dict[str, Any]) -> None:
    assert definition.keys() <= {"Name", "Unit", "StorageResolution"}
    assert 1 <= len(definition["Name"]) <= 255
    assert definition["Unit"] in UNITS
    assert definition.get("StorageResolution", 60) in (1, 60)
    value = root[definition["Name"]]
    if isinstance(value, dict):
        assert value.keys() == {"Values", "Counts"}
        assert 1 <= len(value["Values"]) == len(value["Counts"]) <= 100
        assert all(count > 0 for count in value["Counts"])
    for number in [value] if not isinstance(value, dict) else [*value["Values"], *value["Counts"]]:
        assert type(number) in (int, float)
        assert math.isfinite(number)
