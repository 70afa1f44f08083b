"""Operators who have grpcurl alone: it knows the contract from server reflection."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.toolchains import installed_by_go
from tests.integration.calls import queued, to_redis

SERVICE = "modelready.v1.PublisherService"


@pytest.fixture(scope="module")
def grpcurl() -> str:
    return str(installed_by_go("github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3"))


def test_it_describes_a_method_and_publishes(grpcurl: str, server: RedisServer) -> None:
    event = {"model": {"name": "fraud", "version": "7"}, "artifact": {"uri": "s3://models/fraud/7/"}}
    with SidecarProcess(to_redis(server, SIDECAR_API_TOKEN="s3cret")) as sidecar:

        def call(*arguments: str) -> str:
            data = ["-d", json.dumps({"event": event})] if SERVICE + "/Publish" in arguments else []
            command = [grpcurl, "-plaintext", "-H", "authorization: bearer s3cret", *data, sidecar.address, *arguments]
            return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout

        assert SERVICE in call("list").splitlines()
        assert f"{SERVICE}.Publish is a method" in call("describe", f"{SERVICE}.Publish")
        receipt = json.loads(call(f"{SERVICE}/Publish"))["receipt"]
    assert receipt["outcome"] == "OUTCOME_STORED"
    assert [event.event_id for event in queued(server)] == [receipt["eventId"]]
