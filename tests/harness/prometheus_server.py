"""A real Prometheus of our own, on a free loopback port."""

import http.client
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from .child import Child, Started
from .ports import LOOPBACK, PortLease
from .waiting import until


def find_prometheus() -> str | None:
    """The server of this machine (Debian: apt-get install prometheus)."""
    return shutil.which("prometheus")


class PrometheusServer(Started):
    """Scrapes `targets`, each host:port, every `interval_seconds`. A context manager: started in, gone after.

    `data`: where the series stay, also after its end; by default they go with it.
    """

    def __init__(self, *targets: str, interval_seconds: int = 1, data: Path | None = None) -> None:
        binary = find_prometheus()
        assert binary, "there is no prometheus on PATH"
        self._lease = PortLease()
        self._directory = Path(tempfile.mkdtemp(prefix="prometheus-"))
        configuration = self._directory / "prometheus.yml"
        every = f"{interval_seconds}s"
        scrape = {"job_name": "modelready", "static_configs": [{"targets": list(targets)}]}
        timing = {"scrape_interval": every, "scrape_timeout": every}
        configuration.write_text(json.dumps({"global": timing, "scrape_configs": [scrape]}))  # JSON is YAML
        command = [binary, f"--config.file={configuration}", f"--web.listen-address={LOOPBACK}:{self._lease.port}"]
        command += [f"--storage.tsdb.path={data or self._directory / 'data'}", "--log.level=warn"]
        self._child = Child(command, self._directory / "log")

    def query(self, expression: str, **at: float) -> list[dict[str, Any]]:
        """The result of PromQL: now; at `time`; or as a matrix from `start` to `end` every `step` seconds.

        AssertionError with what Prometheus says of an expression that it does not take.
        """
        what = "query_range" if "step" in at else "query"
        answer = self._get(f"/api/v1/{what}?{urlencode({'query': expression, **at})}")
        assert answer["status"] == "success", f"{expression}: {answer['error']}"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    @property
    def running(self) -> bool:
        return self._child.running

    def start(self) -> None:
        self._child.start()
        until(lambda: not self.running or self._get("/api/v1/query?query=1"), 20, "Prometheus answers")
        assert self.running, f"Prometheus ended\n{self._child.tail()}"

    def close(self) -> None:
        """End it, so that what it has scraped is on disk."""
        if self._child.running:
            try:
                self._child.terminate(10)
            finally:
                self._child.kill()
        shutil.rmtree(self._directory, ignore_errors=True)
        self._lease.release()

    def _get(self, path: str) -> dict[str, Any]:
        connection = http.client.HTTPConnection(LOOPBACK, self._lease.port, timeout=10)
        try:
            connection.request("GET", path)
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer
        finally:
            connection.close()
