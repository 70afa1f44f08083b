"""Ten thousand events of anything: each is refused with what is wrong, or is in the stream exactly as it was sent."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import cast

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from modelready.entry import decode
from modelready.ids import uuid7
from modelready.v1.event_pb2 import ModelReadyToDeploy
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.integration.calls import DUPLICATE, KEYS, Code, calling, health, model_event, read_status, to_redis

EVENTS, EXAMPLES = 200, 50
USED: set[str] = set()  # event ids, over all examples


@pytest.fixture(scope="module")
def sidecar(server: RedisServer) -> Iterator[SidecarProcess]:
    with SidecarProcess(to_redis(server)) as sidecar:
        yield sidecar
        assert health(sidecar) == (True, True, True)
        assert "Traceback" not in sidecar.logs()
        assert sidecar.rss_bytes() < 400e6


TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), min_size=30, max_size=60)
NUMBERS = st.lists(st.floats(), min_size=10, max_size=20)


@settings(
    max_examples=EXAMPLES,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(texts=TEXTS, numbers=NUMBERS, seed=st.integers(0, 2**32))
def test_ten_thousand_random_events(
    texts: list[str], numbers: list[float], seed: int, sidecar: SidecarProcess, server: RedisServer
) -> None:
    """Each is refused with the fields that are wrong, or is in the stream exactly as it was sent."""
    rng = random.Random(seed)
    events = [random_event(rng, texts, numbers) for _ in range(EVENTS)]
    with calling(sidecar) as caller, server.client() as client:
        results = caller.batch(events, timeout=30)
        stored = {bytes(entry_id).decode(): decode(fields) for entry_id, fields in client.xrange(KEYS.events)}
        client.delete(KEYS.events)
    assert len(results) == len(events)
    for event, result in zip(events, results, strict=True):
        if result.HasField("error"):
            refusal = read_status(result.error)
            assert refusal.code is Code.INVALID_ARGUMENT
            assert refusal.fields
            continue
        if result.receipt.outcome == DUPLICATE:
            assert event.event_id in USED  # chosen by chance a second time
            continue
        USED.add(result.receipt.event_id)
        same_but_for_what_was_empty(event, stored[result.receipt.entry_id])


def random_event(rng: random.Random, texts: list[str], numbers: list[float]) -> ModelReadyToDeploy:
    """Mostly valid; any field may be anything."""
    event = model_event(rng.randint(0, 9))
    if rng.random() < 0.1:
        event.event_id = rng.choice(["", rng.choice(texts), "x" * 129, uuid7()])
    parts = (event, event.model, event.artifact, event.evaluation, event.promotion, event.runtime, event.provenance)
    for message in parts:
        for field in message.DESCRIPTOR.fields:
            if rng.random() < 0.15 and field.name not in {"event_id", "name", "version"}:
                put_anything(rng, message, cast("FieldDescriptor", field), texts, numbers)
    if rng.random() < 0.1:
        event.occurred_at.seconds = rng.choice(
            (0, -1, -62135596800, -62135596801, 253402300799, 253402300800, 2**63 - 1)
        )
        event.occurred_at.nanos = rng.choice((0, 999_999_999, 10**9, -1))
    return event


def put_anything(
    rng: random.Random, message: Message, field: FieldDescriptor, texts: list[str], numbers: list[float]
) -> None:
    name, kind = field.name, field.cpp_type
    if name == "metrics":
        getattr(message, name).update({rng.choice(texts): rng.choice(numbers) for _ in range(rng.choice((1, 3, 101)))})
    elif name == "labels":
        getattr(message, name).update({rng.choice(texts): rng.choice(texts) for _ in range(3)})
    elif name == "dataset_uris":
        getattr(message, name).extend(rng.choices(texts, k=rng.choice((1, 33))))
    elif kind == FieldDescriptor.CPPTYPE_STRING:
        setattr(message, name, rng.choice(texts) * rng.choice((1, 1, 1, 1, 60)))
    elif kind == FieldDescriptor.CPPTYPE_DOUBLE:
        setattr(message, name, rng.choice(numbers))
    elif kind == FieldDescriptor.CPPTYPE_UINT64:
        setattr(message, name, rng.choice((0, 2**64 - 1)))


def same_but_for_what_was_empty(sent: ModelReadyToDeploy, got: ModelReadyToDeploy) -> None:
    for name in ("event_id", "correlation_id", "source", "occurred_at", "traceparent"):
        if not getattr(sent, name) if name != "occurred_at" else not sent.HasField("occurred_at"):
            assert name == "traceparent" or getattr(got, name)
            got.ClearField(name)
    assert got.SerializeToString(deterministic=True) == sent.SerializeToString(deterministic=True)
