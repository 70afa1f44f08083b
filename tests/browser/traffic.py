"""A queue as one meets it: groups at different places, dead letters of several kinds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from modelready.entry import encode
from modelready.v1.event_pb2 import Evaluation, Promotion
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.integration.calls import KEYS, calling, model_event, to_redis

ADMIN_TOKEN = "an admin's token"
_GROUPS = {"deployer-eu": (60, 52), "deployer-us": (60, 60), "model-catalogue": (31, 22)}  # delivered, acknowledged
_DEAD = (  # the oldest first; the last: minutes since then
    ("support-tokenizer", "31", "TOO_OLD", "sidecar", "spooled for longer than SPOOL_MAX_AGE_SECONDS", 190),
    ("ranker", "2026-11-22", "UNDECODABLE", "group:model-catalogue", "the entry's data is no event", 84),
    ("churn-tree", "4", "HANDLER_FAILED", "group:deployer-us", "KeyError: 'token_symbol'", 37),
    (
        "fraud-scorecard",
        "12",
        "HANDLER_FAILED",
        "group:deployer-eu",
        "TimeoutError: no healthy instance after 300 s",
        21,
    ),
    ("fraud-scorecard", "13", "HANDLER_FAILED", "group:deployer-eu", "PermissionError: s3://models/fraud/13/", 4),
)


@contextmanager
def traffic(**env: str) -> Iterator[tuple[RedisServer, SidecarProcess]]:
    """A sidecar with an hour behind it, ADMIN_TOKEN, three groups and five dead letters, and its server."""
    command = (sys.executable, "-m", "tests.browser.traffic_sidecar")
    with RedisServer() as server:
        settings = to_redis(server, SIDECAR_ADMIN_TOKEN=ADMIN_TOKEN, **env)
        with SidecarProcess(settings, command=command) as sidecar, calling(sidecar) as caller:
            caller.batch([model_event(number) for number in range(64)])
            for name, progress in _GROUPS.items():
                _consume(server, name, *progress)
            for dead in _DEAD:
                give_up(server, dead)
            yield server, sidecar


def crowd(server: RedisServer) -> None:
    """Thirty more groups, nine in ten without a consumer, and 2,000 more dead letters, all with long names."""
    for number in range(30):
        name = f"deployment-orchestrator.{['eu', 'us', 'ap'][number % 3]}-west-{number}.fraud_and_credit_risk_models"
        if number % 10:
            with server.client() as client:
                client.xgroup_create(KEYS.events, name, id="0")
        else:
            _consume(server, name, number + 1, 1)
    detail = "ValueError: feature store returned 3 columns for customer_account_lifetime_value_v2, the model needs 17"
    for number in range(2000):
        name = f"customer_account_lifetime_value_{number % 7}-gradient-boosted-trees"
        origin = f"group:deployment-orchestrator.eu-west-{number % 30}.fraud_and_credit_risk_models"
        give_up(server, (name, str(number), "HANDLER_FAILED", origin, detail, 3 - number / 1000))


def _consume(server: RedisServer, group: str, delivered: int, acknowledged: int) -> None:
    with server.client() as client:
        client.xgroup_create(KEYS.events, group, id="0")
        reply: Any = client.xreadgroup(group, "one", {KEYS.events: ">"}, count=delivered)
        ids = [entry_id for entry_id, _ in next(iter(reply.values()))[0]]
        client.xack(KEYS.events, group, *ids[:acknowledged])


def give_up(server: RedisServer, dead: tuple[str, str, str, str, str, float]) -> None:
    name, version, reason, origin, detail, minutes = dead
    event = model_event(
        version,
        source="//registry.prod",
        correlation_id=f"promotion-{name}-{version}",
        evaluation=Evaluation(metric_name="auc", baseline_value=0.871, current_value=0.893),
        promotion=Promotion(environment="production", alias="champion", approved_by="r.meyer"),
        labels={"team": "risk"},
    )
    event.model.name = name
    event.artifact.uri = f"s3://models/{name}/{version}/"
    died_ms = time.time_ns() // 1_000_000 - int(minutes * 60_000)
    story = {
        "dl_reason": reason, "dl_detail": detail, "dl_attempts": "5", "dl_first_at": str(died_ms - 95_000),
        "dl_last_at": str(died_ms), "dl_origin": origin, "dl_entry_id": f"{died_ms - 96_000}-0",
    }  # fmt: skip
    damaged = {"data": b"\x0a\xff{"} if reason == "UNDECODABLE" else {}
    with server.client() as client:
        client.xadd(KEYS.dead_letters, {**encode(event), **damaged, **story}, id=f"{died_ms}-0")
