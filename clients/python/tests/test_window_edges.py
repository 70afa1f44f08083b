"""The window of publish_many at its edges: how much is ahead, how long it waits, and what is raised in the end."""

from __future__ import annotations

import pytest

from clients.python.tests.test_window import AWAY, answer, event, fill, ids, window
from modelready import DeadlineExceeded, Durability, PublishError, Unavailable
from modelready._window import FULL_BYTES, MAX_FRAME, Frame, Window
from modelready.errors import ended


@pytest.mark.parametrize(
    ("frame", "in_flight", "valid"),
    [(1, 1, True), (MAX_FRAME, 1, True), (0, 1, False), (MAX_FRAME + 1, 1, False), (1, 0, False)],
)
def test_what_it_may_be(frame: int, in_flight: int, *, valid: bool) -> None:
    if valid:
        Window(frame=frame, in_flight=in_flight, durability=Durability.SPOOLED)
    else:
        with pytest.raises(ValueError, match="it may be 1"):
            Window(frame=frame, in_flight=in_flight, durability=Durability.SPOOLED)


def test_no_more_frames_are_ahead_than_may_be_in_flight() -> None:
    frames = window(in_flight=2)
    fill(frames, event("a", 1))
    assert frames.has_room
    fill(frames, event("b", 1))
    assert not frames.has_room
    (first, _) = frames.to_send(0)
    frames.answered(answer(first), 0)
    assert not frames.has_room  # until its results are taken
    assert len(list(frames.results())) == 1
    assert frames.has_room


def test_a_frame_is_full_at_its_size_and_at_a_mebibyte() -> None:
    small = Frame(2, "")
    assert (small.add(event("a", 1)), small.add(event("a", 2))) == (False, True)
    large = Frame(100, "")
    filling = event("a", 1, "x" * 300_000)
    added = [large.add(filling) for _ in range(4)]
    assert added == [False, False, False, True]
    assert 3 * filling.ByteSize() < FULL_BYTES <= 4 * filling.ByteSize()


def test_the_time_without_progress_begins_with_each_result() -> None:
    frames = window(timeout=10)
    fill(frames, event("a", 1))
    fill(frames, event("b", 1))
    first, second = frames.to_send(0)
    assert frames.patience(4) == 6
    frames.answered(answer(first), 4)
    assert frames.patience(4) == 10
    frames.answered(answer(second, AWAY), 5)  # no progress
    assert frames.patience(13.5) == 0.5
    with pytest.raises(Unavailable):
        frames.patience(14)


def test_after_a_failure_it_is_asked_again_when_the_delay_is_over() -> None:
    frames = window(timeout=10)
    fill(frames, event("a", 1))
    (first,) = frames.to_send(0)
    frames.answered(answer(first, AWAY), 1)
    assert frames.to_send(1.19) == []
    assert frames.patience(1) == pytest.approx(0.2)
    assert ids(frames.to_send(1.2)) == [["a-1"]]
    assert frames.patience(1.2) == pytest.approx(8.8)


@pytest.mark.parametrize("under_way", [True, False])
def test_what_is_raised_says_whether_the_last_attempt_has_no_answer(*, under_way: bool) -> None:
    frames = window(timeout=10)
    fill(frames, event("a", 1))
    (first,) = frames.to_send(0)
    frames.answered(answer(first, AWAY), 9.9)
    if under_way:
        frames.to_send(10.2)
    with pytest.raises(Unavailable) as late:
        frames.patience(10.3)
    (result,) = frames.abandon(late.value)
    for error in (late.value, result):
        assert isinstance(error, PublishError)
        assert error.reason == "REDIS_UNAVAILABLE"
        assert isinstance(error.__cause__, DeadlineExceeded) == under_way
    assert isinstance(result, PublishError)
    assert result.event_id == "a-1"


def test_each_failure_of_the_stream_makes_the_next_delay_longer_until_there_is_progress() -> None:
    frames = window(timeout=1000)
    fill(frames, event("a", 1), event("a", 2))
    now, delays = 0.0, []
    for _ in range(5):
        (request,) = frames.to_send(now)
        frames.interrupted(ended(), now)
        delays.append(frames.patience(now))
        now += delays[-1]
    assert delays[0] <= 0.1
    assert delays[-1] >= 0.5
    (request,) = frames.to_send(now)
    frames.answered(answer(request, None, AWAY), now)
    frames.to_send(now + 1)
    frames.interrupted(ended(), now + 1)
    assert frames.patience(now + 1) <= 0.2


def test_a_lost_stream_s_error_is_each_event_s_with_its_own_id() -> None:
    frames = window(timeout=10)
    fill(frames, event("a", 1), event("a", 2))
    frames.to_send(0)
    frames.interrupted(ended(), 0)
    assert frames.to_send(0) == []
    assert ids(frames.to_send(1.0)) == [["a-1", "a-2"]]
    with pytest.raises(Unavailable, match="ended the stream") as late:
        frames.patience(10)
    results = list(frames.abandon(late.value))
    assert [result.event_id for result in results] == ["a-1", "a-2"]
    assert all(isinstance(result, PublishError) and result.__cause__ is late.value.__cause__ for result in results)
    assert frames.is_empty
