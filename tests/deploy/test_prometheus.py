"""Prometheus' alerts are CloudWatch's alarms: each fires when something is wrong, alone, and ends when it is fixed."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import prometheus
from scripts.monitoring import ALARMS, OLDEST_AGE_SECONDS, PROMETHEUS
from sidecar.metrics import Metrics
from tests.deploy.template import TEMPLATE
from tests.deploy.test_grafana import required
from tests.deploy.test_monitoring import names_of, runbooks

RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for rule in yaml.safe_load(PROMETHEUS.read_text())["groups"][0]["rules"]
}
WHERE = {"namespace": "models", "job": "registry", "instance": "one"}
BEGIN, END, LAST = 20, 40, 60  # minutes

# Each series with the alarm that it is for: its values while all is well and while not. `+`: its growth a minute.
GAUGES = {
    "build_info": {"sidecar-absent": ("1", "stale")},
    "redis_connection_failures_total": {"connection-failures": ("+0", "+60")},
    "redis_auth_failures_total": {"auth-failures": ("+0", "+60")},
    'queue_oldest_age_seconds{group="deployer"}': {"queue-not-draining": ("20", "901")},
    "dead_letter_stream_length": {"dead-letters": ("0", "1")},
    'list_dead_letters{list="deployments"}': {"list-dead-letters": ("0", "1")},
    'list_depth{list="deployments"}': {"list-not-draining": ("100", "901")},
    'list_processing{list="deployments"}': {"list-not-draining": ("100", "100")},
    "spool_oldest_age_seconds": {"spool-growing": ("0", "301")},
    "spool_bytes": {"spool-filling": ("0", "51")},
    "spool_max_bytes": {"spool-filling": ("100", "100")},
    "spool_disk_free_bytes": {"spool-disk": (str(1 << 30), str(1 << 27))},
    "outbox_oldest_age_seconds": {"outbox-not-draining": ("0", "301")},
    "outbox_refused_rows": {"outbox-refused": ("0", "1")},
    'published_events_total{outcome="stored"}': {"publishes-refused": ("+60", "+60")},
    'published_events_total{outcome="SPOOL_FULL"}': {"publishes-refused": ("none", "first")},
    'redis_eviction_policy{policy="allkeys-lru"}': {"eviction-policy": ("none", "1")},
    "redis_used_memory_bytes": {"redis-memory": ("30", "81")},
    "redis_max_memory_bytes": {"redis-memory": ("100", "100")},
    "redis_up": {},
}
LABELS: dict[str, set[str]] = {
    "sidecar-absent": set(),
    "queue-not-draining": {"namespace", "job", "group"},
    "list-dead-letters": {"namespace", "job", "list"},
    "list-not-draining": {"namespace", "job", "list"},
    "publishes-refused": {"namespace", "job", "outcome"},
    "eviction-policy": {"namespace", "job", "policy"},
    **{name: {*WHERE} for name in ("spool-growing", "spool-filling", "spool-disk", "outbox-not-draining")},
}


def labelled(series: str) -> tuple[str, dict[str, str]]:
    name, _, rest = series.partition("{")
    own = dict([rest.rstrip("}").split("=")]) if rest else {}
    return f"modelready_{name}", {**WHERE, **{label: value.strip('"') for label, value in own.items()}}


def values(well: str, wrong: str) -> str:
    """In promtool's notation: a value a minute, wrong from BEGIN to END."""
    if wrong == "stale":
        return f"1x{BEGIN - 1} stale _x{END - BEGIN - 1} 1x{LAST - END}"
    if wrong == "first":  # a counter that is there from its first event on
        return f"_x{BEGIN} 1+1x{END - BEGIN - 1} {END - BEGIN}x{LAST - END}"
    if well.startswith("+"):
        before, after = 0, int(wrong) * (END - BEGIN)
        return f"{before}{well}x{BEGIN} {before}{wrong}x{END - BEGIN} {after}{well}x{LAST - END}"
    return " ".join(f"{one}x{count - 1}" if one != "none" else f"_x{count}" for one, count in
                    ((well, BEGIN), (wrong, END - BEGIN), (well, LAST - END + 1)))  # fmt: skip


def case(fault: str) -> dict[str, Any]:
    """A test of promtool's with that fault, or none: all alarms before it, during it and after it."""
    inputs: list[dict[str, str]] = []
    given: dict[str, str] = {}
    for series, of in GAUGES.items():
        well, wrong = next(iter(of.values()), ("1", "1"))
        name, labels = labelled(series)
        text = ",".join(f'{label}="{value}"' for label, value in labels.items())
        inputs.append({"series": f"{name}{{{text}}}", "values": values(well, wrong if fault in of else well)})
        if fault in of:
            given |= labels
    checks = []
    for minute in (BEGIN - 1, BEGIN + 8, END - 1, LAST):
        for alarm in ALARMS:
            title = prometheus.title(alarm.name)
            kept = {label: given[label] for label in LABELS.get(alarm.name, {"namespace", "job"}) if label in given}
            alert = {"exp_labels": RULES[title]["labels"] | kept, "exp_annotations": RULES[title]["annotations"]}
            fires = alarm.name == fault and BEGIN < minute < END
            checks.append({"eval_time": f"{minute}m", "alertname": title, "exp_alerts": [alert] if fires else []})
    return {"name": fault or "all is well", "interval": "1m", "input_series": inputs, "alert_rule_test": checks}


def test_each_alert_fires_alone_while_its_fault_lasts(tmp_path: Path) -> None:
    promtool = required(shutil.which("promtool"))
    tests = [case(fault) for fault in ("", *(alarm.name for alarm in ALARMS))]
    file = tmp_path / "tests.yaml"
    file.write_text(json.dumps({"rule_files": [str(PROMETHEUS)], "evaluation_interval": "1m", "tests": tests}))
    ran = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_failover_and_a_token_refused_once_are_silent(tmp_path: Path) -> None:
    promtool = required(shutil.which("promtool"))
    where = ",".join(f'{label}="{value}"' for label, value in WHERE.items())
    tests = []
    for second in range(0, 60, 15):
        steps = f"0x{40 + second // 15}"  # 15 seconds each
        inputs = [
            {"series": f"modelready_redis_connection_failures_total{{{where}}}", "values": f"{steps} 15 30x80"},
            {"series": f"modelready_redis_auth_failures_total{{{where}}}", "values": f"{steps} 1x80"},
        ]
        silent = [
            {"eval_time": f"{minute}m", "alertname": prometheus.title(name), "exp_alerts": []}
            for minute in range(10, 20)
            for name in ("connection-failures", "auth-failures")
        ]
        tests.append({"interval": "15s", "input_series": inputs, "alert_rule_test": silent})
    file = tmp_path / "tests.yaml"
    file.write_text(json.dumps({"rule_files": [str(PROMETHEUS)], "evaluation_interval": "1m", "tests": tests}))
    ran = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_prometheus_has_the_same_alarms_as_cloudwatch_with_the_same_runbooks() -> None:
    assert list(RULES) == [prometheus.title(alarm.name) for alarm in ALARMS]
    for alarm in ALARMS:
        rule = RULES[prometheus.title(alarm.name)]
        assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{alarm.name}"
        later = "Morning" in runbooks()[alarm.name]
        assert rule["labels"]["severity"] == ("warning" if later else "critical")
    said = " ".join(f"{rule['annotations']['summary']} {rule['annotations']['description']}" for rule in RULES.values())
    assert not [word for word in ("ECS", "deploy/check", "task", "parameter group", "AWS") if word in said]


def test_rules_ask_for_metrics_that_the_sidecar_has() -> None:
    there = {f"{one.name}{'_total' if one.type == 'counter' else ''}" for one in Metrics().registry.collect()}
    assert {name for rule in RULES.values() for name in names_of(rule["expr"])} <= there


def test_the_threshold_of_the_oldest_entry_is_the_template_s_default() -> None:
    assert TEMPLATE["Parameters"]["OldestAgeAlarmSeconds"]["Default"] == OLDEST_AGE_SECONDS


@pytest.mark.parametrize("alarm", ALARMS, ids=lambda alarm: alarm.name)
def test_every_metric_of_a_rule_is_asked_for_with_the_chart_s_labels(alarm: Any) -> None:
    query = prometheus.expression(alarm, 1, 'job="x"')
    assert query.count("modelready_") == query.count('{job="x"')
