"""The codec at its edges: times, the list's figures, and what is absent."""

from __future__ import annotations

import json

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from modelready import ModelReadyToDeploy, model_ready
from modelready.entry import (
    CONTENT_TYPES,
    UndecodableEntry,
    decode,
    encode,
    encode_list_message,
    improvement,
    iso,
    list_payload,
)


def event(**fields: object) -> ModelReadyToDeploy:
    made = model_ready(name="fraud", version="7", uri="s3://m/", event_id="an-id", **fields)  # type: ignore[arg-type]
    made.occurred_at.CopyFrom(Timestamp(seconds=1_700_000_000, nanos=5_000))
    return made


@pytest.mark.parametrize(
    ("seconds", "nanos", "text"),
    [
        (0, 0, "1970-01-01T00:00:00.000000Z"),
        (0, 999, "1970-01-01T00:00:00.000000Z"),
        (0, 999_999_999, "1970-01-01T00:00:00.999999Z"),
        (1_700_000_000, 5_000, "2023-11-14T22:13:20.000005Z"),
        (253402300799, 999_999_999, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_times(seconds: int, nanos: int, text: str) -> None:
    assert iso(Timestamp(seconds=seconds, nanos=nanos)) == text


@pytest.mark.parametrize(
    ("baseline", "current", "per_cent"),
    [
        (0.5, 0.75, 50.0),
        (0.5, 0.25, -50.0),
        (0.0, 1.0, None),
        (-1.0, 1.0, None),
        (5e-324, 1e308, None),
        (1.0, 1.0, 0.0),
    ],
)
def test_the_improvement_is_in_per_cent_of_a_baseline_above_zero(
    baseline: float, current: float, per_cent: float | None
) -> None:
    assert improvement(event(baseline_value=baseline, current_value=current)) == per_cent


def test_without_one_of_the_two_there_is_no_improvement() -> None:
    assert improvement(event(baseline_value=1.0)) is None
    assert improvement(event(current_value=1.0)) is None


def test_a_value_of_zero_is_there_and_an_absent_one_is_not() -> None:
    payload = list_payload(event(metric_name="auc", baseline_value=0.0, current_value=0.0))
    assert (payload["baseline_value"], payload["current_value"]) == (0.0, 0.0)
    assert {"improvement_percentage", "mlflow_run_id"}.isdisjoint(payload)
    assert {"baseline_value", "current_value", "metric_name"}.isdisjoint(list_payload(event()))


def test_a_message_of_the_list_has_the_replaced_system_s_counters() -> None:
    message = json.loads(encode_list_message(event(), "envelope"))
    assert (message["retry_count"], message["max_retries"]) == (0, 3)
    assert message["payload"] == json.loads(encode_list_message(event(), "payload"))


def test_no_field_is_made_of_an_absent_trace() -> None:
    assert "traceparent" not in encode(event())
    assert encode(event(traceparent="00-1"))["traceparent"] == b"00-1"


@pytest.mark.parametrize("missing", ["model", "event_id"])
@pytest.mark.parametrize("encoding", ["protobuf", "json"])
def test_an_entry_without_a_model_or_an_id_is_none(encoding: str, missing: str) -> None:
    whole = event()
    whole.ClearField(missing)
    fields = {name.encode(): value for name, value in encode(whole, encoding).items()}  # type: ignore[arg-type]
    with pytest.raises(UndecodableEntry, match="no complete"):
        decode(fields)


def test_an_entry_s_content_type_is_that_of_its_data() -> None:
    for encoding, content_type in CONTENT_TYPES.items():
        fields = {name.encode(): value for name, value in encode(event(), encoding).items()}
        assert fields[b"content-type"] == content_type.encode()
        assert decode(fields) == event()
        with pytest.raises(UndecodableEntry):
            decode({**fields, b"content-type": b"text/plain"})
