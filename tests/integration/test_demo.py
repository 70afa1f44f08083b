"""`make demo` tells the truth: passes where the promise is kept, fails where it is not, and leaves nothing behind."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar import embedded
from sidecar.cli.demo import play
from tests.harness.waiting import patience, until

COMMAND = [sys.executable, "-m", "sidecar", "demo"]
WITH_REGISTRY = [sys.executable, "-m", "scripts.demo", sys.executable]
ROOT = Path(__file__).parents[2]


def test_shows_each_event_once_and_in_order_through_kills_of_redis_and_a_registry(tmp_path: Path) -> None:
    done = subprocess.run(
        WITH_REGISTRY, capture_output=True, text=True, timeout=patience(60), cwd=ROOT, env=_environment(tmp_path),
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\033" not in done.stdout, "colour where nobody sees it"
    assert "As promised" in done.stdout.splitlines()[-1]
    published = re.findall(r"registry +(\S+/\d) +(STORED|SPOOLED)", done.stdout)
    assert [outcome for _, outcome in published] == ["STORED"] * 3 + ["SPOOLED"] * 3
    promoted = re.findall(r"registry +(\S+/\d) +promoted", done.stdout)
    assert promoted == ["pricing/1", "pricing/2"]
    assert re.findall(r"deployer +got (\S+/\d)", done.stdout) == [*(model for model, _ in published), *promoted]
    assert "pricing/3 is refused: auc of pricing 3 is 0.9, no better than 0.93 of version 2" in done.stdout
    assert done.stdout.count("DUPLICATE") == 6
    assert re.search(r"stream +8 entries\n", done.stdout)
    assert re.search(r"deployer +0 +0 +0 ", done.stdout)
    assert not _left(tmp_path)


@pytest.mark.parametrize(
    ("command", "scene", "number", "processes"),
    [(COMMAND, "3 ", signal.SIGINT, 2), (WITH_REGISTRY, "6 ", signal.SIGTERM, 3)],
    ids=["alone", "with the example registry"],
)
def test_ends_all_that_it_started_when_it_is_interrupted(
    tmp_path: Path, command: list[str], scene: str, number: int, processes: int
) -> None:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=_environment(tmp_path)) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if line.startswith(scene):  # Redis is being killed, one server is gone, another not yet there
                demo.send_signal(signal.SIGSTOP)  # or it might be done before we have looked
                break
        assert len(_processes(tmp_path)) >= processes, "the demo, its sidecar and the registry"
        demo.send_signal(number)
        demo.send_signal(signal.SIGCONT)
        demo.stdout.read()
        assert demo.wait(patience(30)) == 130
    until(lambda: not _left(tmp_path), 10, "nothing is left")


def test_fails_where_events_are_lost(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    start = embedded.start

    def forgetful(directory: Path) -> embedded.EmbeddedServer:
        shutil.rmtree(directory / "appendonlydir")
        return start(directory)

    monkeypatch.setattr(embedded, "start", forgetful)
    monkeypatch.setattr("sidecar.cli.demo.story._PATIENCE_SECONDS", 5.0)
    assert play(plain=True) == 1
    assert "NOT AS PROMISED" in capsys.readouterr().out


def _environment(place: Path) -> dict[str, str]:
    """The demo must not care for a set-up that is meant for another sidecar."""
    return {**os.environ, "TMPDIR": str(place), "REDIS_HOST": "elsewhere.invalid", "SIDECAR_LISTEN": "nonsense"}


def _left(place: Path) -> list[str]:
    """Files and processes that a demo left."""
    return [*map(str, place.iterdir()), *_processes(place)]


def _processes(place: Path) -> list[str]:
    """Known by their environment, which they inherited (Linux)."""
    mark = f"TMPDIR={place}".encode()
    return [path.parent.name for path in Path("/proc").glob("[0-9]*/environ") if _holds(path, mark)]


def _holds(environ: Path, mark: bytes) -> bool:
    try:
        return mark in environ.read_bytes()
    except OSError:
        return False
