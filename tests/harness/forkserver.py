"""Starts sidecars by a fork of a process that has imported their modules, at a seventh of the cost in CPU time.

What it starts is as `subprocess` starts it: a child of the process that asked, with an id, an environment, standard
streams, signals and an end of its own. As a program it serves the requests from the Unix socket that is its standard
input: each is a message of a Request as JSON, with the three standard streams of the new process.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO, cast

ROOT = Path(__file__).parents[2]
FORKED = ("sidecar", "tests.chaos.consumer_process")  # by `python -m`
_PRELOADED = ("uvloop", "protovalidate", "sidecar.app", "sidecar.cli.main", "sidecar.cli.doctor", "modelready.consumer")
# Read before the sidecar's first line, or by grpc's import: with others than the server's a command starts in full.
_READ_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "TZ", "GRPC_", "COVERAGE_", "COV_CORE_")
_INHERITED = ("PATH", "HOME", "PYTHONPATH")
_SET_CHILD_SUBREAPER = 36  # prctl(2)
_MAX_BYTES = 150_000  # of a message; the kernel takes 200 KB


class Request(NamedTuple):
    module: str
    arguments: list[str]
    env: dict[str, str]
    directory: str
    new_session: bool


class ForkServer:
    """A server for sidecars and one for all else, started with the first fork; they end with this process.

    A sidecar silences grpc's C core before it imports it, the others do not.
    """

    def __init__(self, own: Callable[[subprocess.Popen[bytes]], None]) -> None:
        """`own` gets the servers' processes: they outlive the tests that have them started."""
        self._own = own
        self._env = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        self._sockets: dict[bool, socket.socket] = {}
        self._lock = threading.Lock()

    def can(self, command: object, env: Mapping[str, str]) -> bool:
        """Whether it starts this command, and as well as `subprocess` would."""
        if not isinstance(command, list | tuple) or list(command[:2]) != [sys.executable, "-m"]:
            return False
        return command[2] in FORKED and _early(env) == _early(self._env)

    def fork(self, request: Request, streams: Sequence[int]) -> int:
        """The id of the new process, which is a child of this one."""
        prctl = ctypes.CDLL(None).prctl
        with self._lock:
            silent = request.arguments[:1] == ["serve"]
            server = self._sockets.get(silent) or self._start(silent)
            prctl(_SET_CHILD_SUBREAPER, 1)  # it is the server's grandchild, and ours when its parent has ended
            try:
                socket.send_fds(server, [json.dumps(request).encode()], streams)
                pid = int(server.recv(_MAX_BYTES))
                server.recv(_MAX_BYTES)
            finally:
                prctl(_SET_CHILD_SUBREAPER, 0)
        return pid

    def _start(self, silent: bool) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.harness.forkserver"]
            env = dict(self._env, **({"GRPC_VERBOSITY": "NONE"} if silent else {}))
            self._own(subprocess.Popen(command, cwd=ROOT, env=env, stdin=theirs.fileno()))
        self._sockets[silent] = ours
        return ours


def _early(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if value and name.startswith(_READ_AT_START)}


def _preload() -> None:
    sys.modules["opentelemetry"] = None  # type: ignore[assignment] # as `serve` does, for redis-py
    for name in _PRELOADED:
        importlib.import_module(name)
    del sys.modules["opentelemetry"]
    gc.collect()
    gc.freeze()  # else each fork's first collection copies their pages


def _serve(requests: socket.socket) -> Request:
    """Fork for each request, and return it in the new process. SystemExit in the server, when nobody can ask again."""
    while True:
        message, streams, _, _ = socket.recv_fds(requests, _MAX_BYTES, 3)
        if not message:
            raise SystemExit
        if parent := os.fork():
            os.waitpid(parent, 0)
            requests.send(b"its parent has ended")
            for stream in streams:
                os.close(stream)
        elif pid := os.fork():
            requests.send(str(pid).encode())
            os._exit(0)
        else:
            requests.close()
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
            return Request(*json.loads(message))


def _become(request: Request) -> None:
    """What the interpreter does between its start and the module's."""
    os.environ.clear()
    os.environ.update(request.env)
    os.chdir(request.directory)
    sys.path[0] = request.directory
    sys.argv[1:] = request.arguments
    sys.stdin = _opened(sys.stdin, 0, "r", -1)
    sys.stdout = _opened(sys.stdout, 1, "w", -1)
    sys.stderr = _opened(sys.stderr, 2, "w", 1)
    if request.new_session:
        os.setsid()


def _opened(like: TextIO, number: int, mode: str, buffering: int) -> TextIO:
    """`like` remembers whether it could seek and was a terminal."""
    return cast("TextIO", open(number, mode, buffering, encoding=like.encoding, errors=like.errors, closefd=False))


if __name__ == "__main__":
    _preload()
    request = _serve(socket.socket(fileno=os.dup(0)))
    _become(request)
    runpy.run_module(request.module, run_name="__main__", alter_sys=True)
