"""The codec: what consumers read is exactly what the design says."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelready import entry
from modelready.v1.event_pb2 import Artifact, Evaluation, ModelReadyToDeploy, ModelVersion, Provenance


def ready(**fields: object) -> ModelReadyToDeploy:
    event = ModelReadyToDeploy(
        event_id="id-1",
        correlation_id="corr-1",
        source="//registry",
        model=ModelVersion(name="fraud", version="7"),
        artifact=Artifact(uri="s3://models/fraud/7/"),
        **fields,  # type: ignore[arg-type]
    )
    event.occurred_at.FromJsonString("2026-01-02T03:04:05.678901Z")
    return event


def test_an_entry_has_the_fields_of_the_design() -> None:
    fields = entry.encode(ready(traceparent="00-x"))
    assert {name: value for name, value in fields.items() if name != "data"} == {
        "ce_id": b"id-1",
        "ce_source": b"//registry",
        "ce_type": b"modelready.v1.ModelReadyToDeploy",
        "ce_specversion": b"1.0",
        "ce_time": b"2026-01-02T03:04:05.678901Z",
        "ce_subject": b"fraud/7",
        "correlationid": b"corr-1",
        "partitionkey": b"fraud",
        "content-type": b"application/protobuf",
        "traceparent": b"00-x",
    }
    assert "traceparent" not in entry.encode(ready())


@pytest.mark.parametrize("encoding", entry.ENCODINGS)
def test_what_is_encoded_is_decoded(encoding: entry.Encoding) -> None:
    event = ready(labels={"team": "ä"}, metrics={"auc": 0.5}, evaluation=Evaluation(baseline_value=0.0))
    fields = {name.encode(): value for name, value in entry.encode(event, encoding).items()}
    assert entry.decode(fields) == event


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {b"content-type": b"application/protobuf"},
        {b"content-type": b"application/protobuf", b"data": b"\xff"},
        {b"content-type": b"application/protobuf", b"data": b""},
        {b"content-type": b"application/json", b"data": b"{"},
        {b"content-type": b"application/json", b"data": b"\xff\xfe"},
        {b"content-type": b"text/plain", b"data": b"x"},
    ],
)
def test_what_is_no_event_raises_undecodable(fields: dict[bytes, bytes]) -> None:
    with pytest.raises(entry.UndecodableEntry):
        entry.decode(fields)


@given(st.binary(max_size=200), st.sampled_from([b"application/protobuf", b"application/json"]))
def test_random_data_is_an_event_or_raises_undecodable(data: bytes, content_type: bytes) -> None:
    with contextlib.suppress(entry.UndecodableEntry):
        entry.decode({b"content-type": content_type, b"data": data})


def test_the_payload_is_flat_and_leaves_out_what_is_absent() -> None:
    assert entry.list_payload(ready()) == {
        "model_id": "fraud/7",
        "model_name": "fraud",
        "model_version": "7",
        "timestamp": "2026-01-02T03:04:05.678901+00:00",
        "message_version": "1.0",
    }


def test_the_payload_has_all_that_is_there() -> None:
    event = ready(
        evaluation=Evaluation(metric_name="auc", baseline_value=0.8, current_value=0.9),
        provenance=Provenance(run_id="run-1"),
        labels={"model_id": "m-1", "token_symbol": "BTC", "model_name": "not this", "timestamp": "nor this"},
    )
    payload = entry.list_payload(event)
    assert payload.pop("improvement_percentage") == pytest.approx(12.5)
    assert payload == {
        "model_id": "m-1",
        "model_name": "fraud",
        "model_version": "7",
        "mlflow_run_id": "run-1",
        "metric_name": "auc",
        "baseline_value": 0.8,
        "current_value": 0.9,
        "timestamp": "2026-01-02T03:04:05.678901+00:00",
        "message_version": "1.0",
        "token_symbol": "BTC",
    }


@pytest.mark.parametrize("baseline", [0.0, -1.0, 5e-324])
def test_an_improvement_over_nothing_is_none(baseline: float) -> None:
    event = ready(evaluation=Evaluation(baseline_value=baseline, current_value=1e308))
    assert "improvement_percentage" not in entry.list_payload(event)


def test_the_envelope_wraps_the_payload() -> None:
    message = json.loads(entry.encode_list_message(ready()))
    assert message == {
        "message_id": "id-1",
        "message_type": "model_ready_to_deploy",
        "correlation_id": "corr-1",
        "timestamp": "2026-01-02T03:04:05.678901+00:00",
        "retry_count": 0,
        "max_retries": 3,
        "payload": entry.list_payload(ready()),
    }
    assert json.loads(entry.encode_list_message(ready(), "payload")) == entry.list_payload(ready())
