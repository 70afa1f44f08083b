"""Prometheus' rules: the alarms of scripts/monitoring.py as queries for the metrics of sidecar/metrics.py.

An alarm that CloudWatch raises in 4 of 5 minutes is one here, too. Each keeps the labels that name the sidecar, the
group or the list. Where a text is about AWS, WORDS has what it says elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Protocol

SELECTOR = "__SELECTOR__"
"""Stands for the labels that every query asks for, in the file of the chart, which puts its own there."""
MORNING = frozenset({"dead-letters", "list-dead-letters", "outbox-refused"})
"""Those that can wait until the morning; the others are critical."""


class Alarm(Protocol):
    """What is used of scripts.monitoring.Alarm."""

    @property
    def name(self) -> str: ...
    @property
    def threshold(self) -> float | str: ...
    @property
    def minutes(self) -> int: ...
    @property
    def of(self) -> int: ...
    @property
    def what(self) -> str: ...
    @property
    def todo(self) -> str: ...


_BY = "by (namespace, job)"
_FAILURES = f"sum {_BY} (rate(modelready_redis_{{}}_failures_total$[2m])) > 0"
_REFUSED = 'modelready_published_events_total${outcome!~"stored|spooled|duplicate"}'


def _known(gauge: str, label: str) -> str:
    """A gauge of what is in Redis, of the sidecars that reach it: the others keep their last value."""
    up = "and on (namespace, job, instance) modelready_redis_up$ == 1"
    return f"max by (namespace, job, {label}) ({gauge} {up})"


# Of each alarm: what is compared with its threshold. `$` stands for the labels of SELECTOR.
_VALUES = {
    "queue-not-draining": _known("modelready_queue_oldest_age_seconds$", "group"),
    "dead-letters": f"max {_BY} (modelready_dead_letter_stream_length$)",
    "list-dead-letters": _known("modelready_list_dead_letters$", "list"),
    "list-not-draining": _known("modelready_list_depth$", "list")
    + " + "
    + _known("modelready_list_processing$", "list"),
    "spool-growing": "modelready_spool_oldest_age_seconds$",
    "spool-filling": "100 * modelready_spool_bytes$ / modelready_spool_max_bytes$",
    "spool-disk": "modelready_spool_disk_free_bytes$",
    "outbox-not-draining": "modelready_outbox_oldest_age_seconds$",
    "outbox-refused": f"max {_BY} (modelready_outbox_refused_rows$)",
    "eviction-policy": _known('modelready_redis_eviction_policy${policy!="noeviction"}', "policy"),
    "redis-memory": f"100 * max {_BY} (modelready_redis_used_memory_bytes$)"
    f" / (max {_BY} (modelready_redis_max_memory_bytes$) > 0)",
}
# Those that are no comparison. A counter with labels begins with its first event, which `increase` does not see.
_EXPRESSIONS = {
    "sidecar-absent": "absent(modelready_build_info$)",
    "connection-failures": f"count_over_time(({_FAILURES.format('connection')})[{{of}}m:1m]) >= {{minutes}}",
    "auth-failures": f"count_over_time(({_FAILURES.format('auth')})[{{of}}m:1m]) >= {{minutes}}",
    "publishes-refused": f"sum by (namespace, job, outcome) (increase({_REFUSED}[{{of}}m])) > 0"
    f" or sum by (namespace, job, outcome) ({_REFUSED} unless {_REFUSED} offset {{of}}m) > 0",
}
WORDS: Mapping[str, tuple[str, str]] = {
    "sidecar-absent": (
        "No sidecar has been scraped for five minutes.",
        (
            "See why the pod or container does not run, and the last lines of its log: a wrong variable ends the start"
            " with one line that names it. If the sidecar runs, look at Prometheus' page of targets."
        ),
    ),
    "connection-failures": (
        "Commands to Redis fail, for longer than a failover takes. Events are spooled on the sidecar's disk.",
        (
            "Do not stop the pod while its spool holds events. Run modelready-sidecar doctor in it and fix the first"
            " that it names."
        ),
    ),
    "auth-failures": (
        "Redis refuses the login. Events are spooled on the sidecar's disk.",
        (
            "See that the sidecar's secret is the token that Redis has. One of REDIS_AUTH_SECRET_ID is read again"
            " without a restart; for another one restart the pod when its spool is empty."
        ),
    ),
    "spool-growing": (
        "Events have waited on a sidecar's disk for more than five minutes.",
        (
            "Do not stop the pod, whose disk may go with it. The sidecar's log has the reason. Bring Redis back; then"
            " the spool empties by itself."
        ),
    ),
    "spool-filling": (
        "The spool is half full. When it is full, publishing is refused.",
        "Bring Redis back, or give the spool more room in the next release; do not stop the pod meanwhile.",
    ),
    "spool-disk": (
        "The disk of a sidecar's spool is nearly full. When it is full, nothing can be spooled.",
        "See what fills the disk of SPOOL_DIR: the spool while Redis is away, else another container or its logs.",
    ),
    "eviction-policy": (
        (
            "Redis evicts keys when its memory is full: with an allkeys- policy whole queues of acknowledged events,"
            " with a volatile- policy the ids by which duplicates are recognised."
        ),
        "Set maxmemory-policy to noeviction; that needs no restart.",
    ),
    "redis-memory": (
        "Redis' memory is nearly full. When it is full, writes are refused and events are spooled.",
        "modelready-sidecar status shows which consumer group holds the queue back. Or give Redis more memory.",
    ),
}


def title(name: str) -> str:
    """The alert's name, such as ModelReadySpoolGrowing."""
    return "ModelReady" + "".join(word.capitalize() for word in name.split("-"))


def expression(alarm: Alarm, threshold: float | str, selector: str) -> str:
    """The alert's query. `selector`: label matchers that every metric must meet, such as job="x"; or none."""
    if alarm.name in _EXPRESSIONS:
        query = _EXPRESSIONS[alarm.name].replace("{of}", str(alarm.of)).replace("{minutes}", str(alarm.minutes))
    else:
        sign = "<" if alarm.name == "spool-disk" else ">"
        query = f"{_VALUES[alarm.name]} {sign} {threshold}"
    query = query.replace("${", f"{{{selector}{',' if selector else ''}")
    return query.replace("$", f"{{{selector}}}" if selector else "")


def rules(alarms: Sequence[Alarm], oldest_age: float | str, selector: str = "") -> str:
    """The rules as YAML, made to be read. `oldest_age`: the threshold of queue-not-draining, in seconds."""
    lines = [
        "# Generated by scripts/monitoring.py, which is where to change it.",
        "groups:",
        "  - name: model-ready",
        "    rules:",
    ]
    for alarm in alarms:
        threshold = oldest_age if isinstance(alarm.threshold, str) else f"{alarm.threshold:.15g}"
        what, todo = WORDS.get(alarm.name, (alarm.what, alarm.todo))
        lines += [
            f"      - alert: {title(alarm.name)}",
            f"        expr: {json.dumps(expression(alarm, threshold, selector))}",
            *([f"        for: {alarm.of}m"] if alarm.minutes == alarm.of > 1 else []),
            f"        labels: {{severity: {'warning' if alarm.name in MORNING else 'critical'}}}",
            "        annotations:",
            f"          summary: {json.dumps(what)}",
            f"          description: {json.dumps(todo)}",
            f"          runbook_url: docs/operations.md#{alarm.name}",
        ]
    return "\n".join(lines) + "\n"
