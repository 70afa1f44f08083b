"""The README's examples run as they stand, but for the address."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from clients.python.tests.fake_sidecar import FakeSidecar
from modelready import model_ready
from modelready.entry import encode
from modelready.keys import Keys
from tests.harness.redis_server import RedisServer

README = Path(__file__).parent.parent / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
PUBLISHING = [example for example in EXAMPLES if "Publisher" in example]
CONSUMING = [example for example in EXAMPLES if "Publisher" not in example]


def start(example: str, environ: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-c", example],  # unbuffered: what it prints is awaited
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("example", PUBLISHING, ids=range(len(PUBLISHING)))
def test_publishing(example: str, sidecar: FakeSidecar) -> None:
    assert "127.0.0.1:50051" in example
    process = start(example.replace("127.0.0.1:50051", sidecar.address), {})
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert sidecar.entries


def test_consuming() -> None:
    assert len(CONSUMING) == 2
    with RedisServer() as server:
        with server.client() as client:
            client.xadd(Keys("model-ready").events, encode(model_ready(name="fraud", version="7", uri="s3://m/")))
        where = {"REDIS_HOST": server.host, "REDIS_PORT": f"{server.port}"}
        for example, said in zip(CONSUMING, ["deploying fraud 7 from s3://m/", "seen"], strict=True):
            process = start(example, where)
            giving_up = threading.Timer(20, process.kill)
            giving_up.start()
            assert process.stdout
            assert said in process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=20)
            giving_up.cancel()
            assert process.returncode in {0, -signal.SIGTERM}, errors
