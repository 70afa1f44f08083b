"""However a test ends, no process that it started is left, and none that those started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.waiting import patience, until

ROOT = Path(__file__).parents[2]
# A process that has started another one in a session of its own, as a sidecar does its embedded server; and a server.
TEST = """
import os, signal, subprocess, sys
from pathlib import Path

from tests.harness.child import Child

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]
PARENT = f"import subprocess, time; p = subprocess.Popen({SLEEPER}, start_new_session=True); print(p.pid, flush=True)"

def test_it(tmp_path):
    server = Child(SLEEPER, tmp_path / "log")
    server.start()
    parent = subprocess.Popen([sys.executable, "-c", f"{PARENT}; time.sleep(600)"], stdout=subprocess.PIPE, text=True)
    pids = [server.pid, parent.pid, int(parent.stdout.readline())]
    Path("pids").write_text(" ".join(map(str, pids)))
    END
"""
ENDS = {
    "it fails": ("assert False", []),
    "it passes": ("pass", []),
    "Ctrl-C": ("os.kill(os.getpid(), signal.SIGINT)", []),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", []),
    "a worker gets SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", ["-p", "xdist", "-n1"]),
}


@pytest.mark.parametrize(("end", "options"), ENDS.values(), ids=ENDS)
def test_none_is_left(end: str, options: list[str], tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TEST.replace("END", end))
    command = [sys.executable, "-m", "pytest", "-p", "tests.harness.processes", f"--rootdir={tmp_path}", *options, "."]
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ended = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=patience(60), check=False
    )
    pids = list(map(int, (tmp_path / "pids").read_text().split()))
    until(lambda: not any(map(_runs, pids)), 10, f"all of {pids} have ended")
    assert ended.returncode, "a process that is left is a fault of the test"


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
