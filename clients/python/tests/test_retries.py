"""When an attempt is made again: the figures."""

from __future__ import annotations

import grpc
import pytest

from modelready import DeadlineExceeded, InvalidEvent, OutcomeUnknown, PublishError, ResourceExhausted, Unavailable
from modelready._retry import Attempts, backoff, delay_after, is_transient, out_of_time, remember

Code = grpc.StatusCode


def error(code: grpc.StatusCode, reason: str = "", retry_after: float | None = None) -> PublishError:
    return PublishError("said", code=code, reason=reason, retry_after=retry_after)


@pytest.mark.parametrize("code", list(Code))
def test_what_passes(code: grpc.StatusCode) -> None:
    always = code in (Code.UNAVAILABLE, Code.CANCELLED, Code.RESOURCE_EXHAUSTED)
    assert is_transient(error(code, "SAID")) == always
    assert is_transient(error(code)) == (always or code in (Code.INTERNAL, Code.UNKNOWN))


@pytest.mark.parametrize(("attempt", "longest"), [(0, 0.1), (1, 0.2), (2, 0.4), (3, 0.8), (4, 1.0), (5000, 1.0)])
def test_the_back_off_doubles_up_to_a_second_with_jitter(attempt: int, longest: float) -> None:
    drawn = [backoff(attempt) for _ in range(300)]
    assert longest * 0.5 <= min(drawn) < longest * 0.6
    assert longest * 0.9 < max(drawn) <= longest


def test_the_sidecar_s_delay_counts_before_the_back_off() -> None:
    assert delay_after(error(Code.UNAVAILABLE, retry_after=7.5), 0) == 7.5
    assert 0.4 <= delay_after(error(Code.UNAVAILABLE), 3) <= 0.8


def test_that_it_may_be_there_is_remembered_over_what_passes_alone() -> None:
    unknown = OutcomeUnknown("may be there", code=Code.UNAVAILABLE, reason="OUTCOME_UNKNOWN")
    away = Unavailable("away", code=Code.UNAVAILABLE)
    invalid = InvalidEvent("no uri", code=Code.INVALID_ARGUMENT)
    assert remember(unknown, away) is unknown
    assert remember(unknown, invalid) is invalid
    assert remember(away, unknown) is unknown
    assert remember(None, away) is away


def test_an_attempt_is_given_at_least_a_millisecond_and_at_most_what_is_left() -> None:
    assert Attempts(0).remaining() == 0.001
    assert 9 < Attempts(10).remaining() <= 10


def test_a_delay_that_ends_before_the_deadline_is_waited_for_and_no_longer_one() -> None:
    attempts = Attempts(10)
    assert attempts.delay_after(error(Code.UNAVAILABLE, retry_after=9)) == 9
    full = ResourceExhausted("full", code=Code.RESOURCE_EXHAUSTED, retry_after=10)
    with pytest.raises(ResourceExhausted) as raised:
        attempts.delay_after(full)
    assert raised.value is full
    assert isinstance(raised.value.__cause__, PublishError)


def test_each_failure_makes_the_next_delay_longer() -> None:
    attempts = Attempts(60)
    delays = [attempts.delay_after(error(Code.UNAVAILABLE)) for _ in range(6)]
    assert delays[0] <= 0.1
    assert delays[2] >= 0.2
    assert all(0.5 <= delay <= 1 for delay in delays[4:])


def test_a_deadline_after_an_answer_raises_that_answer() -> None:
    attempts = Attempts(10)
    late = DeadlineExceeded("late", code=Code.DEADLINE_EXCEEDED)
    with pytest.raises(DeadlineExceeded) as first:
        attempts.delay_after(late)
    assert first.value is late
    attempts.delay_after(error(Code.UNAVAILABLE, "REDIS_UNAVAILABLE"))
    with pytest.raises(PublishError, match="said") as second:
        attempts.delay_after(late)
    assert (second.value.reason, second.value.__cause__) == ("REDIS_UNAVAILABLE", late)


def test_out_of_time_says_what_was_said_before() -> None:
    late = DeadlineExceeded("late", code=Code.DEADLINE_EXCEEDED)
    assert out_of_time(None, late) is late
    before = Unavailable("Redis is away", code=Code.UNAVAILABLE, reason="REDIS_UNAVAILABLE", event_id="mine")
    raised = out_of_time(before, late)
    assert (type(raised), raised.code, raised.reason, raised.event_id) == (
        Unavailable, Code.UNAVAILABLE, "REDIS_UNAVAILABLE", "mine",
    )  # fmt: skip
    assert raised.__cause__ is late
    assert before.message == "Redis is away"
    assert raised.message == "Redis is away (and then no answer in time: it may be in the queue)"
