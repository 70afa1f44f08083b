"""Kills what the process that started it leaves behind: `python -I -S keeper.py`, with a pipe as standard input.

Each line names a process by its id and its birth. When the pipe closes, in whatever way its writer ended, those of them
that still run are killed with all their descendants. Needs /proc.
"""

import os
import signal
import sys
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_PARENT, _BIRTH = 1, 19  # in /proc/PID/stat, counted from behind the command's name


def birth(pid: int) -> str:
    """When it began, as the kernel counts: with the id it names a process. Empty for one that is gone."""
    fields = _fields(pid)
    return fields[_BIRTH] if fields else ""


def kill_trees(pids: Iterable[int]) -> None:
    """SIGKILL to these and to all their descendants."""
    children = defaultdict(list)
    for directory in Path("/proc").glob("[0-9]*"):
        if fields := _fields(int(directory.name)):
            children[int(fields[_PARENT])].append(int(directory.name))
    doomed = list(pids)
    for pid in doomed:
        doomed += children[pid]  # grows while it is walked
    for pid in doomed:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _fields(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


if __name__ == "__main__":
    started = dict(line.split() for line in sys.stdin)
    kill_trees(int(pid) for pid, born in started.items() if birth(int(pid)) == born)
