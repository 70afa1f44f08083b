"""The rules of publishing that the clients of all languages follow: clients/conformance.json, one case each."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict

from clients.python.tests.fake_sidecar import FakeSidecar, failure
from modelready.v1 import publisher_service_pb2 as pb

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parents[2] / "conformance.json").read_text())
NAMES = [case["name"] for case in CASES]
UUID7 = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"

Publish = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Publishes one event with a client.

It is given `target`, the `event` as the proto's JSON, and options: `timeout` (seconds), `token`, `source`,
`durability`, `ca_file`. It returns {"receipt": the proto's JSON}, or {"error": {...}} with `kind`, `code`, `reason`,
`message`, `retry_after` (seconds or null), `event_id`, `violations` and `cause` (the code of the error behind this
one, or null).
"""


class ScriptedSidecar(FakeSidecar):
    """It answers as a case says."""

    def play(self, answers: list[Any]) -> None:
        for kept in (self.attempts, self.entries, self.metadata, self.durabilities):
            kept.clear()
        self._seen.clear()
        self._answers = list(answers)
        self.times: list[float] = []

    def _fail(self, context: grpc.ServicerContext) -> None:
        self.times.append(time.monotonic())
        if not self._answers:
            return
        answer = self._answers[0]
        if answer == "silence":
            while context.is_active():
                time.sleep(0.01)
            return
        if not answer.get("repeated"):
            del self._answers[0]
        code = grpc.StatusCode[answer["code"]]
        if answer.get("garbage"):
            context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff\xff"),))
        elif answer.keys() - {"code"}:
            details = {name: answer[name] for name in ("reason", "retry_after", "violations") if name in answer}
            self.failures.append(failure(code, **details))
            super()._fail(context)
        context.abort(code, "scripted")


def check(case: Mapping[str, Any], sidecar: ScriptedSidecar, publish: Publish) -> None:
    """AssertionError where the client does not do what the case says."""
    sidecar.play(case.get("answers", []))
    event: dict[str, Any] = {"model": {"name": "fraud", "version": "7"}, "artifact": {"uri": "s3://models/fraud/7/"}}
    event |= case.get("event", {})
    if "padding" in case:
        event["labels"] = {"padding": "x" * case["padding"]}
    result = publish({"timeout": 10, **case.get("options", {}), "target": sidecar.address, "event": event})

    expected, sent = case["expect"], sidecar.attempts
    if "attempts" in expected:
        assert len(sent) == expected["attempts"]
    assert len(sent) >= expected.get("at_least", 0)
    assert all(attempt == sent[0] for attempt in sent), "the attempts differ"
    for attempt in sent[:1]:
        assert re.fullmatch(event.get("eventId") or UUID7, attempt.event_id)
        assert abs(attempt.occurred_at.seconds - time.time()) < 60 or "occurredAt" in event
        assert expected.get("sent", {}).items() <= MessageToDict(attempt).items()
        assert {values.get("authorization") for values in sidecar.metadata} == {expected.get("authorization")}
        assert set(sidecar.durabilities) == {pb.Durability.Value(expected.get("durability", "DURABILITY_UNSPECIFIED"))}
    gaps = [later - earlier for earlier, later in zip(sidecar.times, sidecar.times[1:], strict=False)]
    assert all(gap >= least for gap, least in zip(gaps, expected.get("gaps", []), strict=False)), gaps
    if "receipt" in expected:
        receipt = result["receipt"]
        assert (receipt["outcome"], receipt["eventId"]) == (expected["receipt"], sent[0].event_id)
    else:
        _check_error(result["error"], expected["error"], sent[0].event_id if sent else None)


def _check_error(error: Mapping[str, Any], expected: dict[str, Any], event_id: str | None) -> None:
    wanted = {"reason": "", **expected}
    violated = wanted.pop("violated", None)
    assert {name: error[name] for name in wanted} == wanted
    if violated is not None:
        assert [field for field, _ in error["violations"]] == violated
    assert re.fullmatch(event_id or UUID7, error["event_id"])
