"""The publishers where the connection, or the sidecar behind it, is there and does not answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

import modelready.aio
from clients.python.tests.fake_sidecar import FakeSidecar, failure
from modelready import DeadlineExceeded, EventFields, Outcome, OutcomeUnknown, Publisher, Unavailable, model_ready
from modelready._channel import TLS, channel_options
from tests.harness.redis_server import RedisServer
from tests.harness.relay import Relay
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import patience, until

FRAUD = EventFields(name="fraud", version="7", uri="s3://models/fraud/7/")
AWAY = failure(grpc.StatusCode.UNAVAILABLE, reason="REDIS_UNAVAILABLE", retry_after=0.05, message="Redis is away")
PINGS = ("keepalive_time_ms", "keepalive_timeout_ms", "ping_timeout_ms")
UNKNOWN = failure(grpc.StatusCode.UNAVAILABLE, reason="OUTCOME_UNKNOWN", retry_after=0.05)


@pytest.fixture
def relay(sidecar: FakeSidecar) -> Iterator[Relay]:
    with Relay(int(sidecar.address.rpartition(":")[2])) as relay:
        yield relay


@pytest.fixture
def quick_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead connection is given up after a tenth of the time."""

    def quick(tls: TLS | None) -> list[tuple[str, str | int]]:
        return [
            (name, value // 10 if isinstance(value, int) and name.endswith(PINGS) else value)
            for name, value in channel_options(tls)
        ]

    monkeypatch.setattr("modelready._publisher.channel_options", quick)


def lose_replies(relay: Relay, sidecar: FakeSidecar) -> None:
    """Until a request has arrived whose reply vanishes; new connections are well again."""
    before = len(sidecar.attempts) + len(sidecar.frames)
    relay.swallow_replies()
    until(lambda: len(sidecar.attempts) + len(sidecar.frames) > before, 10, "a request arrived")
    time.sleep(0.2)  # its reply is on the way now, and lost
    relay.pass_replies()


@pytest.mark.usefixtures("quick_pings")
def test_a_call_on_a_dead_connection_is_made_again_on_a_new_one(twin: Any, relay: Relay, sidecar: FakeSidecar) -> None:
    with twin(f"127.0.0.1:{relay.port}") as publisher, ThreadPoolExecutor() as threads:
        publisher.publish(**FRAUD)
        losing = threads.submit(lose_replies, relay, sidecar)
        assert publisher.publish(**FRAUD, timeout=25).outcome is Outcome.DUPLICATE
        losing.result()


@pytest.mark.usefixtures("quick_pings")
def test_a_stream_on_a_dead_connection_goes_on_on_a_new_one(twin: Any, relay: Relay, sidecar: FakeSidecar) -> None:
    events = [model_ready(name="fraud", version=n, uri="-", event_id=f"{n}") for n in range(30)]
    with twin(f"127.0.0.1:{relay.port}") as publisher, ThreadPoolExecutor() as threads:
        publisher.publish(**FRAUD)
        losing = threads.submit(lose_replies, relay, sidecar)
        receipts = list(publisher.publish_many(events, frame=10, timeout=25))
        losing.result()
    assert [receipt.event_id for receipt in receipts] == [event.event_id for event in events]
    assert [event.event_id for event in sidecar.entries[1:]] == [event.event_id for event in events]


@pytest.mark.usefixtures("quick_pings")
def test_a_connection_that_dies_while_nothing_is_called_is_replaced_before_the_next_call(
    twin: Any, relay: Relay
) -> None:
    with twin(f"127.0.0.1:{relay.port}") as publisher:
        publisher.publish(**FRAUD)
        relay.swallow_replies()
        until(lambda: relay.counters.open == 0, 25, "it is given up")
        relay.pass_replies()
        began = time.monotonic()
        publisher.publish(**FRAUD)
        assert time.monotonic() - began < patience(2)


def test_a_dead_connection_is_given_up_within_15_seconds() -> None:
    options = dict(channel_options(None))
    assert int(options["grpc.keepalive_time_ms"]) + int(options["grpc.keepalive_timeout_ms"]) <= 15_000


def test_pings_are_no_more_frequent_than_the_sidecar_allows() -> None:
    options = dict(channel_options(None))
    assert int(options["grpc.keepalive_time_ms"]) >= 2 * 5000
    assert int(options["grpc.http2.ping_timeout_ms"]) == options["grpc.keepalive_timeout_ms"] == 5000


@pytest.mark.soak
def test_the_sidecar_lets_a_client_ping_an_idle_connection() -> None:
    """It would answer the third ping that it does not want with GOAWAY, too_many_pings."""
    with (
        RedisServer() as redis,
        SidecarProcess({"REDIS_HOST": redis.host, "REDIS_PORT": f"{redis.port}"}) as sidecar,
        Relay(int(sidecar.address.rpartition(":")[2])) as relay,
        Publisher(f"127.0.0.1:{relay.port}") as publisher,
    ):
        publisher.publish(**FRAUD)
        before = relay.counters.request_bytes
        time.sleep(65)
        assert relay.counters.request_bytes - before > 5 * 17  # the pings themselves
        publisher.publish(**FRAUD)
        assert (relay.counters.accepted, relay.counters.open) == (1, 1)


@pytest.mark.parametrize("before", [AWAY, UNKNOWN], ids=["away", "unknown"])
def test_the_reason_of_the_answer_before_is_raised_with_the_deadline_as_its_cause(
    publisher: Any, sidecar: FakeSidecar, before: Any
) -> None:
    release = threading.Event()
    sidecar.failures.append(before)
    sidecar.hold = lambda: release.wait(20)
    with pytest.raises(Unavailable, match="no answer in time: it may be in the queue") as late:
        publisher.publish(**FRAUD, timeout=1, event_id="mine")
    release.set()
    reason = "REDIS_UNAVAILABLE" if before is AWAY else "OUTCOME_UNKNOWN"
    assert (late.value.reason, late.value.event_id) == (reason, "mine")
    assert isinstance(late.value, OutcomeUnknown) == (before is UNKNOWN)
    assert isinstance(late.value.__cause__, DeadlineExceeded)
    assert len(sidecar.attempts) == 2


@pytest.mark.parametrize("fails", ["stream", "event"])
def test_many_give_the_reason_before_with_the_deadline_as_its_cause(
    publisher: Any, sidecar: FakeSidecar, fails: str
) -> None:
    release = threading.Event()
    answers = [AWAY]
    if fails == "stream":
        sidecar.failures.append(AWAY)
        sidecar.hold = lambda: release.wait(20)
    else:
        sidecar.refuse = lambda event: answers.pop() if answers else release.wait(20) and None
    results = []
    with pytest.raises(Unavailable) as late:  # noqa: PT012 - results come before it
        for result in publisher.publish_many([model_ready(**FRAUD | {"event_id": "mine"})], timeout=1):
            results.append(result)  # noqa: PERF402 - they are kept when it raises
    release.set()
    (result,) = results
    for error in (late.value, result):
        assert error.reason == "REDIS_UNAVAILABLE"
        assert isinstance(error.__cause__, DeadlineExceeded)
    assert result.event_id == "mine"


def test_many_that_are_refused_until_the_end_are_not_said_to_be_under_way(publisher: Any, sidecar: FakeSidecar) -> None:
    full = failure(grpc.StatusCode.RESOURCE_EXHAUSTED, reason="SPOOL_FULL", retry_after=3, message="full")
    sidecar.refuse = lambda event: full
    with pytest.raises(modelready.ResourceExhausted, match=r"^full. The event") as refused:
        list(publisher.publish_many([model_ready(**FRAUD)], timeout=1))
    assert refused.value.__cause__ is None
