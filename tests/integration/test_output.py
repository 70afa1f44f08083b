"""What the sidecar writes: it never waits for a reader, and counts what it leaves out."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SERVING, SidecarProcess
from tests.harness.waiting import patience, until
from tests.integration.calls import STORED, Code, calling, model_event, to_redis

LEFT_OUT = "modelready_log_lines_left_out_total"


class Pipe:
    """A pipe of 4 KiB that is full, so that a write to it waits until somebody reads."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._end = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        fcntl.fcntl(self._end, fcntl.F_SETPIPE_SZ, 4096)
        os.write(self._end, b"\n" * 4096)

    def read(self) -> bytes:
        """What it holds now."""
        try:
            return os.read(self._end, 1 << 16)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        os.close(self._end)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    pipe = Pipe(tmp_path / "pipe")
    yield pipe
    pipe.close()


@contextmanager
def writing_to(path: Path, env: dict[str, str], *streams: int) -> Iterator[SidecarProcess]:
    """A sidecar with these of its standard streams there."""
    there = " ".join(f"{stream}>{path}" for stream in streams)
    command = ("sh", "-c", f'exec "$0" -m sidecar serve {there}', sys.executable)
    with SidecarProcess(env, command=command) as sidecar:
        yield sidecar


def publish(sidecar: SidecarProcess, count: int) -> None:
    with calling(sidecar) as caller:
        for _ in range(count // 500):
            results = caller.batch([model_event(number) for number in range(500)])
            assert {result.receipt.outcome for result in results} == {STORED}


@pytest.mark.parametrize("level", ["info", "debug"])
def test_a_standard_error_that_nobody_reads_stops_nothing(level: str, server: RedisServer, pipe: Pipe) -> None:
    """At debug with more lines than are kept for it."""
    with writing_to(pipe.path, to_redis(server, LOG_LEVEL=level), 2) as sidecar:
        publish(sidecar, 10_000)
        with calling(sidecar) as caller:
            for _ in range(300):
                assert caller.refused(model_event("")).code is Code.INVALID_ARGUMENT
        assert sidecar.health() == SERVING
        reason = "unread" if level == "debug" else "repeated"
        assert sidecar.metrics()[f'{LEFT_OUT}{{reason="{reason}"}}'] > 100
        began = time.monotonic()
        assert sidecar.terminate() == 0
        assert time.monotonic() - began < patience(5)


def test_whoever_reads_late_gets_whole_lines_in_order_and_the_number_that_is_missing(
    server: RedisServer, pipe: Pipe
) -> None:
    with writing_to(pipe.path, to_redis(server, LOG_LEVEL="debug"), 2) as sidecar:
        publish(sidecar, 10_000)
        lost = sidecar.metrics()[f'{LEFT_OUT}{{reason="unread"}}']
        with calling(sidecar) as caller:
            receipt = caller.publish()  # its line is left out, too, or comes behind the number
        read = bytearray()
        lines: list[dict[str, Any]] = []

        def has_the_number() -> bool:
            read.extend(pipe.read())
            whole, _, rest = read.rpartition(b"\n")
            lines.extend(json.loads(line) for line in whole.splitlines() if line)
            read[:] = rest
            return bool(sum(line.get("left_out", 0) for line in lines) >= lost)

        until(has_the_number, 30, "the number is there")
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    missing = sum(line.get("left_out", 0) for line in lines)
    assert lost <= missing <= lost + 5
    stored = sum(line.get("outcome") == "stored" for line in lines)
    assert stored + missing >= 10_000
    assert receipt.outcome == STORED


def test_of_one_kind_of_line_there_are_a_few_a_second_and_the_rest_is_counted(server: RedisServer) -> None:
    with SidecarProcess(to_redis(server, LOG_FORMAT="json")) as sidecar, calling(sidecar) as caller:
        began = time.monotonic()
        for _ in range(500):
            caller.refused(model_event(""))
        seconds = time.monotonic() - began
        until(lambda: sum(counts(sidecar)) == 500, 5, "each is in the log, or in its count")
        lines, missing = counts(sidecar)
        assert lines <= 10 + 5 * (seconds + 1)
        assert sidecar.metrics()[f'{LEFT_OUT}{{reason="repeated"}}'] == missing
        caller.refused(model_event(""))
        assert sidecar.terminate() == 0
        assert sum(counts(sidecar)) == 501  # nothing of it waits at the stop


def counts(sidecar: SidecarProcess) -> tuple[int, int]:
    """Lines of refused events, and how many more there were."""
    lines = [json.loads(line) for line in sidecar.logs().splitlines()]
    missing = sum(line["left_out"] for line in lines if "left_out" in line and "INVALID_EVENT" in line["message"])
    return sum(line.get("outcome") == "INVALID_EVENT" for line in lines), missing


@pytest.mark.parametrize("streams", [(1,), (2,), (1, 2)])
def test_a_reader_that_is_gone_is_no_reason_to_fail_at_the_stop(
    streams: tuple[int, ...], server: RedisServer, tmp_path: Path
) -> None:
    pipe = Pipe(tmp_path / "pipe")
    with writing_to(pipe.path, to_redis(server, METRICS_EMF="true"), *streams) as sidecar:
        pipe.close()
        publish(sidecar, 500)
        assert sidecar.terminate() == 0
