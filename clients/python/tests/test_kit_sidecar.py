"""What a publisher meets at `modelready.testing.FakeSidecar` is what it meets at the sidecar: one suite for both."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import modelready.aio
from modelready import (
    DeadlineExceeded,
    Durability,
    InvalidEvent,
    Outcome,
    OutcomeUnknown,
    Publisher,
    PublishError,
    Receipt,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    model_ready,
)
from modelready.testing import FakeSidecar, statuses
from modelready.testing.statuses import REASONS
from sidecar import errors
from sidecar.rpc.error_status import to_status
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until

TOKEN = "s3cret"
URI = "event.artifact.uri: must carry neither a password nor a pre-signed query"
FRAUD: dict[str, Any] = {"name": "fraud", "version": "7", "uri": "s3://models/fraud/7/"}


class Fake:
    """A fake sidecar, and what a test does to it."""

    def __init__(self) -> None:
        self.sidecar = FakeSidecar(token=TOKEN).start()

    @property
    def address(self) -> str:
        return self.sidecar.address

    def queue(self) -> list[str]:
        return [event.event_id for event in self.sidecar.published]

    @contextlib.contextmanager
    def without_redis(self) -> Iterator[None]:
        self.sidecar.answer(Outcome.SPOOLED, times=None)
        yield
        self.sidecar.recover()

    def unconfirmed(self) -> None:
        self.sidecar.answer("OUTCOME_UNKNOWN", times=None)

    def confirmed(self) -> None:
        self.sidecar.recover()

    def end(self) -> None:
        self.sidecar.stop()


class Real:
    """A sidecar with its Redis."""

    def __init__(self) -> None:
        self._redis = RedisServer(appendonly=True)
        self._redis.start()
        env = {"REDIS_HOST": self._redis.host, "REDIS_PORT": f"{self._redis.port}", "SIDECAR_API_TOKEN": TOKEN}
        self._sidecar = SidecarProcess({**env, "RETRY_MAX_SECONDS": "0.2"})
        self._sidecar.start()

    @property
    def address(self) -> str:
        return self._sidecar.address

    def queue(self) -> list[str]:
        entries: list[Any] = self._redis.execute("XRANGE", "{model-ready}:events", "-", "+")
        return [fields[b"ce_id"].decode() for _, fields in entries]

    @contextlib.contextmanager
    def without_redis(self) -> Iterator[None]:
        self._redis.kill()
        yield
        self._redis.start()

    def unconfirmed(self) -> None:
        """There is no replica."""

    def confirmed(self) -> None:
        """None is asked for."""

    def end(self) -> None:
        self._sidecar.kill()
        self._redis.kill()


@pytest.fixture(scope="module", params=[Fake, Real])
def stage(request: pytest.FixtureRequest) -> Iterator[Any]:
    made = request.param()
    yield made
    made.end()


@pytest.fixture
def publisher(stage: Any) -> Iterator[Publisher]:
    with Publisher(stage.address, token=TOKEN, timeout=20) as publisher:
        yield publisher


def refusal(publish: Callable[[], object]) -> PublishError:
    with pytest.raises(PublishError) as raised:
        publish()
    return raised.value


def test_a_stored_event_has_a_receipt_and_its_id_is_there_once(publisher: Publisher, stage: Any) -> None:
    first = publisher.publish(**FRAUD, event_id="once", correlation_id="mine")
    again = publisher.publish(**FRAUD, event_id="once", correlation_id="mine", durability="primary")
    assert (first.outcome, first.stream, first.replicas) == (Outcome.STORED, "{model-ready}:events", 0)
    assert (first.event_id, first.correlation_id) == ("once", "mine")
    milliseconds, _, number = first.entry_id.partition("-")
    assert milliseconds.isdigit()
    assert number.isdigit()
    assert (again.outcome, again.entry_id) == (Outcome.DUPLICATE, first.entry_id)
    assert stage.queue().count("once") == 1
    assert publisher.publish(**FRAUD).correlation_id


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": ""}, "event.model.name: is required"),
        ({"version": "", "uri": ""}, "event.model.version: is required; event.artifact.uri: is required"),
        ({"name": "x" * 257}, "event.model.name: must be at most 256 characters"),
        (
            {"uri": "s3://user:password@host/"},
            "event.artifact.uri: must carry neither a password nor a pre-signed query",
        ),
        ({"metrics": {"auc": float("nan")}}, 'event.metrics["auc"]: must be finite'),
        ({"event_id": "two words"}, "event.event_id: does not match regex pattern `^[!-~]{0,128}$`"),
        ({"labels": {"a": "x" * 600_000}}, 'event.labels["a"]: must be at most 1024 characters'),
    ],
    ids=range(7),
)
def test_what_breaks_a_rule_is_refused_with_its_fields(wrong: Any, said: str, publisher: Publisher) -> None:
    error = refusal(lambda: publisher.publish(**{**FRAUD, **wrong}))
    assert isinstance(error, InvalidEvent)
    assert (error.reason, error.code.name, error.message) == ("INVALID_EVENT", "INVALID_ARGUMENT", said)


def test_a_time_that_is_none_is_refused(publisher: Publisher) -> None:
    event = model_ready(**FRAUD)
    event.occurred_at.seconds = 300_000_000_000
    error = refusal(lambda: publisher.publish_event(event))
    assert error.message == "event.occurred_at: must be a time in the years 1 to 9999"


def test_many_have_their_results_in_order(publisher: Publisher, stage: Any) -> None:
    events = [model_ready(name="many", version=n, uri="s3://m/" if n != 2 else "", event_id=f"m{n}") for n in range(5)]
    results = list(publisher.publish_many(events, frame=2))
    assert [type(result) for result in results] == [Receipt, Receipt, InvalidEvent, Receipt, Receipt]
    refused = results[2]
    assert isinstance(refused, InvalidEvent)
    assert refused.violations[0].field == "events[0].artifact.uri"
    assert [event_id for event_id in stage.queue() if event_id.startswith("m")] == ["m0", "m1", "m3", "m4"]


@pytest.mark.parametrize(("token", "reason"), [(None, "TOKEN_MISSING"), ("wrong", "TOKEN_WRONG")])
def test_a_call_without_the_token_is_refused(stage: Any, token: str | None, reason: str) -> None:
    with Publisher(stage.address, token=token, timeout=20) as publisher:
        error = refusal(lambda: publisher.publish(**FRAUD))
        (result,) = _results(lambda: list(publisher.publish_many([model_ready(**FRAUD)])))
    assert isinstance(error, Unauthenticated)
    assert (error.reason, result.reason) == (reason, reason)
    assert "the test asked for" not in str(error)


def _results(publish: Callable[[], Any]) -> list[PublishError]:
    return [refusal(publish)]


def test_an_unknown_outcome_is_completed_by_the_same_id(publisher: Publisher, stage: Any) -> None:
    stage.unconfirmed()
    error = refusal(lambda: publisher.publish(**FRAUD, event_id="unknown", durability=Durability.REPLICATED, timeout=3))
    stage.confirmed()
    assert isinstance(error, OutcomeUnknown)
    assert publisher.publish(**FRAUD, event_id="unknown").outcome is Outcome.DUPLICATE
    assert stage.queue().count("unknown") == 1


def test_while_redis_is_away_it_spools_and_refuses_those_that_ask_for_more(publisher: Publisher, stage: Any) -> None:
    with stage.without_redis():
        for _ in range(2):
            receipt = publisher.publish(**FRAUD, event_id="spooled")
            assert (receipt.outcome, receipt.entry_id, receipt.replicas) == (Outcome.SPOOLED, "", 0)
        error = refusal(lambda: publisher.publish(**FRAUD, event_id="more", durability="primary", timeout=3))
        assert isinstance(error, Unavailable)
        assert error.reason == "REDIS_UNAVAILABLE"
    until(lambda: "spooled" in stage.queue(), 20, "it follows")
    assert publisher.publish(**FRAUD, event_id="after").outcome in (Outcome.STORED, Outcome.SPOOLED)
    until(lambda: "after" in stage.queue(), 20, "it is there")
    assert stage.queue().count("spooled") == 1
    assert "more" not in stage.queue()


def test_where_nobody_listens_that_is_said(publisher: Publisher, stage: Any) -> None:
    stage.end()
    error = refusal(lambda: publisher.publish(**FRAUD, timeout=3))
    assert isinstance(error, Unavailable)
    assert error.reason == ""


# -- what only the fake one does


@pytest.fixture
def fake() -> Iterator[FakeSidecar]:
    with FakeSidecar() as sidecar:
        yield sidecar


def test_its_reasons_have_the_sidecar_s_codes() -> None:
    def all_of(kind: type[errors.RequestError]) -> Iterator[type[errors.RequestError]]:
        yield kind
        for below in kind.__subclasses__():
            yield from all_of(below)

    theirs = {}
    for kind in all_of(errors.RequestError):
        error: Any = kind([]) if issubclass(kind, errors.InvalidEvent) else kind("")
        theirs[error.reason] = to_status(error).code
    ours = {reason: code.value[0] for reason, code in REASONS.items()}
    assert {reason: ours[reason] for reason in theirs.keys() & ours.keys() - {"INTERNAL"}} == {
        reason: theirs[reason] for reason in theirs.keys() & ours.keys() - {"INTERNAL"}
    }


def test_answers_are_used_up_in_their_order(fake: FakeSidecar) -> None:
    fake.answer("SPOOL_FULL")
    fake.answer(Outcome.DUPLICATE, times=2)
    with Publisher(fake.address) as publisher:
        outcomes = [publisher.publish(**FRAUD, timeout=20).outcome.value for _ in range(3)]
    assert outcomes == ["duplicate", "duplicate", "stored"]
    assert len(fake.attempts) == 4
    assert len(fake.published) == 3
    assert fake.attempts[0].event_id == fake.attempts[1].event_id


def test_the_rules_are_loaded_before_the_first_event_whose_timeout_may_be_short() -> None:
    statuses._validator.cache_clear()
    with FakeSidecar() as sidecar, Publisher(sidecar.address) as publisher:
        assert statuses._validator.cache_info().currsize == 1
        assert publisher.publish(**FRAUD, durability="replicated", timeout=20).replicas == 1


def test_a_lasting_answer_is_the_one_that_the_caller_sees(fake: FakeSidecar) -> None:
    fake.answer("SPOOL_FULL", times=None, retry_after=30)
    with Publisher(fake.address) as publisher:
        error = refusal(lambda: publisher.publish(**FRAUD))
        assert isinstance(error, ResourceExhausted)
        assert (error.reason, error.retry_after) == ("SPOOL_FULL", 30)
        assert fake.published == []
        fake.clear()
        assert publisher.publish(**FRAUD).outcome is Outcome.STORED
    with pytest.raises(ValueError, match=r"the answer is 'FULL': it may be Outcome.STORED, Outcome.DUPLICATE, Outcome"):
        fake.answer("FULL")


def test_spooled_lets_a_caller_that_asks_for_more_give_up_at_once(fake: FakeSidecar) -> None:
    fake.answer(Outcome.SPOOLED, times=None, retry_after=60)
    with Publisher(fake.address, timeout=20) as publisher:
        error = refusal(lambda: publisher.publish(**FRAUD, durability="primary"))
        assert "asked for SPOOLED, and the caller for more" in error.message
        assert (len(fake.attempts), fake.published) == (1, [])
        assert publisher.publish(**FRAUD).outcome is Outcome.SPOOLED


def test_it_is_away_until_the_outer_block_ends_and_after_its_end(fake: FakeSidecar) -> None:
    with Publisher(fake.address) as publisher, fake.away():
        with fake.away():
            pass
        assert isinstance(refusal(lambda: publisher.publish(**FRAUD, timeout=1)), Unavailable)
    fake.stop()
    with fake.away():
        pass
    assert fake._server is None


async def test_a_slow_one_leaves_the_outcome_open_and_one_that_is_away_is_named(fake: FakeSidecar) -> None:
    async with modelready.aio.Publisher(fake.address, timeout=20) as publisher:
        await publisher.publish(**FRAUD)
        fake.delay = 20.0
        with pytest.raises(DeadlineExceeded) as late:
            await publisher.publish(**FRAUD, timeout=0.5)
        with fake.away(), pytest.raises(Unavailable, match=r"no sidecar at|closed the connection"):
            await publisher.publish(**FRAUD, timeout=3)
        fake.recover()
        again = await publisher.publish(**FRAUD, event_id=late.value.event_id)
    assert again.outcome is Outcome.DUPLICATE
    assert len(fake.published) == 2


def test_what_comes_from_another_thread_is_waited_for(fake: FakeSidecar) -> None:
    def publish() -> None:
        with Publisher(fake.address) as publisher:
            publisher.publish(**FRAUD)

    thread = threading.Thread(target=publish)
    thread.start()
    assert [event.model.name for event in fake.wait_for(1, 60)] == ["fraud"]
    thread.join()
    with pytest.raises(TimeoutError, match=r"1 of 2 events were published in 0\.01 s"):
        fake.wait_for(2, 0.01)
