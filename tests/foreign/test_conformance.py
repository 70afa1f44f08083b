"""The clients in other languages follow the same rules as Python's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from clients.python.tests.conformance import CASES, NAMES, ScriptedSidecar, check
from tests.foreign.clients import Driver


@pytest.fixture(scope="module")
def scripted() -> Iterator[ScriptedSidecar]:
    sidecar = ScriptedSidecar()
    sidecar.start()
    yield sidecar
    sidecar.stop()


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_the_case(case: Mapping[str, Any], scripted: ScriptedSidecar, driver: Driver) -> None:
    check(case, scripted, driver.publish)


@pytest.mark.parametrize("answer", ["silence", {"code": "UNAVAILABLE", "retry_after": 30}], ids=["a call", "a delay"])
def test_a_caller_may_give_up(answer: Any, scripted: ScriptedSidecar, driver: Driver) -> None:
    """During a call or the delay before the next: it ends at once, and there is no further attempt."""
    scripted.play([answer, answer])
    event = {"eventId": "mine", "model": {"name": "fraud", "version": "7"}, "artifact": {"uri": "s3://models/"}}
    asked = {"target": scripted.address, "event": event, "timeout": 600, "cancel_after": 0.5}
    error = driver.publish(asked)["error"]
    assert error["event_id"] == "mine"
    assert "CANCELLED" in (error["code"], error["cause"])
    assert len(scripted.attempts) == 1
