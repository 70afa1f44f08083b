"""The Python clients follow the rules that all languages share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from clients.python.tests.conformance import CASES, NAMES, ScriptedSidecar, check
from modelready import Durability, ModelReadyToDeploy, Publisher, PublishError


@pytest.fixture(scope="module")
def scripted() -> Iterator[ScriptedSidecar]:
    sidecar = ScriptedSidecar()
    sidecar.start()
    yield sidecar
    sidecar.stop()


def publish(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    durability = Durability(asked.get("durability", "DURABILITY_UNSPECIFIED").removeprefix("DURABILITY_").lower())
    options = {name: asked[name] for name in ("timeout", "token", "source") if name in asked}
    with Publisher(asked["target"], durability=durability, **options) as publisher:
        try:
            receipt = publisher.publish_event(ParseDict(asked["event"], ModelReadyToDeploy()))
        except PublishError as error:
            return {"error": as_json(error)}
    return {"receipt": {"eventId": receipt.event_id, "outcome": f"OUTCOME_{receipt.outcome.name}"}}


def as_json(error: PublishError) -> Mapping[str, Any]:
    return {
        "kind": type(error).__name__,
        "code": error.code.name,
        "reason": error.reason,
        "message": error.message,
        "retry_after": error.retry_after,
        "event_id": error.event_id,
        "violations": [list(violation) for violation in getattr(error, "violations", ())],
        "cause": error.__cause__.code.name if isinstance(error.__cause__, PublishError) else None,
    }


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_the_case(case: Mapping[str, Any], scripted: ScriptedSidecar) -> None:
    check(case, scripted, publish)
