"""Alarms and dashboards are what their tables say, and lead to what exists."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from scripts import monitoring
from scripts.monitoring import ALARMS, GRAFANA, METRICS, TEMPLATE, files
from sidecar.cli.main import main
from sidecar.metrics import Metrics
from sidecar.telemetry import emf
from tests.deploy.template import RESOURCES, ROOT, resolve

UNITS = {"Count", "Seconds", "Milliseconds", "Percent", "None", "Bytes"}  # of CloudWatch's 27
ALARM_RESOURCES = {name: one for name, one in RESOURCES.items() if one["Type"] == "AWS::CloudWatch::Alarm"}


def sections() -> set[str]:
    """The anchors of docs/troubleshooting.md."""
    text = (ROOT / "docs/troubleshooting.md").read_text()
    return {title.lower().replace(" ", "-") for title in re.findall(r"^## (.+)$", text, re.MULTILINE)}


def names_of(expression: str) -> set[str]:
    return set(re.findall(r"\bmodelready_\w+", expression))


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_what_is_checked_in_is_what_is_generated(path: Path) -> None:
    """Run `make docs` after a change."""
    assert path.read_text() == files()[path]


def test_a_change_of_the_generated_part_is_noticed() -> None:
    text = TEMPLATE.read_text()
    assert monitoring.with_generated(text.replace("MetricName: DeadLetters", "MetricName: Letters")) == text


def test_metrics_have_units_of_cloudwatch_and_fit_into_an_object() -> None:
    assert set(emf.UNITS.values()) <= UNITS
    assert len(METRICS) <= 100  # that one EMF object may have


@pytest.mark.parametrize("name", ALARM_RESOURCES)
def test_an_alarm_says_what_to_do_and_where_there_is_more(name: str) -> None:
    said = ALARM_RESOURCES[name]["Properties"]["AlarmDescription"]
    page, _, section = said.rpartition(" ")[2].partition("#")
    assert page == "docs/operations.md"
    assert f"### {section}\n" in (ROOT / page).read_text()
    assert len(said) <= 1024
    assert said.count(". ") >= 2, "what it means, and what to do"


@pytest.mark.parametrize("alarm", ALARMS, ids=lambda alarm: alarm.name)
def test_an_alarm_watches_a_metric_that_there_is(alarm: monitoring.Alarm) -> None:
    made = resolve(RESOURCES[monitoring.resource(alarm.name)]["Properties"])
    assert alarm.metric in METRICS
    assert made["MetricName"] == alarm.metric
    assert [one["Name"] for one in made["Dimensions"]] == list(emf.DIMENSIONS)
    assert 1 <= alarm.minutes <= alarm.of
    assert made["AlarmActions"] == []  # without a topic


def test_commands_and_files_that_alarms_name_exist() -> None:
    said = " ".join(f"{alarm.what} {alarm.todo}" for alarm in ALARMS)
    commands = set(re.findall(r"modelready-sidecar ([a-z-]+)", said))
    assert commands == {"status", "groups", "dead-letters", "outbox"}
    for command in commands:
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
    assert [name for name in re.findall(r"\b(?:deploy|docs)/[\w./-]+\w", said) if not (ROOT / name).exists()] == []


# What /metrics has for each metric of CloudWatch; where that is several series, the query makes the same of them.
IN_PROMETHEUS = {
    **{f"Publishes{outcome}": "published_events" for outcome in ("Stored", "Duplicate", "Spooled", "Refused")},
    "QueueDepth": "queue_depth", "QueuePending": "queue_pending", "OldestUnacknowledgedAge": "queue_oldest_age_seconds",
    "DeadLetters": "dead_letter_stream_length", "ListDepth": "list_depth", "ListProcessing": "list_processing",
    "ListDeadLetters": "list_dead_letters", "SpoolDepth": "spool_events", "SpoolOldestAge": "spool_oldest_age_seconds",
    "SpoolBytesUsedPercent": "spool_bytes", "SpoolDiskFreeBytes": "spool_disk_free_bytes", "OutboxDepth": "outbox_rows",
    "OutboxOldestAge": "outbox_oldest_age_seconds", "OutboxRefused": "outbox_refused_rows", "RpcLatency": "rpc_seconds",
    "RedisLatency": "redis_append_seconds", "ConnectionFailures": "redis_connection_failures",
    "AuthFailures": "redis_auth_failures", "RedisUp": "redis_up", "EvictionPolicyWrong": "redis_eviction_policy",
    "RedisMemoryUsedPercent": "redis_used_memory_bytes",
}  # fmt: skip


def test_prometheus_has_every_metric_of_cloudwatch() -> None:
    there = {family.name.removeprefix("modelready_") for family in Metrics().registry.collect()}
    assert IN_PROMETHEUS.keys() == METRICS.keys()
    assert set(IN_PROMETHEUS.values()) <= there


def test_grafana_asks_for_metrics_that_the_sidecar_has() -> None:
    there = set()
    for family in Metrics().registry.collect():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        there |= {family.name + suffix for suffix in suffixes}
    dashboard = json.loads(GRAFANA.read_text())
    asked = {name for panel in dashboard["panels"] for target in panel["targets"] for name in names_of(target["expr"])}
    assert asked
    assert asked - there == set()


def test_grafana_s_panels_have_each_their_place_and_queries_their_letter() -> None:
    panels = json.loads(GRAFANA.read_text())["panels"]
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels) == len({panel["id"] for panel in panels})
    for panel in panels:
        letters = [target["refId"] for target in panel["targets"]]
        assert sorted(set(letters)) == letters


def test_grafana_s_panels_do_not_overlap() -> None:
    cells = Counter(
        (x, y)
        for panel in json.loads(GRAFANA.read_text())["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    )
    assert set(cells.values()) == {1}
    assert {x for x, _ in cells} == set(range(24))


def test_the_document_has_the_numbers_that_cost_money() -> None:
    document = (ROOT / "docs/operations.md").read_text()
    assert f"{len(METRICS)} metrics" in document
    assert f"{len(ALARM_RESOURCES)} alarms" in document
    assert f"{len(METRICS) * 0.30:.2f} USD" in document
    assert f"{len(ALARM_RESOURCES) * 0.10:.2f} USD" in document


def test_the_document_has_a_row_for_each_metric_and_no_other() -> None:
    section = (ROOT / "docs/operations.md").read_text().split("\n## Metrics\n")[1].split("\n## ")[0]
    first = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert re.findall(r"`(\w+)`", "".join(first)) == list(METRICS)


def runbooks() -> dict[str, str]:
    """The text below each alarm's name in docs/operations.md."""
    section = (ROOT / "docs/operations.md").read_text().split("\n## Alarms\n")[1].split("\n## ")[0]
    _, *parts = re.split(r"^### (.+)$", section, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_each_alarm_has_its_runbook_and_no_other() -> None:
    assert list(runbooks()) == [alarm.name for alarm in [*ALARMS, monitoring.ROTATION_ALARM]]


@pytest.mark.parametrize("alarm", [*ALARMS, monitoring.ROTATION_ALARM], ids=lambda alarm: alarm.name)
def test_a_runbook_says_when_whom_to_call_what_to_do_and_when_it_is_over(alarm: monitoring.Alarm) -> None:
    said = runbooks()[alarm.name]
    several = f"for {alarm.of} minutes" if alarm.minutes == alarm.of else f"in {alarm.minutes} of {alarm.of} minutes"
    assert (several if alarm.of > 1 else "at once") in said
    if alarm.threshold not in (0, 1):
        assert str(alarm.threshold) in said
    assert re.search(r"\b(Now|Morning)\b", said)
    assert "\n- First: " in said
    assert re.search(r"\n- Over: .*\.\n", said)
    assert alarm.section in sections()
    assert f"[{alarm.section}](troubleshooting.md#{alarm.section})" in said
