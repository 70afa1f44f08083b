"""The README's examples do what they say, word for word but for the address."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until

README = Path(__file__).parents[2] / "README.md"
TOKEN = "a-token"


def test_a_registry_publishes_and_a_deployer_receives(tmp_path: Path) -> None:
    publishing, consuming = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    said = tmp_path / "said"
    with RedisServer(password=TOKEN) as server:
        environ = {"REDIS_HOST": server.host, "REDIS_PORT": str(server.port), "REDIS_AUTH_TOKEN": TOKEN}
        with SidecarProcess(environ) as sidecar:
            published = _run(publishing.replace("127.0.0.1:50051", sidecar.address), {})
            assert re.fullmatch(r"stored \d+-\d+\n", published)
            with said.open("wb") as output, _start(consuming, environ, output.fileno()) as deployer:
                expected = "deploying fraud 7 from s3://models/fraud/7/\n"
                until(lambda: said.read_text() == expected, 10, "the deployer says what it deploys")
                deployer.terminate()
                assert deployer.wait(10) == 0
        with server.client() as client:
            assert client.xpending("{model-ready}:events", "deployer")["pending"] == 0


def _start(code: str, environ: dict[str, str], output: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-u", "-c", code], env={**os.environ, **environ}, stdout=output)


def _run(code: str, environ: dict[str, str]) -> str:
    environ = {**os.environ, **environ}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environ, check=True, capture_output=True, text=True, timeout=20).stdout
