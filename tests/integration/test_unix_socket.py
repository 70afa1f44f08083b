"""Who may call on a unix socket: its mode, from the first moment on. Real sockets, and real users where we are root."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from sidecar.errors import SettingsError
from sidecar.rpc.server import _bind_socket, _clear_socket
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SERVING, SidecarProcess
from tests.integration.calls import to_redis

OWNERS_GROUP, STRANGER = 10001, 10002
# As that user and group it asks for the sidecar's health; all imports are done before, as it may read no file of ours.
ASK = """
import os, sys, grpc, grpc._channel  # which grpc would import at the first call, as somebody who may not read it
from grpc_health.v1 import health_pb2, health_pb2_grpc
path, user, group = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.setgroups([]); os.setgid(group); os.setuid(user)
with grpc.insecure_channel(f"unix:{path}") as channel:
    try:
        print(health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10).status)
    except grpc.RpcError as error:
        print("refused" if "Permission denied" in error.details() else error)
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that everybody may enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def ask(path: Path, user: int, group: int) -> str:
    command = [sys.executable, "-c", ASK, str(path), str(user), str(group)]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize(("mode", "group_may", "others_may"), [("", True, False), ("0666", True, True)])
def test_the_mode_of_the_socket_says_who_may_call(
    mode: str, *, group_may: bool, others_may: bool, directory: Path
) -> None:
    """As two containers of a task that share a volume and run as different users."""
    path = directory / "sidecar.sock"
    directory.chmod(0o2755)  # what is made there belongs to the directory's group, as on a volume of Kubernetes
    os.chown(directory, 0, OWNERS_GROUP)
    with RedisServer() as server:
        env = to_redis(server, SIDECAR_LISTEN=f"unix:{path}", SIDECAR_SOCKET_MODE=mode)
        with SidecarProcess(env) as sidecar:
            assert sidecar.health() == SERVING
            assert stat.S_IMODE(path.stat().st_mode) == int(mode or "0660", 8)
            assert ask(path, STRANGER, OWNERS_GROUP) == (str(SERVING) if group_may else "refused")
            assert ask(path, STRANGER, STRANGER) == (str(SERVING) if others_may else "refused")


# As a user it tries to listen there, in a directory that is not its own; all imports are done before.
LISTEN = """
import os, sys
from pathlib import Path
from sidecar.rpc.server import _clear_socket
from sidecar.errors import SettingsError
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
try:
    _clear_socket(Path(sys.argv[1]))
except SettingsError as error:
    print(error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize(
    ("mode", "socket_mode", "why"),
    [
        (0o700, None, "Permission denied"),
        (0o755, None, "its directory cannot be written to"),
        (0o777, 0o600, "Permission denied"),
        (0o1777, 0o666, "Operation not permitted"),
    ],
)
def test_where_no_socket_may_be_made_it_is_said_why(
    mode: int, socket_mode: int | None, why: str, directory: Path
) -> None:
    path = directory / "sidecar.sock"
    if socket_mode is not None:
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        path.chmod(socket_mode)
    directory.chmod(mode)
    command = [sys.executable, "-c", LISTEN, str(path), str(STRANGER)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert said.stdout.strip() == f"SIDECAR_LISTEN has 'unix:{path}': {why}", said.stderr


def test_a_live_socket_that_takes_no_more_is_live(directory: Path) -> None:
    path = directory / "sidecar.sock"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        with pytest.raises(SettingsError, match="another process listens there"):
            _clear_socket(path)
        assert path.is_socket()


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
async def test_the_mode_is_there_before_anybody_can_connect(mode: int, directory: Path) -> None:
    path = directory / "sidecar.sock"
    server = grpc.aio.server()
    seen = []

    class Watched:
        def add_insecure_port(self, address: str) -> int:
            port = server.add_insecure_port(address)  # it listens now
            seen.append(stat.S_IMODE(path.stat().st_mode))
            return port

    before = os.umask(0)
    try:
        _bind_socket(cast("Any", Watched()), path, mode)
        assert os.umask(0) == 0, "the process's own mask is back"
    finally:
        os.umask(before)
        await server.stop(None)
    assert seen == [mode] == [stat.S_IMODE(path.stat().st_mode)]
