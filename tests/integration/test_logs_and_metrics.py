"""What a sidecar reports: metrics for CloudWatch, one log line for the outcome of each event, one for an outage."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from modelready.v1 import publisher_service_pb2 as pb
from modelready.v1.event_pb2 import Artifact
from sidecar import __version__
from tests.harness.embedded_metrics import embedded
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import NOT_SERVING, SERVING, SidecarProcess
from tests.harness.waiting import until
from tests.integration.calls import KEYS, SPOOLED, STORED, TO_DISK, calling, model_event, to_redis

TOKEN, PASSWORD = "a-token-that-nobody-may-see", "a-password-that-nobody-may-see"


def lines(sidecar: SidecarProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in sidecar.logs().splitlines()]


def by(logger: str, said: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in said if line.get("logger") == logger]


def test_embedded_metrics_are_what_was_published() -> None:
    with RedisServer(config={"maxmemory-policy": "allkeys-lru"}) as server:
        with server.client() as client:
            for _ in range(3):
                client.xadd(KEYS.events, {"data": b""})
            client.xgroup_create(KEYS.events, "deployer", id="0")
            client.xreadgroup("deployer", "c", {KEYS.events: ">"}, count=1)
            client.xadd(KEYS.dead_letters, {"dl_reason": "TOO_OLD"})
        env = to_redis(server, METRICS_EMF="true", SIDECAR_SOURCE="//registry.prod", QUEUE_RETENTION_SECONDS="0")
        with SidecarProcess(env) as sidecar:
            (start,) = until(lambda: embedded(sidecar.logs()), 5, "there is a first line")
            policy = 'modelready_redis_eviction_policy{policy="allkeys-lru"} 1.0'
            until(lambda: policy in sidecar.get("/metrics")[1], 20, "/metrics has it, too")
            exported = sidecar.get("/metrics")[1]
            with calling(sidecar) as caller:
                event = model_event()
                for one in (event, event, model_event(), model_event()):
                    caller.publish(one)
                caller.batch([model_event(), model_event(), model_event(artifact=Artifact())])
                assert caller.refused(model_event(artifact=Artifact())).reason == "INVALID_EVENT"
            assert sidecar.terminate() == 0
            _, end = embedded(sidecar.logs())
    assert f'modelready_build_info{{version="{__version__}"}} 1.0' in exported
    assert "modelready_redis_used_memory_bytes 0.0" not in exported
    assert "_created" not in exported
    assert (start["Service"], start["Queue"]) == ("//registry.prod", "model-ready")
    assert (start["QueueDepth"], start["QueuePending"], start["DeadLetters"]) == (3, 1, 1)
    assert 0 < start["OldestUnacknowledgedAge"] < 60
    assert (start["RedisUp"], start["EvictionPolicyWrong"], start["PublishesStored"]) == (1, 1, 0)
    outcomes = ("Stored", "Duplicate", "Spooled", "Refused")
    assert [end[f"Publishes{outcome}"] for outcome in outcomes] == [5, 1, 0, 2]
    assert sum(end["RpcLatency"]["Counts"]) == 5  # four events alone and a batch
    assert 1 <= sum(end["RedisLatency"]["Counts"]) <= 5
    assert (end["ConnectionFailures"], end["AuthFailures"], end["SpoolDepth"]) == (0, 0, 0)


class Story(NamedTuple):
    """The lines that a sidecar logged, and the receipts of what it was given."""

    said: list[dict[str, Any]]
    text: str
    receipts: dict[str, pb.Receipt]


def tell(level: str) -> Story:
    """Publish while Redis is there, freezes, is gone, and is there again."""
    receipts = {}
    with RedisServer(password=TOKEN, appendonly=True) as server:
        env = to_redis(server, LOG_LEVEL=level, REDIS_TIMEOUT_SECONDS="0.3")
        with SidecarProcess(env) as sidecar, calling(sidecar) as caller:
            stored = model_event(correlation_id="change-1")
            receipts["stored"] = caller.publish(stored)
            caller.publish(stored)
            leaky = Artifact(uri=f"https://user:{PASSWORD}@models/fraud/7")
            good, bad = caller.batch([model_event("batched"), model_event("bad", artifact=leaky)])
            assert (good.receipt.outcome, bad.error.code) == (STORED, 3)
            assert caller.refused(model_event("refused", artifact=leaky)).reason == "INVALID_EVENT"
            server.freeze()
            receipts["spooled"] = caller.publish(model_event("late"), SPOOLED)
            assert receipts["spooled"].outcome == TO_DISK
            until(lambda: "not answer in time" in sidecar.get("/readyz")[1], 5, "it is frozen")
            until(lambda: sidecar.health("redis") == NOT_SERVING, 5, "its health says so")
            server.kill()
            until(lambda: "no connection" in sidecar.get("/readyz")[1], 5, "it is gone")
            server.start()
            until(lambda: sidecar.health("redis") == SERVING, 5, "it is back")
            until(lambda: not sidecar.metrics()["modelready_spool_events"], 5, "the spool is empty")
            assert sidecar.terminate() == 0
            return Story(lines(sidecar), sidecar.logs(), receipts)


@pytest.fixture(scope="module")
def debug() -> Story:
    return tell("debug")


def test_each_event_s_fate_is_a_line(debug: Story) -> None:
    outcomes = by("sidecar.events", debug.said)
    model = [(line["model"], line["outcome"], line["level"]) for line in outcomes]
    assert model == [
        ("fraud/7", "stored", "debug"),
        ("fraud/7", "duplicate", "debug"),
        ("fraud/bad", "INVALID_EVENT", "warning"),
        ("fraud/batched", "stored", "debug"),
        ("fraud/refused", "INVALID_EVENT", "warning"),
        ("fraud/late", "spooled", "info"),
        ("fraud/late", model[-1][1], "debug"),
    ]
    assert model[-1][1] in ("stored", "duplicate")  # it froze with the append under way
    receipt = debug.receipts["stored"]
    about = {name: outcomes[0][name] for name in ("event_id", "correlation_id", "entry_id")}
    assert about == {"event_id": receipt.event_id, "correlation_id": "change-1", "entry_id": receipt.entry_id}
    assert outcomes[-1]["event_id"] == debug.receipts["spooled"].event_id
    assert outcomes[-1]["entry_id"]
    assert outcomes[-1]["milliseconds"] > outcomes[-2]["milliseconds"] > 0


def test_an_outage_is_logged_once_when_it_begins_and_once_when_it_ends(debug: Story) -> None:
    logged = [(line["level"], "seconds_away" in line) for line in by("sidecar.publishing.readiness", debug.said)]
    assert logged == [("info", False), ("warning", False), ("info", True)]
    emptying = [line["level"] for line in by("sidecar.publishing.forwarder", debug.said)]
    assert emptying == ["warning", "info"]


def test_no_secret_is_in_any_line(debug: Story) -> None:
    assert TOKEN not in debug.text
    assert PASSWORD not in debug.text


def test_by_default_what_went_well_costs_no_line() -> None:
    with RedisServer() as server, SidecarProcess(to_redis(server)) as sidecar, calling(sidecar) as caller:
        caller.publish(model_event("stored"))
        caller.batch([model_event("stored"), model_event("refused", artifact=Artifact())])
        server.kill()
        caller.publish(model_event("spooled"), SPOOLED)
        caller.refused(model_event("unknown"), pb.DURABILITY_PRIMARY, timeout=0.5)
        until(lambda: len(by("sidecar.events", lines(sidecar))) >= 3, 5, "they are logged")
        said = lines(sidecar)
        logged = [(line["model"], line["level"]) for line in by("sidecar.events", said)]
    assert logged == [("fraud/refused", "warning"), ("fraud/spooled", "info"), ("fraud/unknown", "warning")]
    assert "_aws" not in "".join(map(str, said))  # METRICS_EMF is not set
