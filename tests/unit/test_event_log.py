"""What is logged and counted of an event, where a real sidecar seldom gets to."""

import logging
import time

import pytest

from modelready.v1 import publisher_service_pb2 as pb
from modelready.v1.event_pb2 import ModelReadyToDeploy, ModelVersion
from sidecar.errors import Refused
from sidecar.metrics import Metrics
from sidecar.publishing import event_log
from sidecar.publishing.event_log import EventObserver
from sidecar.publishing.interfaces import Appended, Attempts, DeadLetter, Spooled
from sidecar.publishing.submission import SPOOLED, Published
from tests.fakes.events import events

DATA = ModelReadyToDeploy(
    event_id="e", correlation_id="c", model=ModelVersion(name="fraud", version="7")
).SerializeToString()


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(vars(record)["outcome"], record.levelname) for record in caplog.records]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR])
def test_a_level_shows_what_is_not_below_it(level: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(level, "sidecar.events")
    stored, duplicate = Published(pb.OUTCOME_STORED, "1-0"), Published(pb.OUTCOME_DUPLICATE, "2-0")
    EventObserver(Metrics()).acknowledged(
        events(0, 4), [stored, duplicate, SPOOLED, Refused("too large")], time.monotonic()
    )
    everything = [("stored", "DEBUG"), ("duplicate", "DEBUG"), ("spooled", "INFO"), ("REDIS_REFUSED", "WARNING")]
    assert logged(caplog) == [line for line in everything if getattr(logging, line[1]) >= level]


def test_the_time_since_the_arrival_is_in_milliseconds_and_tenths(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[logging.LogRecord] = []
    monkeypatch.setattr(event_log.log, "handle", lines.append)
    monkeypatch.setattr(time, "monotonic", lambda: 101.23456)
    EventObserver(Metrics()).refused([ModelReadyToDeploy()], Refused("too large"), 100.0)
    assert vars(lines[0])["milliseconds"] == 1234.6


def test_what_leaves_the_spool_is_logged_with_its_place(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "sidecar.events")
    row = Spooled(1, "e", DATA, now_ms() - 5000, Attempts(), None)
    (event,) = events(0, 1)
    observer = EventObserver(Metrics())
    observer.forwarded([(row, event)], [Appended("9-0", duplicate=False)])
    observer.found([row], {"e": "8-0"})
    assert logged(caplog) == [("stored", "DEBUG"), ("duplicate", "DEBUG")]
    assert [vars(record)["entry_id"] for record in caplog.records] == ["9-0", "8-0"]
    assert 5000 <= vars(caplog.records[1])["milliseconds"] < 60_000


@pytest.mark.parametrize(("data", "model"), [(DATA, "fraud/7"), (b"\xff", "/")])
def test_a_dead_letter_is_logged_whether_or_not_it_is_legible(
    data: bytes, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    EventObserver(metrics).dead(DeadLetter("e", data, "TOO_OLD", "x" * 1000, 3, now_ms(), now_ms()))
    (record,) = caplog.records
    about = vars(record)
    assert (about["event_id"], about["model"], about["reason"]) == ("e", model, "TOO_OLD")
    assert len(about["detail"]) == 256
    assert record.levelname == "ERROR"
    assert 'modelready_dead_letters_total{reason="TOO_OLD"} 1.0' in metrics.render().decode()


def test_what_broke_the_rules_by_its_length_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    huge = "x" * 1_000_000
    message = ModelReadyToDeploy(event_id=huge, correlation_id=huge, model=ModelVersion(name=huge, version=huge))
    EventObserver(Metrics()).refused([message], Refused(huge), time.monotonic())
    assert len(str(vars(caplog.records[0]))) < 5000
