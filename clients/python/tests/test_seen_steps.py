"""The guard's calls to Redis, one by one, against a client that answers what the test says."""

from __future__ import annotations

import logging
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from modelready import seen
from modelready.seen import WEEK, SeenGuard
from tests.harness.waiting import until

AWAY = redis.ConnectionError("away")


class Client:
    """It gives one answer after the other, and the last one again and again."""

    def __init__(self, *answers: int | Exception) -> None:
        self._answers = list(answers)
        self.calls: list[tuple[Any, ...]] = []
        self.marks: list[tuple[Any, ...]] = []

    def execute_command(self, *call: Any) -> int:
        if call[0] == "SET":
            self.marks.append(call[1:])
            return 1
        self.calls.append(call)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the guard would have slept, each time."""
    pauses: list[float] = []
    monkeypatch.setattr(seen, "time", SimpleNamespace(monotonic=time.monotonic, sleep=pauses.append))
    monkeypatch.setattr(seen, "backoff", float)
    return pauses


def guard(client: Any, **options: Any) -> SeenGuard:
    return SeenGuard(client, "deployer", **options)


def test_it_is_reserved_for_half_a_minute_and_known_for_four_weeks_by_default() -> None:
    client = Client(0)
    with guard(client).once("1") as first:
        assert first
    assert client.calls[0][-1] == 30_000
    assert client.marks == [("{model-ready}:done:deployer:1", "done", "PX", 4 * 7 * 86_400_000)]
    assert WEEK == 7 * 86_400


def test_while_another_has_it_it_is_asked_for_again_after_what_is_left_of_the_lease(slept: list[float]) -> None:
    with guard(Client(500, 30, 1, 0)).once("1") as first:
        assert first
    assert slept == [0.2, 0.03, 0.001]


def test_without_patience_another_is_not_waited_for(slept: list[float]) -> None:
    with (
        pytest.raises(TimeoutError, match="another has had event 1 for 0 s"),
        guard(Client(500), wait_seconds=0).once("1"),
    ):
        pytest.fail("another has it")
    assert slept == []


def test_attempts_are_made_after_growing_pauses_and_the_first_failure_is_logged(
    slept: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(AWAY, AWAY, AWAY, 0)
    with guard(client).once("1") as first:
        assert first
    assert slept == [0.0, 1.0, 2.0]
    assert caplog.messages == ["waiting for Redis: away"]


def test_an_attempt_that_would_come_too_late_is_not_made(slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "backoff", lambda _: 100.0)
    client = Client(AWAY)
    with pytest.raises(redis.ConnectionError, match="waited 60 s for Redis: away"):
        guard_that_had_an_answer(client).once("1").__enter__()
    assert (len(client.calls), slept) == (1, [])


def test_an_attempt_has_a_second_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    within = SeenGuard._within

    def noted(self: SeenGuard, seconds: float, command: Any) -> Any:
        asked.append(seconds)
        return within(self, seconds, command)

    monkeypatch.setattr(SeenGuard, "_within", noted)
    with guard(Client(0), wait_seconds=0).once("1"):
        pass
    assert asked == [1.0, 1.0]  # the reservation and the mark


def guard_that_had_an_answer(client: Any) -> SeenGuard:
    made = guard(client)
    made._answered = True
    return made


def test_one_that_never_had_an_answer_waits_for_ten_seconds(
    slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen, "backoff", lambda _: 100.0)
    with pytest.raises(redis.ConnectionError, match="waited 10 s for Redis: away"):
        guard(Client(AWAY)).once("1").__enter__()
    made = guard(Client(AWAY))
    assert made._patiently(lambda: 7) == 7
    with pytest.raises(redis.ConnectionError, match="waited 60 s for Redis: away"):
        made.once("1").__enter__()


def test_a_silent_redis_is_named_after_a_moment_and_may_answer_still(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(seen, "_QUIET_SECONDS", 0.05)
    answers = threading.Event()

    def silent() -> int:
        assert answers.wait(20)
        return 7

    made = guard(Client(0))
    threading.Timer(0.2, answers.set).start()
    assert made._within(20, silent) == 7
    assert caplog.messages == ["no answer yet from Redis"]
    answers.clear()
    began = time.monotonic()
    with pytest.raises(redis.ConnectionError, match="no answer"):
        made._within(0.05, silent)
    assert time.monotonic() - began < 10
    assert len(caplog.messages) == 1  # it is given no longer than that
    answers.set()
    until(lambda: not [t for t in threading.enumerate() if t.name == "modelready-guard"], 10, "its threads end")


def test_a_script_that_redis_does_not_have_is_sent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "modelready.seen")
    client = Client(redis.exceptions.NoScriptError("no script"), 0)
    with guard(client).once("1") as first:
        assert first
    assert [call[0] for call in client.calls[:2]] == ["EVALSHA", "EVAL"]
    assert caplog.messages == []


@pytest.mark.parametrize("group", ["deployer", "a:b"])
def test_a_block_that_raises_gives_its_own_key_back(group: str) -> None:
    client = Client(0, 1)
    with pytest.raises(LookupError), SeenGuard(client, group).once("1"):  # type: ignore[arg-type]
        raise LookupError
    reserve, release = client.calls
    assert release[2:] == (1, reserve[3], reserve[-2])
    assert release[1] != reserve[1]
    assert client.marks == []


@pytest.mark.parametrize(("left_ms", "is_held"), [(0, True), (1, False), (-1, False)])
def test_a_lease_is_extended_where_nobody_else_has_it(left_ms: int, is_held: bool) -> None:
    assert guard(Client(left_ms))._extended(["key"], "token") is is_held


def test_what_no_waiting_helps_against_is_raised_at_once(slept: list[float]) -> None:
    client = Client(redis.ResponseError("NOPERM no permission"))
    with pytest.raises(redis.ResponseError, match="NOPERM"), guard(client).once("1"):
        pytest.fail("nobody knows whether it is the first")
    assert (len(client.calls), slept) == (1, [])
