"""The mirror list: what consumers of a list read, byte for byte, each event once and in order."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from modelready.entry import decode
from modelready.v1.event_pb2 import Artifact, Evaluation, ModelReadyToDeploy, ModelVersion, Provenance
from tests.harness.redis_server import RedisServer
from tests.harness.relay import Relay
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until
from tests.integration.calls import (
    DUPLICATE,
    KEYS,
    STORED,
    TO_DISK,
    Code,
    calling,
    entries,
    model_event,
    queued,
    queued_ids,
    to_redis,
)

LIST = "model_ready_queue"


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def full_event() -> ModelReadyToDeploy:
    event = ModelReadyToDeploy(
        event_id="0190-event",
        correlation_id="corr-1",
        source="//registry.test",
        model=ModelVersion(name="fraud", version="7"),
        artifact=Artifact(uri="s3://models/fraud/7/"),
        evaluation=Evaluation(metric_name="auc", baseline_value=0.8, current_value=0.9),
        provenance=Provenance(run_id="run-1"),
        labels={"token_symbol": "BTC", "team": 'é\u2028"', "model_name": "a label must not shadow", "model_id": "id-1"},
    )
    event.occurred_at.FromJsonString("2026-01-02T03:04:05.678901Z")
    return event


FULL_PAYLOAD = {
    "model_id": "id-1",
    "model_name": "fraud",
    "model_version": "7",
    "mlflow_run_id": "run-1",
    "metric_name": "auc",
    "baseline_value": 0.8,
    "current_value": 0.9,
    "improvement_percentage": pytest.approx(12.5),
    "timestamp": "2026-01-02T03:04:05.678901+00:00",
    "message_version": "1.0",
    "token_symbol": "BTC",
    "team": 'é\u2028"',
}


def messages(server: RedisServer) -> list[bytes]:
    """As a consumer takes them: BRPOPLPUSH to its own list, first in, first out."""
    taken = []
    with server.client() as client:
        while (message := client.execute_command("BRPOPLPUSH", LIST, f"{LIST}:processing", 1)) is not None:
            taken.append(message)
            client.lrem(f"{LIST}:processing", 1, message)
            if not client.llen(LIST):
                break
    return taken


def test_the_envelope(server: RedisServer) -> None:
    with SidecarProcess(to_redis(server, QUEUE_LIST=LIST)) as sidecar, calling(sidecar) as caller:
        assert caller.publish(full_event()).outcome == STORED
    (message,) = messages(server)
    assert json.loads(message) == {
        "message_id": "0190-event",
        "message_type": "model_ready_to_deploy",
        "correlation_id": "corr-1",
        "timestamp": "2026-01-02T03:04:05.678901+00:00",
        "retry_count": 0,
        "max_retries": 3,
        "payload": FULL_PAYLOAD,
    }
    assert queued_ids(server) == ["0190-event"]


def test_the_bare_payload(server: RedisServer) -> None:
    env = to_redis(server, QUEUE_LIST=LIST, QUEUE_LIST_FORMAT="payload")
    with SidecarProcess(env) as sidecar, calling(sidecar) as caller:
        caller.publish(full_event())
        small = model_event(3)
        small.evaluation.baseline_value = 0.0
        small.evaluation.current_value = 0.5
        caller.publish(small)
    first, second = (json.loads(message) for message in messages(server))
    assert first == FULL_PAYLOAD
    assert datetime.fromisoformat(second.pop("timestamp"))
    assert second == {  # what is absent is left out; there is no improvement on a baseline of 0
        "model_id": "fraud/3", "model_name": "fraud", "model_version": "3", "message_version": "1.0",
        "baseline_value": 0, "current_value": 0.5,
    }  # fmt: skip


def test_a_message_is_byte_for_byte_what_the_document_says(server: RedisServer) -> None:
    """What strict readers need: keys in one order, whole numbers without a point, an offset instead of Z."""
    event = full_event()
    event.evaluation.baseline_value, event.evaluation.current_value = 1, 1.5
    payload = (
        '{"model_id":"id-1","model_name":"fraud","model_version":"7","mlflow_run_id":"run-1","metric_name":"auc",'
        '"baseline_value":1,"current_value":1.5,"improvement_percentage":50,'
        '"timestamp":"2026-01-02T03:04:05.678901+00:00","message_version":"1.0",'
        '"team":"é\u2028\\"","token_symbol":"BTC"}'
    )
    envelope = (
        '{"message_id":"0190-event","message_type":"model_ready_to_deploy","correlation_id":"corr-1",'
        '"timestamp":"2026-01-02T03:04:05.678901+00:00","retry_count":0,"max_retries":3,"payload":' + payload + "}"
    )
    env = to_redis(server, QUEUE_LIST="a,b=payload")
    with SidecarProcess(env) as sidecar, calling(sidecar) as caller:
        caller.publish(event)
    assert server.execute("LRANGE", "a", 0, -1) == [envelope.encode()]
    assert server.execute("LRANGE", "b", 0, -1) == [payload.encode()]
    document = (Path(__file__).parents[2] / "docs/consuming.md").read_text()
    assert re.findall(r'"(\w+)":', re.findall(r"```json\n(.*?)```", document, re.DOTALL)[-1]) == list(
        json.loads(envelope)
    )
    rows = document.split("a flat object:")[1].split("What is absent")[0]
    assert re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", rows, re.MULTILINE))) == list(FULL_PAYLOAD)[:10]


Rule = Callable[[Any], bool]


def text(value: Any) -> bool:
    return type(value) is str and value != ""


def number(value: Any) -> bool:
    """A whole number without a point, so that JSON reads it as an integer."""
    return type(value) is int or (type(value) is float and not value.is_integer())


def moment(value: Any) -> bool:
    return text(value) and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", value) is not None


def is_exactly(wanted: Any, value: Any) -> bool:
    return type(value) is type(wanted) and value == wanted


PAYLOAD: dict[str, Rule] = {
    "model_id": text, "model_name": text, "model_version": text, "timestamp": moment,
    "message_version": partial(is_exactly, "1.0"),
}  # fmt: skip
OPTIONAL: dict[str, Rule] = {
    "mlflow_run_id": text, "metric_name": text, "baseline_value": number, "current_value": number,
    "improvement_percentage": number, "token_symbol": text,
}  # fmt: skip
ENVELOPE: dict[str, Rule] = {
    "message_id": text, "message_type": partial(is_exactly, "model_ready_to_deploy"), "correlation_id": text,
    "timestamp": moment, "retry_count": partial(is_exactly, 0), "max_retries": partial(is_exactly, 3),
    "payload": lambda value: type(value) is dict,
}  # fmt: skip


def strict(message: bytes) -> Any:
    """Its JSON, as the strictest of readers takes it: UTF-8, no key twice, no NaN, no null."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        assert len(names) == len(set(names)), names
        assert None not in dict(pairs).values(), pairs
        return dict(pairs)

    def refused(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(message.decode("utf-8"), object_pairs_hook=once, parse_constant=refused)


def check(found: dict[str, Any], required: dict[str, Rule], optional: dict[str, Rule] | None = None) -> None:
    """An unknown key is refused, as the strict consumer does."""
    rules = {**required, **(optional or {})}
    assert required.keys() <= found.keys() <= rules.keys(), found
    assert [name for name, value in found.items() if not rules[name](value)] == [], found


def varied_event(number: int) -> ModelReadyToDeploy:
    """With and without each of the optional parts, in all combinations."""
    event = model_event(number, correlation_id=f"corr-{number}")
    event.occurred_at.FromSeconds(1_750_000_000 + number)
    if number & 1:
        event.provenance.run_id = f"run-{number}"
    if number & 2:
        event.evaluation.metric_name = "auc"
    if number & 4:
        event.evaluation.baseline_value = number % 3  # 0, 1 and 2: as JSON without a point
    if number & 8:
        event.evaluation.current_value = 2
    if number & 16:
        event.labels.update(token_symbol="BTC", message_version="9", timestamp="never")
    if number & 32:
        event.labels["model_id"] = f"id-{number}"
    return event


def as_designed(number: int) -> dict[str, Any]:
    """What the design says of varied_event's payload, by hand, but for the time."""
    baseline = float(number % 3)
    return {
        "model_id": f"id-{number}" if number & 32 else f"fraud/{number}",
        "model_name": "fraud",
        "model_version": f"{number}",
        "message_version": "1.0",
        **({"mlflow_run_id": f"run-{number}"} if number & 1 else {}),
        **({"metric_name": "auc"} if number & 2 else {}),
        **({"baseline_value": baseline} if number & 4 else {}),
        **({"current_value": 2.0} if number & 8 else {}),
        **({"improvement_percentage": (2 - baseline) / baseline * 100} if number & 12 == 12 and baseline else {}),
        **({"token_symbol": "BTC"} if number & 16 else {}),
    }


class PlainClient(threading.Thread):
    """A consumer as there are already: BRPOPLPUSH, its work, LREM; until the list stays empty."""

    def __init__(self, server: RedisServer) -> None:
        super().__init__()
        self._server = server
        self.taken: list[bytes] = []

    def run(self) -> None:
        with self._server.client() as client:
            while (message := client.execute_command("BRPOPLPUSH", LIST, f"{LIST}:processing", 1)) is not None:
                self.taken.append(message)
                assert client.lrem(f"{LIST}:processing", 1, message) == 1


@pytest.mark.parametrize("list_format", ["envelope", "payload"])
def test_plain_clients_consume_it_and_the_payload_is_exactly_the_design_s(
    list_format: str, server: RedisServer
) -> None:
    clients = [PlainClient(server) for _ in range(3)]
    events = [varied_event(number) for number in range(64)]
    env = to_redis(server, QUEUE_LIST=LIST, QUEUE_LIST_FORMAT=list_format)
    with SidecarProcess(env) as sidecar, calling(sidecar) as caller:
        for client in clients:
            client.start()
        for event in events[:8]:
            caller.publish(event)
        caller.batch(events[8:])
        for client in clients:
            client.join()
        status = caller.status().list
        assert (status.depth, status.processing, status.dead_letters) == (0, 0, 0)

    found = {}
    for client in clients:
        versions = []
        for message in map(strict, client.taken):
            payload = message
            if list_format == "envelope":
                check(message, ENVELOPE)
                payload = message["payload"]
                event = events[int(payload["model_version"])]
                assert (message["message_id"], message["correlation_id"]) == (event.event_id, event.correlation_id)
                assert message["timestamp"] == payload["timestamp"]
            check(payload, PAYLOAD, OPTIONAL)
            versions.append(int(payload["model_version"]))
            assert datetime.fromisoformat(payload.pop("timestamp")).timestamp() == 1_750_000_000 + versions[-1]
            found[versions[-1]] = payload
        assert versions == sorted(versions), "first in, first out"
    assert sum(len(client.taken) for client in clients) == len(events), "each once"
    assert found == {number: as_designed(number) for number in range(64)}


def test_the_order_of_a_list_is_that_of_the_stream(server: RedisServer) -> None:
    with SidecarProcess(to_redis(server, QUEUE_LIST=LIST)) as sidecar, calling(sidecar) as caller:
        for first in range(0, 300, 50):
            caller.batch([model_event(number) for number in range(first, first + 50)])
        status = caller.status()
        assert (status.list.name, status.list.depth, status.list.processing) == (LIST, 300, 0)
    taken = [json.loads(message)["payload"]["model_version"] for message in messages(server)]
    assert taken == [str(number) for number in range(300)]
    assert [event.model.version for event in queued(server)] == taken


def test_retries_and_lost_replies_write_each_message_once(server: RedisServer) -> None:
    with Relay(server.port) as link:
        env = to_redis(server, REDIS_PORT=str(link.port), QUEUE_LIST=LIST, REDIS_TIMEOUT_SECONDS="0.3")
        with SidecarProcess(env) as sidecar, calling(sidecar) as caller:
            events = [model_event(number) for number in range(40)]
            assert caller.publish(events[0]).outcome == STORED
            link.swallow_replies()
            assert caller.publish(events[1]).outcome == TO_DISK  # Redis has it, but could not say so
            link.pass_replies()
            threads = [threading.Thread(target=caller.batch, args=(events,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            until(lambda: sidecar.metrics()["modelready_spool_events"] == 0, 10, "the spool is empty")
            assert caller.publish(events[5]).outcome == DUPLICATE
    wanted = {event.event_id for event in events}
    taken = [json.loads(message)["message_id"] for message in messages(server)]
    assert sorted(taken) == sorted(wanted)
    assert queued_ids(server) == taken


def test_a_list_that_refused_gets_its_message_when_it_can(server: RedisServer) -> None:
    """Stream and list are written by one script: where only the list fails, a retry completes it."""
    server.execute("ACL", "SETUSER", "default", "-lpush")
    with SidecarProcess(to_redis(server, QUEUE_LIST=LIST)) as sidecar, calling(sidecar) as caller:
        event = model_event()
        refusal = caller.refused(event)
        assert (refusal.code, refusal.reason) == (Code.UNAVAILABLE, "OUTCOME_UNKNOWN")  # the stream has it
        owed = KEYS.seen(event.event_id)
        assert server.execute("GET", owed).endswith(b"!")
        assert 0 < server.execute("PTTL", owed) <= 86_400_000  # it expires like any other
        server.execute("ACL", "SETUSER", "default", "+lpush")
        assert caller.publish(event).outcome in {STORED, DUPLICATE}
        assert caller.publish(event).outcome == DUPLICATE
    assert [json.loads(message)["message_id"] for message in messages(server)] == [event.event_id]
    assert queued_ids(server) == [event.event_id]


def test_entries_in_json(server: RedisServer) -> None:
    with (
        SidecarProcess(to_redis(server, QUEUE_ENCODING="json", QUEUE_LIST=LIST)) as sidecar,
        calling(sidecar) as caller,
    ):
        event = full_event()
        caller.publish(event)
    (fields,) = entries(server, KEYS.events)
    assert fields[b"content-type"] == b"application/json"
    assert json.loads(fields[b"data"])["model"] == {"name": "fraud", "version": "7"}
    assert decode(fields) == event
    assert len(messages(server)) == 1
