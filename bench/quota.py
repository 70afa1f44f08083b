"""A share of one CPU, as a task on Fargate has it, by a control group of version 1 or 2. Needs root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_PERIOD_US = 100_000


def missing() -> str:
    """Why there is none; "" where there is."""
    try:
        with prefix(1.0):
            return ""
    except OSError as error:
        return f"no control group ({error.strerror})"


@contextmanager
def prefix(vcpus: float) -> Iterator[tuple[str, ...]]:
    """What a command begins with to run at `vcpus` of a CPU. It must have ended when the context ends."""
    is_v2 = (_ROOT / "cgroup.controllers").exists()
    group = (_ROOT if is_v2 else _ROOT / "cpu") / f"modelready-bench-{os.getpid()}"
    group.mkdir()
    try:
        quota = int(vcpus * _PERIOD_US)
        if is_v2:
            (group / "cpu.max").write_text(f"{quota} {_PERIOD_US}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        yield ("sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh")
    finally:
        group.rmdir()
