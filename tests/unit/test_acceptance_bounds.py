"""The bounds of what is accepted, each at both of its sides."""

from __future__ import annotations

import subprocess
import sys

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from modelready import ModelReadyToDeploy, model_ready
from modelready.v1.publisher_service_pb2 import PublishStreamRequest
from sidecar.errors import InvalidEvent
from sidecar.publishing.acceptance import Acceptance

FIRST_SECOND, LAST_SECOND = -62135596800, 253402300799  # years 1 to 9999


def accepted(message: ModelReadyToDeploy) -> bool:
    try:
        Acceptance("//registry").accept(message, dict, "event")
    except InvalidEvent:
        return False
    return True


def event(occurred_at: Timestamp) -> ModelReadyToDeploy:
    message = model_ready(name="fraud", version="7", uri="s3://m/", event_id="an-id", correlation_id="c")
    message.occurred_at.CopyFrom(occurred_at)
    return message


@pytest.mark.parametrize(
    ("seconds", "nanos", "valid"),
    [
        (0, 0, True),
        (1, 999_999_999, True),
        (1, 1_000_000_000, False),
        (1, -1, False),
        (FIRST_SECOND, 0, True),
        (FIRST_SECOND - 1, 0, False),
        (LAST_SECOND, 999_999_999, True),
        (LAST_SECOND + 1, 0, False),
    ],
)
def test_times(seconds: int, nanos: int, *, valid: bool) -> None:
    assert accepted(event(Timestamp(seconds=seconds, nanos=nanos))) is valid


@pytest.mark.parametrize("breaks_a_rule", [False, True])
def test_what_is_wrong_in_a_frame_is_refused_in_its_place_and_nothing_else(*, breaks_a_rule: bool) -> None:
    """Also where all the frame's events keep the rules of the .proto, and the time alone is wrong."""
    valid, wrong = event(Timestamp(seconds=1)), event(Timestamp(seconds=LAST_SECOND + 1))
    if breaks_a_rule:
        wrong.model.name = ""
    accepted = Acceptance("//registry").accept_all(PublishStreamRequest(events=[valid, wrong, valid]), dict)
    assert [isinstance(one, InvalidEvent) for one in accepted] == [False, True, False]
    refused = accepted[1]
    assert isinstance(refused, InvalidEvent)
    fields = ["events[1].model.name"] * breaks_a_rule + ["events[1].occurred_at"]
    assert [violation.field for violation in refused.violations] == fields


def test_a_process_without_free_descriptors_still_judges_events() -> None:
    code = """
import os, resource
from modelready.v1.event_pb2 import ModelReadyToDeploy
from sidecar.errors import InvalidEvent
from sidecar.publishing.acceptance import Acceptance
acceptance = Acceptance("registry")
lowest = os.dup(0)
os.close(lowest)
resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
try:
    acceptance.accept(ModelReadyToDeploy(), dict, "event")
except InvalidEvent as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert "event.model.name: is required" in done.stdout, done.stderr
