"""The examples of the clients in Go and TypeScript publish to a real sidecar."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.toolchains import ROOT, built_by_go
from tests.integration.calls import queued, to_redis


def go() -> list[str]:
    return [str(built_by_go(ROOT / "clients/go", "./example")), "-target"]


@pytest.mark.parametrize("example", [go])
def test_the_example_publishes(example: Callable[[], list[str]], server: RedisServer) -> None:
    with SidecarProcess(to_redis(server, SIDECAR_API_TOKEN="s3cret")) as sidecar:
        command = [*example(), sidecar.address, "fraud", "7", "s3://models/fraud/7/"]
        run = subprocess.run(
            command, env={"SIDECAR_API_TOKEN": "s3cret"}, capture_output=True, text=True, timeout=30, check=False
        )
    assert run.returncode == 0, run.stderr
    (event,) = queued(server)
    assert (event.model.name, event.model.version, event.artifact.uri) == ("fraud", "7", "s3://models/fraud/7/")
    assert event.event_id in run.stdout
    assert event.source == "//registry.example"
