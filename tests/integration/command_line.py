"""The command line as people use it: processes with pipes, signals and terminals."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.harness.secrecy import shown
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until

PROGRAM = (sys.executable, "-m", "sidecar")


def environment(sidecar: SidecarProcess, **env: str) -> dict[str, str]:
    """That of a shell beside the sidecar."""
    return {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "", "SIDECAR_LISTEN": sidecar.address, **env}


def command(
    sidecar: SidecarProcess, *arguments: str, given: str | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run to its end; `given` is its standard input, which is no terminal."""
    stdin: dict[str, object] = {"stdin": subprocess.DEVNULL} if given is None else {"input": given}
    return seen(subprocess.run(  # type: ignore[call-overload]
        [*PROGRAM, *arguments], env=environment(sidecar, **env), capture_output=True, text=True, timeout=20,
        check=False, **stdin,
    ))  # fmt: skip


def shell(sidecar: SidecarProcess, line: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A line of bash, where `modelready-sidecar` is the program."""
    script = f'set -o pipefail; modelready-sidecar() {{ {sys.executable} -m sidecar "$@"; }}; {line}'
    return seen(subprocess.run(
        ["bash", "-c", script], env=environment(sidecar, **env), stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=20, check=False,
    ))  # fmt: skip


def seen(ended: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """What it printed holds no secret."""
    shown(ended.stdout + ended.stderr, f"what {ended.args} printed")
    return ended


def on_a_terminal(sidecar: SidecarProcess, answer: str, *arguments: str) -> tuple[int, str]:
    """Run where it asks, and answer."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*PROGRAM, *arguments], env=environment(sidecar), stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True,
    ) as process:  # fmt: skip
        seen = b""

        def asked() -> bool:
            nonlocal seen
            seen += os.read(ours, 4096)
            return b"[y/N] " in seen

        until(asked, 30, "it asks")
        os.write(ours, f"{answer}\n".encode())
        code = process.wait(30)
    os.close(theirs)
    os.close(ours)
    return code, seen.decode()


@contextmanager
def started(sidecar: SidecarProcess, *arguments: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """Begun, and killed at the end if it still runs."""
    process = subprocess.Popen(
        [*PROGRAM, *arguments], env=environment(sidecar, **env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def interrupt(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Ctrl-C: the exit code, and what it still wrote to standard output and error."""
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=10)
    return process.returncode, output, errors


def lines(process: subprocess.Popen[str], number: int) -> Sequence[str]:
    """The next lines of its standard output."""
    assert process.stdout is not None
    return [process.stdout.readline().rstrip("\n") for _ in range(number)]
