from __future__ import annotations

import inspect
import uuid
from datetime import datetime, timedelta, timezone

import pytest

from modelready import EventFields, InvalidEvent, ModelReadyToDeploy, model_ready
from modelready.event import MAX_EVENT_BYTES, complete

FRAUD = EventFields(name="fraud", version="7", uri="s3://models/fraud/7/")


def test_the_three_required_fields_make_an_event() -> None:
    event = model_ready(**FRAUD)

    assert (event.model.name, event.model.version, event.artifact.uri) == ("fraud", "7", "s3://models/fraud/7/")
    assert uuid.UUID(event.event_id).version == 7
    assert abs(event.occurred_at.ToDatetime(timezone.utc) - datetime.now(timezone.utc)) < timedelta(seconds=10)
    assert not any(event.HasField(part) for part in ("evaluation", "promotion", "runtime", "provenance"))


def test_every_keyword_has_its_field() -> None:
    given = EventFields(
        name="fraud",
        version="7",
        uri="s3://models/fraud/7/",
        event_id="an-id",
        correlation_id="a-correlation",
        source="//registry.test",
        occurred_at=datetime(2026, 1, 2, tzinfo=timezone.utc),
        model_uri="models:/fraud/7",
        digest="sha256:" + "0" * 64,
        media_type="application/vnd.mlflow.model",
        size_bytes=12,
        metric_name="auc",
        baseline_value=0.0,
        current_value=0.9,
        environment="production",
        alias="champion",
        previous_version=6,
        approved_by="someone",
        reason="better",
        framework="xgboost",
        framework_version="2.1.3",
        image="serve:1",
        signature="{}",
        run_id="a-run",
        code_uri="https://code.test/fraud",
        dataset_uris=["s3://data/1", "s3://data/2"],
        metrics={"f1": 0.5},
        labels={"team": "risk"},
        traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01",
    )
    event = model_ready(**given)

    assert {field.name for field, _ in event.ListFields()} == set(ModelReadyToDeploy.DESCRIPTOR.fields_by_name)
    for part in ("model", "artifact", "evaluation", "promotion", "runtime", "provenance"):
        message = getattr(event, part)
        assert {field.name for field, _ in message.ListFields()} == set(message.DESCRIPTOR.fields_by_name), part
    assert event.promotion.previous_version == "6"
    assert set(given) == set(EventFields.__annotations__) == set(inspect.signature(model_ready).parameters)


def test_a_version_may_be_a_number() -> None:
    assert model_ready(name="fraud", version=7, uri="s3://m/").model.version == "7"


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        model_ready(name="fraud", version="7", uri="s3://m/", occurred_at=datetime(2026, 1, 2))  # noqa: DTZ001


def test_a_misspelt_keyword_is_refused() -> None:
    with pytest.raises(TypeError, match="verison"):
        model_ready(name="fraud", verison="7", uri="s3://m/")  # type: ignore[call-arg]


def test_an_event_gets_what_it_lacks_and_the_caller_s_own_is_left_alone() -> None:
    mine = ModelReadyToDeploy()
    mine.model.name = "fraud"
    first, second = complete(mine, "//registry"), complete(mine, "//registry")

    assert first.event_id != second.event_id
    assert first.source == "//registry"
    assert first.HasField("occurred_at")
    assert mine == ModelReadyToDeploy(model=mine.model)


def test_what_an_event_has_is_kept() -> None:
    event = model_ready(name="fraud", version="7", uri="s3://m/", source="//mine")
    assert complete(event, "//registry") == event


def test_an_event_that_no_sidecar_could_take_is_refused_at_once() -> None:
    event = model_ready(name="fraud", version="7", uri="-", event_id="large", labels={"note": "x" * MAX_EVENT_BYTES})
    with pytest.raises(InvalidEvent, match=r"event: has \d+ bytes; the limit is 1048576") as refusal:
        complete(event, "")
    assert refusal.value.event_id == "large"
