"""The sidecar in a container, as it is meant to be run: read-only, without capabilities, the spool on a volume."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.harness.ports import LOOPBACK, PortLease
from tests.harness.secrecy import keep_those_of, shown
from tests.harness.waiting import until

HOST = "host.docker.internal"  # what the container calls the machine that it runs on
FILES = "/files"
SERVING = 1
SPOOL = "/var/lib/modelready-sidecar"


class SidecarContainer:
    """A container of `image` that serves on a loopback port; the port and the volume stay over `replace`.

    `files` is mounted at FILES. A context manager: served in, container and volume removed after.
    """

    def __init__(self, engine: Any, image: str, env: Mapping[str, str], *, files: Path | None = None) -> None:
        self._engine = engine
        self._image = image
        self._lease = PortLease()
        self._env = {"SIDECAR_LISTEN": "0.0.0.0:50051", **env}
        keep_those_of(env)
        self._mounts = {str(files): {"bind": FILES, "mode": "ro"}} if files else {}
        self._volume = engine.volumes.create(f"modelready-test-{uuid4()}")
        self._container: Any = None
        self.address = f"{LOOPBACK}:{self._lease.port}"

    def start(self) -> None:
        """A new container on the volume, until it serves. AssertionError with its log if it does not."""
        self._container = self._engine.containers.run(
            self._image,
            detach=True,
            environment=self._env,
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            extra_hosts={HOST: "host-gateway"},
            ports={"50051/tcp": (LOOPBACK, self._lease.port)},
            volumes={self._volume.name: {"bind": SPOOL, "mode": "rw"}} | self._mounts,
            healthcheck={"interval": 1_000_000_000},  # nanoseconds; the rest is the image's
        )
        try:
            until(self._serves, 20, "the sidecar in the container serves")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from error

    def replace(self) -> None:
        """SIGKILL to the container, its removal, and a new one on the same volume."""
        self._container.remove(force=True)
        self.start()

    def stop(self, seconds: int) -> int:
        """SIGTERM to its process 1, SIGKILL after that many seconds; the exit code."""
        self._container.stop(timeout=seconds)
        return int(self._container.wait(timeout=seconds)["StatusCode"])

    def run(self, *command: str) -> tuple[int, str]:
        """Exit code and output of a command in the container."""
        code, output = self._container.exec_run(list(command))
        return code, shown(output.decode(), f"what {command} prints")

    def logs(self) -> str:
        """All that it ever wrote to standard output and error; no secret of its environment is in it."""
        return shown(str(self._container.logs().decode()), "the container's log")

    def _serves(self) -> bool:
        with self.channel() as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            status: int = check(health_pb2.HealthCheckRequest(), timeout=1).status
        return status == SERVING

    def channel(self) -> grpc.Channel:
        """To `address`, sharing no connection with other channels."""
        return grpc.insecure_channel(self.address, [("grpc.use_local_subchannel_pool", 1)])

    def inspect(self) -> dict[str, Any]:
        """What `docker inspect` shows."""
        self._container.reload()
        return dict(self._container.attrs)

    @property
    def state(self) -> dict[str, Any]:
        return dict(self.inspect()["State"])

    @property
    def started_at(self) -> float:
        """When its process was started, in seconds since the epoch."""
        return datetime.fromisoformat(self.state["StartedAt"]).timestamp()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._container is not None:
            self._container.remove(force=True)
        self._volume.remove(force=True)
        self._lease.release()
