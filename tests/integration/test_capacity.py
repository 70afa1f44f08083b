"""What an event takes in Redis and in the spool is what docs/operations.md counts with."""

import re
from pathlib import Path

import pytest

from modelready import Publisher, model_ready
from modelready.v1.event_pb2 import ModelReadyToDeploy
from tests.harness.redis_server import RedisServer, available_binaries
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until
from tests.integration.calls import KEYS, calling, to_redis

DOCUMENT = (Path(__file__).parents[2] / "docs/operations.md").read_text(encoding="utf-8")
EVENTS = 5000


def typical(number: int) -> ModelReadyToDeploy:
    """The larger of the two events that the document describes."""
    return model_ready(
        name=f"fraud-{number % 200}",
        version=number,
        uri=f"s3://models/fraud-{number % 200}/{number}/",
        source="//registry.prod",
        digest="sha256:" + "ab" * 32,
        run_id="0a1b2c3d4e5f60718293a4b5c6d7e8f9",
        environment="production",
        metrics={"auc": 0.91, "f1": 0.8, "loss": 0.23},
        labels={"team": "risk", "stage": "production", "cost_centre": "4711"},
    )


def documented(pattern: str) -> float:
    found = re.search(pattern, DOCUMENT)
    assert found, pattern
    return float(found[1])


@pytest.mark.parametrize("binary", [pytest.param(path, id=name) for name, path in available_binaries().items()])
def test_the_document_counts_with_what_an_event_takes(binary: str) -> None:
    size = len(typical(EVENTS).SerializeToString())
    assert size == pytest.approx(documented(r"(\d+) with a digest"), abs=10)
    with RedisServer(binary=binary, password="a-token") as server, SidecarProcess(to_redis(server)) as sidecar:
        with server.client() as client, Publisher(sidecar.address) as publisher:
            before = client.info("memory")["used_memory"]
            receipts = list(publisher.publish_many(typical(number) for number in range(EVENTS)))
            assert {str(receipt.outcome) for receipt in receipts} == {"stored"}  # type: ignore[union-attr]
            stream = client.memory_usage(KEYS.events, samples=0) / EVENTS
            entry, key = size + documented(r"retention . \(E \+ (\d+)\)"), documented(r"dedup . (\d+)\)")
            assert 0.75 * entry < stream < entry

            def keys_take() -> float:
                return float((client.info("memory")["used_memory"] - before) / EVENTS - stream)

            until(
                lambda: 0.75 * key < keys_take() < key, 5, "the rest is keys, once the buffers of connections are free"
            )
        server.stop()
        with Publisher(sidecar.address) as publisher, calling(sidecar) as caller:
            until(lambda: not caller.status().redis_up, 10, "it sees that Redis is away")
            receipts = list(publisher.publish_many(typical(number) for number in range(EVENTS, 2 * EVENTS)))
            assert {str(receipt.outcome) for receipt in receipts} == {"spooled"}  # type: ignore[union-attr]
            spooled = caller.status().spool.bytes / EVENTS
        row = size + documented(r"outage . \(E \+ (\d+)\)")
        assert 0.95 * row < spooled < row
