"""What `publish_many` promises, of both publishers, over a real connection."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import modelready.aio
from clients.python.tests.fake_sidecar import FakeSidecar, failure
from modelready import (
    DeadlineExceeded,
    InvalidEvent,
    ModelReadyToDeploy,
    Outcome,
    PublishError,
    Receipt,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    model_ready,
)
from tests.harness.waiting import patience

Code = grpc.StatusCode
AWAY = failure(Code.UNAVAILABLE, reason="REDIS_UNAVAILABLE", retry_after=0.02)


def events(count: int, models: int = 7) -> Iterator[ModelReadyToDeploy]:
    for n in range(count):
        yield model_ready(name=f"m{n % models}", version=n, uri="s3://m/", event_id=f"{n}")


def numbers(results: Any) -> list[int]:
    return [int(result.event_id) for result in results]


def take_all(results: Iterator[Receipt | PublishError]) -> tuple[list[Receipt | PublishError], PublishError]:
    """The results, and the error that ended them."""
    taken: list[Receipt | PublishError] = []
    with pytest.raises(PublishError) as end:
        taken.extend(results)
    return taken, end.value


def assert_order_per_model(entries: list[ModelReadyToDeploy]) -> None:
    versions: dict[str, list[int]] = defaultdict(list)
    for event in entries:
        versions[event.model.name].append(int(event.model.version))
    assert all(each == sorted(each) for each in versions.values())


@pytest.mark.parametrize("models", [1, 7, 1000])
def test_each_event_gets_its_receipt_in_the_order_of_the_input(
    publisher: Any, sidecar: FakeSidecar, models: int
) -> None:
    results = list(publisher.publish_many(events(1234, models)))

    assert numbers(results) == list(range(1234))
    assert {result.outcome for result in results} == {Outcome.STORED}
    assert max(len(frame) for frame in sidecar.frames) == 100
    assert_order_per_model(sidecar.entries)


def test_nothing_to_publish_is_no_call(publisher: Any, sidecar: FakeSidecar) -> None:
    assert list(publisher.publish_many([])) == []
    assert sidecar.frames == []


def test_a_refused_event_does_not_stop_the_others(publisher: Any, sidecar: FakeSidecar) -> None:
    bad = failure(Code.INVALID_ARGUMENT, violations=[("events[3].model.name", "is required")])
    sidecar.refuse = lambda event: bad if event.event_id == "3" else None
    results = list(publisher.publish_many(events(250)))

    assert numbers(results) == list(range(250))
    assert [n for n, result in enumerate(results) if isinstance(result, InvalidEvent)] == [3]


def test_transient_refusals_are_sent_again_in_order(publisher: Any, sidecar: FakeSidecar) -> None:
    # every other frame fails; as in the sidecar, the events of one succeed or fail together
    sidecar.refuse = lambda event: AWAY if len(sidecar.frames) % 2 and event.event_id != "3" else None
    results = list(publisher.publish_many(events(500, models=40), in_flight=4, frame=20))

    assert numbers(results) == list(range(500))
    assert sum(len(frame) for frame in sidecar.frames) > 900
    assert all(isinstance(result, Receipt) for result in results)
    assert_order_per_model(sidecar.entries)


def test_a_stream_that_breaks_is_opened_again_with_the_same_ids(publisher: Any, sidecar: FakeSidecar) -> None:
    passing = [failure(Code.UNAVAILABLE, retry_after=0.01), failure(Code.CANCELLED), failure(Code.RESOURCE_EXHAUSTED)]
    sidecar.failures.extend(passing)
    sidecar.frames_a_stream = itertools.chain([0, 1, 0, 2, 3], itertools.repeat(5))  # then it ends, unanswered
    results = list(publisher.publish_many(events(250, models=500), frame=10))

    assert numbers(results) == list(range(250))
    assert [event.event_id for event in sidecar.entries] == [f"{n}" for n in range(250)]


def test_a_defect_of_the_sidecar_is_not_retried(publisher: Any, sidecar: FakeSidecar) -> None:
    # grpc.aio may report the end of a stream that it was writing to as an INTERNAL of its own, which is retried.
    sidecar.failures.extend([failure(Code.INTERNAL, reason="INTERNAL")] * 50)
    with pytest.raises(PublishError) as error:
        list(publisher.publish_many(events(5)))
    assert error.value.code is Code.INTERNAL
    assert len(sidecar.failures) > 40


def test_a_stream_that_the_sidecar_refuses_raises_and_pulls_no_more(publisher: Any, sidecar: FakeSidecar) -> None:
    sidecar.failures.extend([failure(Code.UNAUTHENTICATED, message="the token is wrong")] * 50)
    source = events(10_000)
    results, end = take_all(publisher.publish_many(source, frame=10, in_flight=2))

    assert isinstance(end, Unauthenticated)
    assert str(end) == "the token is wrong"
    assert numbers(results) == list(range(20))
    assert all(isinstance(result, Unauthenticated) for result in results)
    assert int(next(source).event_id) == 20


def test_without_progress_it_ends_and_tells_the_cause(twin: Any) -> None:
    with twin("127.0.0.1:1") as publisher:
        results, end = take_all(publisher.publish_many(events(50), timeout=0.3))

    assert isinstance(end, Unavailable)
    assert str(end) == "no sidecar at 127.0.0.1:1 (connection refused): is it running?"
    assert numbers(results) == list(range(50))
    assert all(isinstance(result, Unavailable) for result in results)


def test_a_full_queue_is_waited_for_and_then_named(publisher: Any, sidecar: FakeSidecar) -> None:
    full = failure(Code.RESOURCE_EXHAUSTED, reason="SPOOL_FULL", retry_after=0.1)
    sidecar.refuse = lambda event: full if event.model.version == "5" else None
    results, end = take_all(publisher.publish_many(events(8, models=99), timeout=1))

    assert isinstance(end, ResourceExhausted)
    assert [type(result).__name__ for result in results] == ["Receipt"] * 5 + ["ResourceExhausted"] + ["Receipt"] * 2
    assert end.reason == "SPOOL_FULL"


def test_a_frozen_sidecar_does_not_hold_it_for_ever(publisher: Any, sidecar: FakeSidecar) -> None:
    thawed = threading.Event()
    sidecar.hold = lambda: thawed.wait(20)
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"no receipt in 0\.3 s: the events under way may be in the queue"):
        list(publisher.publish_many(events(5), timeout=0.3))
    thawed.set()
    assert time.monotonic() - began < patience(3)


def test_events_are_pulled_only_as_results_are_taken(publisher: Any, sidecar: FakeSidecar) -> None:
    pulled = 0

    def source() -> Iterator[ModelReadyToDeploy]:
        nonlocal pulled
        for event in events(100_000, models=100_000):
            pulled += 1
            yield event

    ahead = 0
    results = publisher.publish_many(source(), frame=10, in_flight=3)
    for taken, _ in enumerate(itertools.islice(results, 1000), 1):
        ahead = max(ahead, pulled - taken)
    assert ahead < 30 + 10
    results.close()
    assert pulled <= 1000 + 40


def test_a_caller_that_stops_early_or_pauses_is_served(publisher: Any, sidecar: FakeSidecar) -> None:
    for _ in publisher.publish_many(events(1000), timeout=0.5):
        break
    results = publisher.publish_many(events(300, models=300), frame=10, timeout=0.5)
    first = next(results)
    time.sleep(0.8)  # longer than the time without progress: the caller's own
    assert numbers([first, *results]) == list(range(300))


def test_a_supply_that_fails_passes_its_error_on(publisher: Any) -> None:
    def source() -> Iterator[ModelReadyToDeploy]:
        yield from events(5)
        raise LookupError("the supply's own")

    with pytest.raises(LookupError, match="the supply's own"):
        list(publisher.publish_many(source()))


def test_a_supply_that_reuses_its_message_loses_nothing(publisher: Any, sidecar: FakeSidecar) -> None:
    def source() -> Iterator[ModelReadyToDeploy]:
        event = ModelReadyToDeploy()
        event.model.name = "fraud"
        for n in range(300):
            event.model.version = f"{n}"
            yield event

    list(publisher.publish_many(source()))
    assert [event.model.version for event in sidecar.entries] == [f"{n}" for n in range(300)]


def test_a_restart_in_the_middle_is_not_noticed(publisher: Any, sidecar: FakeSidecar) -> None:
    sidecar.hold = lambda: time.sleep(0.01)
    results = []
    for result in publisher.publish_many(events(2000, models=40), frame=20):
        results.append(result)
        if len(results) in {500, 1500}:
            sidecar.stop()
            threading.Timer(0.3, sidecar.start).start()
    assert numbers(results) == list(range(2000))
    assert all(isinstance(result, Receipt) for result in results)
    assert_order_per_model(sidecar.entries)
    assert len(sidecar.entries) == 2000


def test_a_sidecar_killed_again_and_again_loses_and_doubles_nothing(twin: Any, tmp_path: Path) -> None:
    kept = tmp_path / "kept"

    def start(address: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "clients.python.tests.fake_sidecar", address, f"{kept}"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    process = start("127.0.0.1:0")
    try:
        assert process.stdout
        address = process.stdout.readline().strip()
        results = []
        with twin(address) as publisher:
            for result in publisher.publish_many(events(2500, models=30), frame=20):
                results.append(result)
                if len(results) in {400, 1600}:
                    process.kill()
                    process.wait()
                    process = start(address)
    finally:
        process.kill()
        process.wait()

    assert numbers(results) == list(range(2500))
    assert all(isinstance(result, Receipt) for result in results)
    entries = [line.split() for line in kept.read_text().splitlines()]
    assert sorted(int(event_id) for event_id, _, _ in entries) == list(range(2500))
    assert_order_per_model([model_ready(name=name, version=version, uri="-") for _, name, version in entries])


async def test_the_asyncio_twin_takes_an_async_supply(sidecar: FakeSidecar) -> None:
    async def source() -> AsyncIterator[ModelReadyToDeploy]:
        for event in events(250):
            await asyncio.sleep(0)
            yield event

    async with modelready.aio.Publisher(sidecar.address) as publisher:
        results = [result async for result in publisher.publish_many(source())]
    assert numbers(results) == list(range(250))


async def test_the_asyncio_twin_can_be_cancelled(sidecar: FakeSidecar) -> None:
    thawed = threading.Event()
    sidecar.hold = lambda: thawed.wait(20)

    async def publish_all(publisher: modelready.aio.Publisher) -> None:
        async for _ in publisher.publish_many(events(10)):
            pass

    async with modelready.aio.Publisher(sidecar.address) as publisher:
        task = asyncio.create_task(publish_all(publisher))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    thawed.set()
