"""A real `mlflow server` of the tests' own, with the plug-in."""

from __future__ import annotations

import os
import signal
import sys
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mlflow import MlflowClient
from mlflow.version import VERSION

from tests.harness.child import Child, Started
from tests.harness.ports import LOOPBACK, PortLease
from tests.harness.waiting import until

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}

# On a busy machine a worker that does not answer for 5 seconds is killed, with the requests that it has.
PATIENT = (
    ("--gunicorn-opts", "--timeout 180")
    if VERSION.startswith("2.")
    else ("--uvicorn-opts", "--timeout-worker-healthcheck 180")
)
# Workers that are forked from one that has imported MLflow, which takes seconds of a core.
FORKED = ("--gunicorn-opts", "--timeout 180 --preload")


class MlflowServer(Started):
    """On a free loopback port, with its artifacts in `directory`; the registry and the runs are in `database_url`.

    A context manager: started in, killed with its workers after.
    """

    def __init__(self, database_url: str, directory: Path, *, workers: int, options: Sequence[str] = PATIENT) -> None:
        self._lease = PortLease()
        self.url = f"http://{LOOPBACK}:{self._lease.port}"
        self.artifacts = directory / "artifacts"
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(self._lease.port)),
            *("--workers", str(workers), "--artifacts-destination", str(self.artifacts), *options),
            *("--backend-store-uri", database_url, "--registry-store-uri", f"modelready+{database_url}"),
        ]
        self._child = Child(command, directory / "mlflow.log", {**os.environ, **QUIET})

    @property
    def running(self) -> bool:
        return self._child.running

    def start(self) -> None:
        self._child.start()
        until(self._healthy, 60, f"MLflow {VERSION} answers\n{self.tail()}")

    def kill(self) -> None:
        """SIGKILL, to the workers too."""
        with suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.kill()

    def close(self) -> None:
        self.kill()
        self._lease.release()

    def tail(self) -> str:
        """The end of what it wrote."""
        return self._child.tail(40)

    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.url, registry_uri=self.url)

    def _healthy(self) -> bool:
        with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
