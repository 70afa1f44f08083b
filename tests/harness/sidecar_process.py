"""The sidecar as a process of its own, as in a container: started, probed, killed, and started again."""

import http.client
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from .certificates import TLSFiles
from .child import Child, Started
from .ports import LOOPBACK, PortLease
from .secrecy import keep_those_of, shown
from .waiting import patience, until

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3  # grpc.health.v1.HealthCheckResponse.ServingStatus
INHERITED = ("PATH", "HOME", "PYTHONPATH")
INHERITED_PREFIXES = ("COVERAGE_", "COV_CORE_")


class SidecarProcess(Started):
    """`python -m sidecar serve` with a clean environment of PATH, HOME, PYTHONPATH, coverage's variables, and `env`.

    Unless `env` says otherwise, it listens on free loopback ports and spools into a temporary directory; ports and
    directory stay over restarts. `tls` is what a probe trusts and shows, when `env` makes the sidecar speak TLS.
    A context manager: started in, unless it was before; killed after. No secret of `env` may be in what it wrote
    or served by HTTP.
    """

    def __init__(
        self,
        env: Mapping[str, str] | None = None,
        *,
        command: Sequence[str] = (sys.executable, "-m", "sidecar", "serve"),
        tls: TLSFiles | None = None,
    ) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="sidecar-"))
        self._leases = [PortLease(), PortLease()]
        listen, web = (f"{LOOPBACK}:{lease.port}" for lease in self._leases)
        self.env = {name: value for name, value in os.environ.items() if _inherited(name)}
        self.env |= {"SIDECAR_LISTEN": listen, "SIDECAR_HTTP_LISTEN": web, "SPOOL_DIR": str(self._directory / "spool")}
        self.env |= env or {}
        keep_those_of(self.env)
        self._tls = tls
        self._child = Child(command, self._directory / "log", self.env)

    @property
    def address(self) -> str:
        """Where it answers gRPC: the first of SIDECAR_LISTEN."""
        return self.env["SIDECAR_LISTEN"].split(",")[0].strip()

    @property
    def http(self) -> str:
        """Where it answers HTTP, as host:port."""
        return self.env["SIDECAR_HTTP_LISTEN"]

    @property
    def spool_dir(self) -> Path:
        return Path(self.env["SPOOL_DIR"])

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child.running

    def start(self, wait_for: Literal["serving", "listening"] | None = "serving", seconds: float = 10) -> None:
        """Start it, and wait until its health is SERVING, or until it gives any; AssertionError with its log if not."""
        self._child.start()
        if wait_for is None:
            return
        wanted = {SERVING} if wait_for == "serving" else {0, SERVING, NOT_SERVING, SERVICE_UNKNOWN}
        try:
            until(
                lambda: not self.running or (listens(self.address) and listens(self.http) and self.health() in wanted),
                seconds,
                f"the sidecar is {wait_for}",
            )
            assert self.running, f"it ended with {self._child.process.returncode}"
        except AssertionError as error:
            self._child.kill()
            raise AssertionError(f"{error}\n{self._child.tail(50)}") from error

    def wait(self, seconds: float = 30) -> int:
        """Its exit code, when it ends by itself."""
        return self._child.process.wait(patience(seconds))

    def terminate(self, seconds: float = 30) -> int:
        """SIGTERM, and its exit code; AssertionError past the deadline."""
        return self._child.terminate(seconds)

    def kill(self) -> None:
        self._child.kill()

    def restart(self, wait_for: Literal["serving", "listening"] | None = "serving") -> int:
        """SIGTERM, unless it ended before, and start it again; the exit code of the one that went."""
        code = self._child.terminate(30)
        self.start(wait_for)
        return code

    def freeze(self) -> None:
        self._child.freeze()

    def thaw(self) -> None:
        self._child.thaw()

    def logs(self) -> str:
        """All that it ever wrote to standard output and error."""
        return self._child.output()

    def health(self, name: str = "", seconds: float = 2) -> int:
        """The ServingStatus of one name, SERVICE_UNKNOWN for one it does not know; grpc.RpcError if it does not answer.

        A connection of its own each time: grpc would wait for a second before it tries again on one that was refused.
        """
        with self.channel() as channel:
            request = health_pb2.HealthCheckRequest(service=name)
            try:
                return int(health_pb2_grpc.HealthStub(channel).Check(request, timeout=seconds).status)
            except grpc.RpcError as error:
                if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.NOT_FOUND:
                    return SERVICE_UNKNOWN
                raise

    def channel(self) -> grpc.Channel:
        """To `address`, sharing no connection with other channels."""
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        if self._tls is None:
            return grpc.insecure_channel(self.address, options)
        credentials = grpc.ssl_channel_credentials(
            self._tls.ca.read_bytes(), self._tls.key.read_bytes(), self._tls.cert.read_bytes()
        )
        return grpc.secure_channel(self.address, credentials, options)

    def get(self, path: str, seconds: float = 5) -> tuple[int, str]:
        """Status and body of an HTTP GET."""
        connection = http.client.HTTPConnection(self.http, timeout=seconds)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, shown(response.read().decode(), f"the answer to GET {path}")
        finally:
            connection.close()

    def metrics(self) -> dict[str, float]:
        """Every sample by its name with labels, as it stands in the text: `events_total{outcome="stored"}`."""
        status, text = self.get("/metrics")
        assert status == http.client.OK, f"/metrics: {status} {text}"
        samples = [line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, value in samples}

    def rss_bytes(self) -> int:
        """Resident memory (Linux)."""
        return int(self._proc("statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def cpu_seconds(self) -> float:
        """User and system time since its start (Linux)."""
        fields = self._proc("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """Kill it and remove what it wrote to its temporary directory."""
        self._child.kill()
        shutil.rmtree(self._directory, ignore_errors=True)
        for lease in self._leases:
            lease.release()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        written = self.logs()
        self.close()
        if error is None:
            shown(written, "what the sidecar wrote")

    def _proc(self, name: str) -> str:
        return Path(f"/proc/{self.pid}/{name}").read_text(encoding="utf-8")


def listens(address: str) -> bool:
    """Raises OSError if not. It costs next to nothing, where a look of grpc takes milliseconds of this process."""
    host, _, port = address.rpartition(":")
    if port.isdecimal() and port != "0":  # neither a Unix socket nor a port that is not known
        socket.create_connection((host.strip("[]"), int(port)), 1).close()
    return True


def _inherited(name: str) -> bool:
    return name in INHERITED or name.startswith(INHERITED_PREFIXES)
