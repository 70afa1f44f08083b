"""The quick look lets nothing pass that protovalidate refuses."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from typing import Any, NamedTuple, cast

import protovalidate
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from modelready.v1.event_pb2 import ModelReadyToDeploy
from sidecar.publishing.plain import is_plain
from tests.integration.calls import model_event

VALIDATOR = protovalidate.Validator()
TEXTS: list[Any] = [
    "", "x", " ", "a b", "é", "\n", "\x00", "\x1f", "\x7f", "\x85", "sha256:" + "a" * 64, "sha256:" + "A" * 64, "00-zz",
    "https://user:pass@host/", "s3://b/k?X-Amz-Signature=1", "@", "?", f"00-{'a' * 32}-{'b' * 16}-01",
    *("x" * (most + more) for most in (64, 128, 256, 512, 1024, 2048, 4096, 32768) for more in (0, 1)),
]  # fmt: skip
NUMBERS: list[Any] = [0.0, -1.5, 1e308, math.inf, -math.inf, math.nan]


class Change(NamedTuple):
    """One field of one part of an event, and what is put there."""

    part: int
    name: str
    value: Any


def parts(event: ModelReadyToDeploy) -> tuple[Message, ...]:
    return (event, event.model, event.artifact, event.evaluation, event.promotion, event.runtime, event.provenance)


def values(field: FieldDescriptor) -> list[Any]:
    """Everything that the field might be."""
    if field.name == "metrics":
        many = [{str(number): 1.0 for number in range(count)} for count in (64, 65, 100, 101)]
        return [*({"a": 1.0, "b": value} for value in NUMBERS), *({text: 1.0} for text in TEXTS), *many]
    if field.name == "labels":
        many_labels = [{str(number): "x" for number in range(count)} for count in (64, 65)]
        return [*({"x": text} for text in TEXTS), *({text: "x"} for text in TEXTS), *many_labels]
    if field.name == "dataset_uris":
        return [*([text] for text in TEXTS), *(["s3://b/d", text] for text in TEXTS), ["s3://b/d"] * 32, ["d"] * 33]
    kinds: dict[int, list[Any]] = {FieldDescriptor.CPPTYPE_STRING: TEXTS, FieldDescriptor.CPPTYPE_DOUBLE: NUMBERS}
    return list(kinds.get(field.cpp_type, ()))


def put(event: ModelReadyToDeploy, change: Change) -> None:
    part = parts(event)[change.part]
    if isinstance(change.value, dict):
        getattr(part, change.name).update(change.value)
    elif isinstance(change.value, list):
        getattr(part, change.name).extend(change.value)
    else:
        setattr(part, change.name, change.value)


CHANGES = [
    Change(index, field.name, value)
    for index, part in enumerate(parts(ModelReadyToDeploy()))
    for field in cast("list[FieldDescriptor]", part.DESCRIPTOR.fields)
    for value in values(field)
]


def test_what_passes_breaks_no_rule() -> None:
    passed, refused = 0, 0
    for change in CHANGES:
        event = model_event(1)
        put(event, change)
        violations = VALIDATOR.collect_violations(event)
        if is_plain(event):
            assert not violations, change
            passed += 1
        refused += bool(violations)
    assert passed > 200
    assert refused > 150


def test_nor_do_several_changes_at_once() -> None:
    rng = random.Random(7)
    for _ in range(5000):
        event = model_event(1)
        changes = rng.choices(CHANGES, k=rng.choice((2, 2, 3, 5)))
        for change in changes:
            put(event, change)
        if is_plain(event):
            assert not VALIDATOR.collect_violations(event), changes


def test_a_process_without_free_descriptors_still_judges_what_is_unusual() -> None:
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


def test_an_event_as_registries_send_it_passes() -> None:
    event = model_event(1)
    event.provenance.run_id = "run-7"
    event.provenance.dataset_uris.extend(["s3://data/train/2026-11-01", "s3://data/holdout/2026-11-01"])
    assert is_plain(event)


@pytest.mark.parametrize("missing", ["model", "artifact"])
def test_what_is_required_must_be_there(missing: str) -> None:
    event = model_event(1)
    assert is_plain(event)
    event.ClearField(missing)
    assert not is_plain(event)
