"""No process that a test starts outlives it: not where the test fails, not where a worker or pytest itself is killed.

A pytest plugin, loaded by the conftest.py of the repository, that sees every process started by `subprocess`:

- what a test's body starts and does not end is killed behind the test, which fails then (but see `owned`);
- what is left when this process ends, by SIGKILL too, is killed by a process that waits for that: `keeper`;
- a sidecar is started by a fork, where that is the same: `forkserver`.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pytest

from tests.harness import keeper
from tests.harness.forkserver import ForkServer, Request

_pipe: list[IO[bytes]] = []
_started: list[subprocess.Popen[Any]] = []
_EXECUTE = inspect.signature(subprocess.Popen._execute_child)  # type: ignore[attr-defined]
_LEFT = pytest.StashKey[list["subprocess.Popen[Any]"]]()


class _Popen(subprocess.Popen):  # type: ignore[type-arg] # it is one at run time, too
    """Popen that is known here and to the keeper."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        _started.append(self)
        with suppress(OSError):  # somebody has killed the keeper
            os.write(_pipe[0].fileno(), f"{self.pid} {keeper.birth(self.pid)}\n".encode())

    def _execute_child(self, *given: Any) -> None:
        """As CPython calls it once it has made the pipes: start the process, and close its ends of them."""
        options = _EXECUTE.bind(self, *given).arguments
        env = os.environ if options["env"] is None else options["env"]
        plain = not (options["shell"] or options["executable"] or options["preexec_fn"] or options["pass_fds"])
        if not (plain and _fork_server.can(options["args"], env)):
            super()._execute_child(*given)  # type: ignore[misc]
            return
        ends = [options[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")]
        streams = [end if end >= 0 else number for number, end in enumerate((ends[0], ends[3], ends[5]))]
        module, *arguments = map(os.fspath, options["args"][2:])
        directory = os.fspath(options["cwd"] or Path.cwd())
        request = Request(module, arguments, dict(env), directory, options["start_new_session"])
        self.pid = _fork_server.fork(request, streams)
        self._child_created = True
        self._close_pipe_fds(*ends)  # type: ignore[attr-defined]


def owned(process: subprocess.Popen[Any]) -> None:
    """It may outlive the test that started it: a fixture ends it."""
    with suppress(ValueError):
        _started.remove(process)


_fork_server = ForkServer(owned)


def pytest_configure() -> None:
    """Start the keeper, and see what is started from now on."""
    if _pipe or not Path("/proc/self/stat").exists():
        return
    command = [sys.executable, "-I", "-S", keeper.__file__]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    assert process.stdin
    _pipe.append(process.stdin)
    subprocess.Popen = _Popen  # type: ignore[misc]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    _started.clear()
    try:
        yield
    finally:
        item.stash[_LEFT] = list(_started)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    try:
        yield
    finally:
        left = [process for process in item.stash.get(_LEFT, []) if process.poll() is None]
        keeper.kill_trees(process.pid for process in left)
        for process in left:
            process.wait()
    assert not left, f"the test left running: {[process.args for process in left]}"
