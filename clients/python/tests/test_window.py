"""The order and completeness of publish_many, against a simulated sidecar that fails at random. No I/O."""

from __future__ import annotations

import random
from collections import defaultdict
from itertools import islice

import grpc
import pytest

from clients.python.tests.fake_sidecar import failure
from modelready import DeadlineExceeded, Durability, ModelReadyToDeploy, PublishError, Receipt, Unavailable, model_ready
from modelready._window import Window
from modelready.errors import ended
from modelready.event import MAX_EVENT_BYTES
from modelready.v1 import publisher_service_pb2 as pb

AWAY = failure(grpc.StatusCode.UNAVAILABLE, reason="REDIS_UNAVAILABLE", retry_after=0.2)
INVALID = failure(grpc.StatusCode.INVALID_ARGUMENT)


def event(model: str, version: int, signature: str = "") -> ModelReadyToDeploy:
    return model_ready(name=model, version=version, uri="s3://m/", event_id=f"{model}-{version}", signature=signature)


def window(*, frame: int = 3, in_flight: int = 4, timeout: float = 30.0) -> Window:
    made = Window(frame=frame, in_flight=in_flight, durability=Durability.SPOOLED, timeout=timeout)
    made.made_progress(0)
    return made


def fill(to: Window, *events: ModelReadyToDeploy) -> None:
    frame = to.new_frame()
    for one in events:
        frame.add(one)


def ids(requests: list[pb.PublishStreamRequest]) -> list[list[str]]:
    return [[one.event_id for one in request.events] for request in requests]


def answer(request: pb.PublishStreamRequest, *errors: object) -> pb.PublishStreamResponse:
    """A receipt for each event of the frame, or the error in its place."""
    given = dict(enumerate(errors))
    return pb.PublishStreamResponse(
        sequence=request.sequence,
        results=[
            pb.PublishResult(error=given[n])
            if given.get(n)
            else pb.PublishResult(receipt=pb.Receipt(event_id=e.event_id))
            for n, e in enumerate(request.events)
        ],
    )


def test_frames_of_different_models_are_under_way_together() -> None:
    frames = window()
    fill(frames, event("a", 1), event("a", 2))
    fill(frames, event("b", 1))
    assert ids(frames.to_send(0)) == [["a-1", "a-2"], ["b-1"]]
    assert frames.to_send(0) == []


def test_a_frame_waits_for_an_earlier_one_with_the_same_model() -> None:
    frames = window()
    fill(frames, event("a", 1))
    fill(frames, event("b", 1), event("a", 2))
    fill(frames, event("c", 1))
    (first,) = frames.to_send(0)
    frames.answered(answer(first), 0)
    assert ids(frames.to_send(0)) == [["b-1", "a-2"], ["c-1"]]


def test_only_what_failed_is_sent_again_and_nothing_new_before_it() -> None:
    frames = window()
    fill(frames, event("a", 1), event("b", 1), event("c", 1))
    (first,) = frames.to_send(0)
    frames.answered(answer(first, None, AWAY, INVALID), 0)
    fill(frames, event("d", 1))

    assert not frames.has_results
    assert frames.to_send(0.1) == []
    assert frames.patience(0.1) == pytest.approx(0.1)
    assert ids(frames.to_send(0.3)) == [["b-1"], ["d-1"]]


def test_a_broken_stream_sends_all_that_was_unanswered_again() -> None:
    frames = window()
    fill(frames, event("a", 1))
    fill(frames, event("b", 1))
    first, second = frames.to_send(0)
    frames.answered(answer(first), 0)
    frames.interrupted(ended(), 0)

    assert [result.event_id for result in frames.results()] == ["a-1"]
    assert frames.to_send(0) == []
    (again,) = frames.to_send(2)
    assert ids([again]) == [["b-1"]]
    assert again.sequence > second.sequence


def test_the_time_without_progress_ends_with_the_last_cause() -> None:
    frames = window(timeout=5)
    fill(frames, event("a", 1), event("b", 1))
    (first,) = frames.to_send(0)
    with pytest.raises(DeadlineExceeded, match="no receipt in 5 s"):
        frames.patience(5)
    frames.answered(answer(first, None, AWAY), 4)
    assert frames.patience(8) == pytest.approx(1)
    with pytest.raises(Unavailable, match="scripted") as last:
        frames.patience(9)

    results = list(frames.abandon(last.value))
    assert [type(result) for result in results] == [Receipt, Unavailable]
    assert [result.event_id for result in results] == ["a-1", "b-1"]


def test_an_answer_that_fits_no_frame_is_not_trusted() -> None:
    frames = window()
    fill(frames, event("a", 1))
    (first,) = frames.to_send(0)
    for wrong in (pb.PublishStreamResponse(sequence=99), pb.PublishStreamResponse(sequence=first.sequence)):
        with pytest.raises(PublishError, match="fits no frame"):
            frames.answered(wrong, 0)


def test_a_frame_stays_below_half_of_grpc_s_limit() -> None:
    frame = window(frame=1000).new_frame()
    large = event("a", 1, signature="x" * (MAX_EVENT_BYTES // 2 - 1000))
    assert [frame.add(large), frame.add(large), frame.add(event("b", 1, signature="x" * 2000))] == [False, False, True]
    assert sum(one.ByteSize() for one in frame.pending.values()) < 2 << 20


def test_an_event_that_is_too_large_gets_its_error_and_stops_nobody() -> None:
    frames = window()
    fill(frames, event("a", 1, signature="x" * MAX_EVENT_BYTES), event("b", 1))
    (request,) = frames.to_send(0)
    frames.answered(answer(request), 0)
    assert [type(result).__name__ for result in frames.results()] == ["InvalidEvent", "Receipt"]


@pytest.mark.parametrize(("frame", "in_flight", "wrong"), [(0, 1, "frame"), (1001, 1, "frame"), (1, 0, "in_flight")])
def test_limits_are_checked(frame: int, in_flight: int, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        window(frame=frame, in_flight=in_flight)


@pytest.mark.parametrize("seed", range(60))
def test_whatever_fails_each_event_gets_one_result_and_each_model_keeps_its_order(seed: int) -> None:
    chance = random.Random(seed)
    versions: dict[str, int] = defaultdict(int)
    events = []
    for _ in range(300):
        model = f"m{chance.randrange(chance.choice([1, 5, 100]))}"
        versions[model] += 1
        events.append(event(model, versions[model]))
    stored: dict[str, ModelReadyToDeploy] = {}
    results: list[Receipt | PublishError] = []
    frames = window(frame=chance.randint(1, 20), in_flight=chance.randint(1, 8))
    size = frames._size
    now, waiting, under_way = 0.0, iter(events), list[pb.PublishStreamRequest]()
    while len(results) < len(events):
        while frames.has_room:
            fill(frames, *islice(waiting, size))
        under_way += frames.to_send(now)
        outcome = chance.random()
        if under_way and outcome < 0.7:
            request = under_way.pop(0)
            failed = [AWAY if chance.random() < 0.2 else None] * len(request.events)  # the events of a frame share it
            stored.update((e.event_id, e) for e, error in zip(request.events, failed, strict=True) if not error)
            frames.answered(answer(request, *failed), now)
        elif under_way and outcome < 0.8:
            for request in under_way[: chance.randint(0, len(under_way))]:  # done, but the answers are lost
                for one in request.events:
                    stored.setdefault(one.event_id, one)
            under_way.clear()
            frames.interrupted(ended(), now)
        now += chance.random()
        results += frames.results()

    assert [result.event_id for result in results] == [one.event_id for one in events]
    assert all(isinstance(result, Receipt) for result in results)
    for model, last in versions.items():
        assert [int(e.model.version) for e in stored.values() if e.model.name == model] == [*range(1, last + 1)]
