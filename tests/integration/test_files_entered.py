"""How many of our files a reader has to open to follow one event through the sidecar."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import grpc.aio

import modelready
import sidecar
from modelready.v1 import publisher_service_pb2 as pb
from sidecar.app import running
from sidecar.settings import Settings
from tests.harness.ports import LOOPBACK
from tests.harness.redis_server import RedisServer
from tests.integration.calls import model_event, to_redis

MAX_FILES = 12
METHOD = "/modelready.v1.PublisherService/Publish"
SIDECAR, CLIENT = (Path(package.__path__[0]) for package in (sidecar, modelready))


@contextmanager
def entered() -> Iterator[set[str]]:
    """The files of both distributions whose code is called meanwhile, but those that are generated."""
    files: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            files.add(frame.f_code.co_filename)

    found: set[str] = set()
    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(None)
        for path in map(Path, files):
            for root in (SIDECAR, CLIENT):
                if path.is_relative_to(root) and not path.stem.endswith(("_pb2", "_pb2_grpc")):
                    found.add(f"{root.name}/{path.relative_to(root)}")


async def test_a_stored_publish_enters_at_most_twelve_files(tmp_path: Path) -> None:
    with RedisServer() as server:
        listen = {"SIDECAR_LISTEN": f"{LOOPBACK}:0", "SIDECAR_HTTP_LISTEN": f"{LOOPBACK}:0"}
        settings = Settings.from_env(to_redis(server, SPOOL_DIR=str(tmp_path), **listen))
        async with running(settings) as serving, grpc.aio.insecure_channel(serving.addresses[0]) as channel:
            publish: grpc.aio.UnaryUnaryMultiCallable[bytes, pb.PublishResponse] = channel.unary_unary(
                METHOD, response_deserializer=pb.PublishResponse.FromString
            )
            calls: list[set[str]] = []
            for number in range(10):
                event = model_event(number, event_id=f"e-{number}", correlation_id="c")  # as every client sends it
                request = pb.PublishRequest(event=event).SerializeToString()
                with entered() as files:
                    response = await publish(request, timeout=10)
                assert response.receipt.outcome == pb.OUTCOME_STORED
                calls.append(files)
    # What runs in the background meanwhile is not in every call; what is loaded once is in the first alone.
    on_the_way = set.intersection(*calls)
    assert "sidecar/redisstream/queue.py" in on_the_way
    assert len(on_the_way) <= MAX_FILES, sorted(on_the_way)
