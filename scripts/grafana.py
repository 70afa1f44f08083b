"""Grafana's dashboard, generated from tables of panels. It queries Prometheus for the metrics of sidecar/metrics.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple


class Panel(NamedTuple):
    """A panel. `queries` are pairs of PromQL and legend; `unit` is Grafana's name for it.

    `threshold` is drawn as a line and turns a number red. Text names an alarm, whose threshold is used. `colors` are
    pairs of a legend, or a pattern between slashes, and the color of its series.
    """

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    threshold: float | str | None = None
    colors: tuple[tuple[str, str], ...] = ()


def _quantiles(metric: str, by: str = "") -> tuple[tuple[str, str], ...]:
    group, legend = (f"le, {by}", f" {{{{{by}}}}}") if by else ("le", "")
    return tuple(
        (
            # Without the comparison, a method without calls has a legend but no line.
            f"histogram_quantile({q}, sum by ({group}) (rate({metric}_bucket[$__rate_interval]))) >= 0",
            f"p{q * 100:g}{legend}",
        )
        for q in (0.5, 0.99)
    )


def _minutely(counter: str, by: str = "") -> str:
    """A counter's increase per minute."""
    return f"60 * sum{f' by ({by})' if by else ''} (rate({counter}[$__rate_interval]))"


def _known(gauge: str, by: str = "") -> str:
    """A gauge of what is in Redis. A sidecar keeps its last value while Redis is away; that one is left out."""
    return f"max{f' by ({by})' if by else ''} ({gauge} and on (job, instance) modelready_redis_up == 1)"


_USED = "max(100 * modelready_spool_bytes / modelready_spool_max_bytes)"
_ACKNOWLEDGED = 'sum(rate(modelready_published_events_total{outcome=~"stored|spooled|duplicate"}[$__rate_interval]))'
_MEAN_GROUP = (
    "sum(rate(modelready_group_events_sum[$__rate_interval]))"
    " / sum(rate(modelready_group_events_count[$__rate_interval]))"
)
_OUTCOMES = (("stored", "green"), ("spooled", "orange"), ("duplicate", "blue"), ("/^[A-Z_]+$/", "red"))
# The first row: one number each.
STATS = (
    Panel("Redis answers", "bool_yes_no", (("min(modelready_redis_up)", "up"),)),
    Panel("Events acknowledged", "eps", (
        (_ACKNOWLEDGED, "events"),
    )),
    Panel("Slowest group is behind by", "short", ((_known("modelready_queue_depth"), "entries"),)),
    Panel("Dead letters", "short", ((_known("modelready_dead_letter_stream_length"), "entries"),), 1),
    Panel("Oldest spooled event", "s", (("max(modelready_spool_oldest_age_seconds)", "age"),), "spool-growing"),
    Panel("Spool in use", "percent", ((_USED, "used"),), "spool-filling"),
)  # fmt: skip
# Below it, three panels a row: publishing, the queue, the spool, Redis, the inside.
PANELS = (
    Panel("Events published, by outcome", "eps", (
        ("sum by (outcome) (rate(modelready_published_events_total[$__rate_interval]))", "{{outcome}}"),
    ), colors=_OUTCOMES),
    Panel("Latency of calls", "s", _quantiles("modelready_rpc_seconds", "method"), 0.1),
    Panel("Redis up (1) or away (0)", "short", (("min(modelready_redis_up)", "up"),)),
    Panel("Queue: not acknowledged, by consumer group", "short", (
        (_known("modelready_queue_depth", "group"), "{{group}}"),
        (_known("modelready_queue_pending", "group"), "{{group}}, delivered"),
    )),
    Panel("Queue: age of the oldest entry not acknowledged", "s", (
        (_known("modelready_queue_oldest_age_seconds", "group"), "{{group}}"),
    )),
    Panel("Dead letters", "short", (
        (_known("modelready_dead_letter_stream_length"), "in the stream"),
        (_known("modelready_dead_letter_stream_reasons", "reason"), "{{reason}}"),
        (_minutely("modelready_dead_letters_total", "reason"), "new a minute: {{reason}}"),
    ), 1),
    Panel("Spool: events on disk", "short", (("sum(modelready_spool_events)", "events"),)),
    Panel("Spool: age of the oldest event", "s", (("max(modelready_spool_oldest_age_seconds)", "age"),),
          "spool-growing"),
    Panel("Spool: how full", "percent", ((_USED, "used"),), "spool-filling"),
    Panel("Spool: free room of its disk", "bytes", (("min(modelready_spool_disk_free_bytes)", "free"),), "spool-disk"),
    Panel("Outbox: rows", "short", (
        ("max(modelready_outbox_rows)", "waiting"),
        ("max(modelready_outbox_refused_rows)", "refused"),
    ), colors=(("waiting", "green"), ("refused", "red"))),
    Panel("Outbox: age of the oldest row", "s", (("max(modelready_outbox_oldest_age_seconds)", "age"),),
          "outbox-not-draining"),
    Panel("Outbox: not being emptied (1)", "short", (("max(modelready_outbox_failing)", "failing"),), 1),
    Panel("Redis: failures a minute", "short", (
        (_minutely("modelready_redis_connection_failures_total"), "connections and commands"),
        (_minutely("modelready_redis_auth_failures_total"), "logins"),
    ), colors=(("connections and commands", "orange"), ("logins", "red"))),
    Panel("Redis: latency of appends", "s", _quantiles("modelready_redis_append_seconds")),
    Panel("Redis: retries a minute", "short", ((_minutely("modelready_retries_total", "by"), "by the {{by}}"),)),
    Panel("Redis: memory in use", "percent", (
        (f"100 * {_known('modelready_redis_used_memory_bytes')} / ({_known('modelready_redis_max_memory_bytes')} > 0)",
         "of maxmemory"),
    ), "redis-memory"),
    Panel("Redis: memory", "bytes", (
        (_known("modelready_redis_used_memory_bytes"), "used"),
        (f"{_known('modelready_redis_max_memory_bytes')} > 0", "maxmemory"),
    )),
    Panel("Redis: eviction policy", "short", (
        (_known("modelready_redis_eviction_policy", "policy"), "{{policy}}"),
    ), colors=(("noeviction", "green"), ("/^(allkeys|volatile)-/", "red"))),
    Panel("Inside: events waiting and committed together", "short", (
        ("sum(modelready_pending_events)", "waiting in memory"),
        (_MEAN_GROUP, "in a group, the mean"),
    )),
    Panel("Stream: entries", "short", ((_known("modelready_stream_length"), "entries"),)),
    Panel("Stream: age of what a group keeps past the retention", "s", (
        ("max by (group) (modelready_trim_held_back_seconds)", "{{group}}"),
    )),
    Panel("Mirror lists: messages that wait", "short", ((_known("modelready_list_depth", "list"), "{{list}}"),)),
    Panel("Mirror lists: messages in flight", "short", (
        (_known("modelready_list_processing", "key"), "{{key}}"),
    )),
    Panel("Mirror lists: messages given up", "short", (
        (_known("modelready_list_dead_letters", "key"), "{{key}}"),
    ), 1),
)  # fmt: skip


def dashboard(limit: Callable[[str], float]) -> str:
    """Return the dashboard as JSON. `limit` returns the threshold of an alarm, given its name."""
    return json.dumps(_dashboard(limit), indent=2) + "\n"


def _dashboard(limit: Callable[[str], float]) -> dict[str, Any]:
    """The dashboard has 24 columns, like CloudWatch's."""
    panels = []
    for number, panel in enumerate(STATS):
        made = _panel(panel, _threshold(panel, limit), "stat", {"x": number * 4, "y": 0, "w": 4, "h": 3})
        for target in made["targets"]:
            target["instant"] = True  # an unknown value shows as "No data", not as the last known one
        made["options"] = {"colorMode": "value", "graphMode": "none", "reduceOptions": {"calcs": ["lastNotNull"]}}
        panels.append(made)
    for number, panel in enumerate(PANELS):
        threshold = _threshold(panel, limit)
        place = {"x": number % 3 * 8, "y": 3 + number // 3 * 8, "w": 8, "h": 8}
        made = _panel(panel, threshold, "timeseries", place)
        custom: dict[str, Any] = {"thresholdsStyle": {"mode": "off"}}
        if threshold is not None:
            custom = {"thresholdsStyle": {"mode": "dashed"}, "axisSoftMax": threshold}  # always visible
        made["fieldConfig"]["defaults"]["custom"] = custom
        made["options"] = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
        panels.append(made)
    panels = [{"id": number, **panel} for number, panel in enumerate(panels, 1)]
    return {
        "uid": "model-ready",
        "title": "Model-ready sidecar",
        "tags": ["modelready"],
        "schemaVersion": 39,
        "editable": True,
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "1m",
        "templating": {
            "list": [{"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]
        },
        "panels": panels,
    }


def _threshold(panel: Panel, limit: Callable[[str], float]) -> float | None:
    return limit(panel.threshold) if isinstance(panel.threshold, str) else panel.threshold


def _panel(panel: Panel, threshold: float | None, kind: str, place: dict[str, int]) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.unit == "bool_yes_no":
        steps = [{"color": "red", "value": None}, {"color": "green", "value": 1}]
    if threshold is not None:
        steps.append({"color": "red", "value": threshold})
    defaults = {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}}
    return {
        "type": kind,
        "title": panel.title,
        "datasource": source,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": [_colored(*pair) for pair in panel.colors]},
        "targets": [
            {"refId": chr(65 + number), "datasource": source, "expr": query, "legendFormat": legend}
            for number, (query, legend) in enumerate(panel.queries)
        ],
    }


def _colored(legend: str, color: str) -> dict[str, Any]:
    matcher = {"id": "byRegexp" if legend.startswith("/") else "byName", "options": legend}
    return {"matcher": matcher, "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": color}}]}
