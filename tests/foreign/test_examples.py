"""The examples of the clients in other languages publish to a real sidecar."""

from __future__ import annotations

import os
import subprocess

from tests.foreign.clients import Client
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.integration.calls import entries, queued, to_redis


def test_the_example_publishes(client: Client, server: RedisServer) -> None:
    before = len(entries(server))
    env = {"PATH": os.environ["PATH"], "SIDECAR_API_TOKEN": "s3cret"}
    with SidecarProcess(to_redis(server, SIDECAR_API_TOKEN="s3cret")) as sidecar:
        command = [*client.example, sidecar.address, "fraud", "7", "s3://models/fraud/7/"]
        run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
        assert run.returncode == 0, run.stderr
        command[-1] = "s3://key:secret@models/fraud/7/"
        refused = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert refused.returncode == 1
    assert "refused: " in refused.stderr
    assert "event.artifact.uri: must carry neither" in refused.stderr
    (event,) = queued(server)[before:]
    assert (event.model.name, event.model.version, event.artifact.uri) == ("fraud", "7", "s3://models/fraud/7/")
    assert event.event_id in run.stdout
    assert event.source == "//registry.example"
