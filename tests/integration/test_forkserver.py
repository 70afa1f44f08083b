"""A sidecar that is forked from a warm process is like one that is started in full."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.integration.calls import to_redis

SIDECAR = [sys.executable, "-m", "sidecar"]
ENV = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}


def run(*arguments: str, full: bool, given: str = "", **env: str) -> tuple[int, str, str]:
    """The exit code, and what it wrote to standard output and error."""
    executable = sys.executable if full else None  # that it is named keeps it from the fork server
    ended = subprocess.run(
        [*SIDECAR, *arguments], executable=executable, env=ENV | env, input=given, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    return ended.returncode, ended.stdout, ended.stderr


def is_fork(pid: int) -> bool:
    """Its command line is then the fork server's."""
    return b"tests.harness.forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["--help"], [], ["no-such-command"], ["serve"], ["publish", "-"], ["status"], ["doctor", "--json"]],
    ids=" ".join,
)
def test_it_ends_and_says_the_same(arguments: list[str]) -> None:
    there = {"SIDECAR_LISTEN": "127.0.0.1:1", "REDIS_PORT": "0"}
    assert run(*arguments, full=False, given="é\n{", **there) == run(*arguments, full=True, given="é\n{", **there)


def test_it_is_a_child_of_its_own_with_its_environment_and_streams(server: RedisServer, tmp_path: Path) -> None:
    env = ENV | to_redis(server, SIDECAR_LISTEN=f"unix:{tmp_path}/socket", SIDECAR_HTTP_LISTEN="127.0.0.1:0")
    with subprocess.Popen(
        [*SIDECAR, "serve"], env=env | {"SPOOL_DIR": "here"}, cwd=tmp_path, stderr=subprocess.PIPE,
        start_new_session=True, text=True,
    ) as process:  # fmt: skip
        assert process.stderr
        lines = iter(process.stderr.readline, "")
        assert any("serving" in line for line in lines)
        assert is_fork(process.pid)
        state, parent, _, session = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[:4]
        assert state != "Z"
        assert (int(parent), int(session)) == (os.getpid(), process.pid)
        assert Path(f"/proc/{process.pid}/cwd").readlink() == tmp_path
        assert (tmp_path / "here").is_dir()
        files = {path.readlink().name for path in Path(f"/proc/{process.pid}/fd").iterdir() if path.exists()}
        assert not any("pytest" in name for name in files)
        process.terminate()
        assert process.wait(30) == 0
        assert "stopped" in "".join(lines)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGKILL, -9)])
def test_signals_reach_it_alone(server: RedisServer, number: signal.Signals, code: int) -> None:
    with SidecarProcess(to_redis(server)) as first, SidecarProcess(to_redis(server)) as second:
        os.kill(first.pid, number)
        assert first.wait() == code
        assert second.health() == 1
        first.start()
        assert first.health() == 1


def test_what_the_interpreter_reads_at_its_start_is_heeded(server: RedisServer) -> None:
    for env, forked in ({}, True), ({"PYTHONOPTIMIZE": "1"}, False), ({"GRPC_VERBOSITY": "error"}, False):
        with SidecarProcess(to_redis(server, **env)) as sidecar:
            assert is_fork(sidecar.pid) == forked
