"""The form of log lines: JSON, or text for people; never more than a line each."""

import json
import logging
import os
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter

from sidecar import logs
from sidecar.settings import LogSettings

HOSTILE = "fraud\n2026 ERROR forged\x1b[2J\u2028\x00"


@pytest.fixture(autouse=True)
def _root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_json_is_one_object_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    logs.set_up(LogSettings())
    logging.getLogger("sidecar.events").warning("refused: %s", HOSTILE, extra={"model": HOSTILE, "milliseconds": 1.5})
    logging.getLogger().handlers[0].close()
    (line,) = capfd.readouterr().err.split("\n")[:-1]
    said = json.loads(line)
    assert (said["level"], said["logger"], said["model"]) == ("warning", "sidecar.events", HOSTILE)
    assert said["milliseconds"] == 1.5


def test_json_holds_nothing_that_a_terminal_obeys(capfd: pytest.CaptureFixture[str]) -> None:
    """C1 controls, too, and what cannot be encoded: as escapes, which a reader of JSON does not see."""
    hostile = f"{HOSTILE}\x85\x9b2J\x7f\u202e\U000e0001\ud800 é"
    logs.set_up(LogSettings(format="json"))
    logging.getLogger("sidecar.events").warning("refused: %s", hostile, extra={"model": hostile})
    logging.getLogger().handlers[0].close()
    said = capfd.readouterr().err.removesuffix("\n")
    assert said.isprintable()
    assert "é" in said
    assert json.loads(said)["model"] == hostile


def test_text_lets_nobody_forge_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    logs.set_up(LogSettings(format="text"))
    logging.getLogger("sidecar.events").warning("refused: %s", HOSTILE, extra={"model": HOSTILE})
    logging.getLogger().handlers[0].close()
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert said.removesuffix("\n").isprintable()
    assert r"fraud\n2026" in said


def test_a_terminal_gets_text() -> None:
    read, terminal = os.openpty()
    logs.set_up(LogSettings(), terminal)
    logging.getLogger("sidecar").warning("Redis is away", extra={"spooled": 3})
    line = os.read(read, 1000).decode()
    os.close(terminal)
    os.close(read)
    assert line.strip().endswith("WARNING Redis is away  spooled=3")


def test_a_line_that_would_be_left_out_need_not_be_made_and_is_counted(capfd: pytest.CaptureFixture[str]) -> None:
    """As many are written as if each record had been made, and the others are reported in the same line."""
    handler = logs.set_up(LogSettings(format="json"))
    counts = CollectorRegistry()
    logs.count_left_out(Counter("left_out", "Lines.", ["reason"], registry=counts))
    log = logging.getLogger("sidecar.events")
    for number in range(100):
        if not logs.leaves_out("sidecar.events", "spooled: %s"):
            log.info("spooled: %s", number)
        logs.leaves_out("sidecar.events", "another: %s")
    handler.close()
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    written = [line for line in lines if line["message"].startswith("spooled: ")]
    (rest,) = [line for line in lines if "left_out" in line]
    assert len(written) + rest["left_out"] == 100
    assert counts.get_sample_value("left_out_total", {"reason": "repeated"}) == rest["left_out"]
    assert 10 <= len(written) < 50
    assert "spooled: %s" in rest["message"]


def test_where_another_handler_listens_every_record_is_made() -> None:
    """It has no limit."""
    handler = logs.set_up(LogSettings())
    for _ in range(20):
        logging.getLogger("sidecar.events").info("spooled: %s", 1)
    assert logs.leaves_out("sidecar.events", "spooled: %s")
    logging.getLogger().addHandler(logging.NullHandler())
    assert not logs.leaves_out("sidecar.events", "spooled: %s")
    handler.close()


def test_at_debug_every_line_is_made(capfd: pytest.CaptureFixture[str]) -> None:
    handler = logs.set_up(LogSettings(level="debug"))
    for number in range(100):
        assert not logs.leaves_out("sidecar.events", "spooled: %s")
        logging.getLogger("sidecar.events").info("spooled: %s", number)
    handler.close()
    assert len(capfd.readouterr().err.splitlines()) == 100
