"""Writers and relays as processes of their own, and what must have become of the writers' events."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

from modelready.entry import decode
from modelready.v1.event_pb2 import ModelReadyToDeploy
from tests.harness.child import Child
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess

ROOT = Path(__file__).parents[4]


class Programs:
    """On the outbox of one database; killed with `stack`."""

    def __init__(self, url: str, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._url = url
        self._logs: list[Path] = []

    def writers(self, count: int) -> list[Child]:
        """Start them."""
        self._logs = [self._directory / f"events-{number}" for number in range(count)]
        return [
            self._start("clients.python.tests.outbox.writer", self._url, f"m{number}", str(log), log=f"writer-{number}")
            for number, log in enumerate(self._logs)
        ]

    def relays(self, count: int, sidecar: SidecarProcess) -> list[Child]:
        """Start them."""
        return [
            self._start("modelready.outbox", "run", "--sidecar", sidecar.address, log=f"relay-{number}")
            for number in range(count)
        ]

    def check(self, events: list[ModelReadyToDeploy]) -> str:
        """Each committed event once, none that was rolled back, and each model's in the order of their commits."""
        said: dict[str, set[str]] = defaultdict(set)
        for log in self._logs:
            for line in log.read_text().splitlines():
                word, event_id = line.split()
                said[word].add(event_id)
        ids = [event.event_id for event in events]
        assert len(ids) == len(set(ids)), "an event is in the stream twice"
        assert len(said["committed"]) > 20
        assert said["committed"] - set(ids) == set(), "events are lost"
        assert said["rolled-back"] & set(ids) == set()
        assert set(ids) - said["begun"] == set()
        versions: dict[str, list[int]] = defaultdict(list)
        for event in events:
            versions[event.model.name].append(int(event.model.version))
        for found in versions.values():
            assert found == sorted(found)
        unknown = len(said["begun"]) - len(said["committed"]) - len(said["rolled-back"])
        return f"{len(said['committed'])} committed, {len(said['rolled-back'])} rolled back, {unknown} unknown: 0 lost"

    def _start(self, module: str, *arguments: str, log: str) -> Child:
        env = {**os.environ, "OUTBOX_URL": self._url, "PYTHONPATH": str(ROOT)}
        child = Child([sys.executable, "-m", module, *arguments], self._directory / log, env)
        self._stack.callback(child.kill)
        child.start()
        return child


def stream(server: RedisServer) -> list[ModelReadyToDeploy]:
    with server.client() as client:
        return [decode(fields) for _, fields in client.xrange("{model-ready}:events")]
