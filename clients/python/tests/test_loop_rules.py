"""When a consumer's loop reads, waits and ends, and what it makes of what it was given. Without a server."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from redis import exceptions

from modelready import model_ready
from modelready._consumer import loop as loop_module
from modelready._consumer.in_flight import Entry, Failure
from modelready._consumer.lanes import Given, Turn
from modelready._consumer.loop import Loop
from modelready._consumer.options import checked_options
from modelready.entry import encode
from modelready.redis.cluster import server_from_env
from modelready.v1.event_pb2 import ModelReadyToDeploy

STREAM = "{model-ready}:events"
FOREVER = float("inf")
GONE = exceptions.ResponseError("NOGROUP no such key or consumer group")


def idle(**options: Any) -> Loop:
    """A loop that does not run, with a worker that waits for an entry."""
    made = Loop(
        server_from_env({"REDIS_HOST": "localhost"}, STREAM),
        checked_options(**{"group": "deployer", "consumer_name": "one", **options}),
        lambda: None,
        lambda: None,
    )
    made.in_flight.hungry = 1
    return made


def entry(entry_id: str, lane: str = "m") -> Entry:
    return Entry(entry_id, lane.encode(), ModelReadyToDeploy())


def run_entry(loop: Loop, one: Entry) -> None:
    loop.in_flight.add([one], [one.id], time.monotonic())
    assert loop.in_flight.take() == [one]


def given(entry_id: str, fields: dict[str, Any] | None = None, *, attempts: int = 0, is_begun: bool = False) -> Given:
    whole = encode(model_ready(name="m", version=1, uri="s3://m/")) if fields is None else fields
    pairs = [part if isinstance(part, bytes) else str(part).encode() for pair in whole.items() for part in pair]
    return Given(entry_id, entry_id.encode(), attempts, is_begun, pairs)


# -- reading


def test_what_is_read_is_a_batch_less_what_is_busy_and_nothing_while_all_workers_are() -> None:
    loop = idle(concurrency=2, batch=10)
    assert loop._room() == 10
    run_entry(loop, entry("1-1"))
    assert loop._room() == 9
    loop.in_flight.add([entry("2-1", "n")], [], time.monotonic())
    assert loop._room() == 0
    stopping = idle(batch=10)
    stopping.in_flight.stop()
    assert stopping._room() == 0


def test_no_more_than_a_thousand_are_in_flight() -> None:
    loop = idle(concurrency=5000, batch=5000)
    held = [entry(f"{number}-1") for number in range(1000)]
    loop.in_flight.add(held[:999], [], time.monotonic())  # of one model: one is busy
    assert loop._room() == 4999
    loop.in_flight.add(held[999:], [], time.monotonic())
    assert loop._room() == 0


def test_what_is_left_says_when_to_read_again() -> None:
    loop = idle()
    for nothing_new in ("", "more"):
        loop._note_what_is_left(Turn(nothing_new, [], [], 5))
        assert (loop._read_at, loop._last_id, loop._waits.is_set()) == (0.0, "0-0", False)
    now = time.monotonic()
    loop._note_what_is_left(Turn("full", [], [], 5))
    assert now + 0.5 <= loop._read_at <= time.monotonic() + 0.5
    assert not loop._waits.is_set()
    for waiting in (1, 0):
        loop._note_what_is_left(Turn("7-0", [], [], waiting))
        assert (loop._read_at, loop._last_id, loop._waits.is_set()) == (FOREVER, "7-0", True)
        assert loop._may_get_a_lane is (waiting > 0)


def test_news_wakes_a_loop_that_waits_for_them_and_hurries_no_other() -> None:
    loop = idle()
    loop._again.clear()
    loop._read_at = 5.0
    loop._look_again()
    assert (loop._read_at, loop._again.is_set()) == (5.0, False)
    loop._read_at = FOREVER
    loop._look_again()
    assert (loop._read_at, loop._again.is_set()) == (0.0, True)


def test_the_next_step_is_at_the_first_thing_that_is_due() -> None:
    loop = idle()
    now = time.monotonic()
    loop._liveness.renew_at, loop._liveness.sweep_at, loop._read_at = now + 60, now + 50, FOREVER
    assert loop._next_step_at() == now + 50
    loop._read_at = now + 40
    assert loop._next_step_at() == now + 40
    one, two = entry("1-1"), entry("2-1", "n")
    run_entry(loop, one)
    assert loop._next_step_at() == now + 50  # without room nothing is read
    loop._failures.memory_full_until = now + 30
    assert loop._next_step_at() == now + 30
    run_entry(loop, two)
    loop.in_flight.failed(two, "")
    (failure,) = loop.in_flight.failures()
    loop.in_flight.settled(failure, retry_at=now + 20)
    assert loop._next_step_at() == now + 20
    loop.in_flight.hungry = 0
    assert loop._next_step_at() == now + 30  # nobody waits for the next attempt
    loop._liveness.renew_at = now + 10
    assert loop._next_step_at() == now + 10
    loop._liveness.renew_at = now + 60
    loop.in_flight.stop()
    assert loop._next_step_at() < time.monotonic() + 1


# -- steps


class Stub:
    """It notes what is asked of it, in the order of all stubs."""

    def __init__(self, asked: list[str], name: str, answer: Any = None, **attributes: Any) -> None:
        self.__dict__.update(attributes)
        self._asked, self._name, self._answer = asked, name, answer

    def __getattr__(self, word: str) -> Any:
        async def asked(*arguments: Any, **options: Any) -> Any:
            said = ", ".join([*map(repr, arguments), *(f"{name}={value!r}" for name, value in options.items())])
            self._asked.append(f"{self._name}.{word}({said})")
            return self._answer

        return asked


def stubbed(renew_at: float = FOREVER, sweep_at: float = FOREVER, answer: Any = None, **options: Any) -> Any:
    """An idle loop that is in its group, with stubs for what speaks to Redis; `asked` has what it asks of them."""
    loop: Any = idle(**options)
    loop.asked = []
    loop._must_create = loop._must_recover = ""
    loop._lanes = Stub(loop.asked, "lanes", answer)
    loop._liveness = Stub(loop.asked, "liveness", renew_at=renew_at, sweep_at=sweep_at)
    loop._failures = Stub(loop.asked, "failures", memory_full_until=None)
    return loop


def test_a_step_renews_settles_turns_and_sweeps_when_that_is_due() -> None:
    turn = "lanes.turn([], [], [], room=1, demand=1, reads=True)"
    loop = stubbed(0.0, 0.0, Turn("more", [], [], 0))
    assert asyncio.run(loop._step())
    assert loop.asked == ["liveness.renew()", "failures.settle()", turn, "liveness.sweep()"]
    loop = stubbed(answer=Turn("7-0", [], [], 0))
    assert not asyncio.run(loop._step())
    assert loop.asked == ["failures.settle()", turn]
    assert not asyncio.run(loop._step())  # nothing is to be read or said
    assert loop.asked[2:] == ["failures.settle()"]
    loop._liveness.sweep_at = 0.0
    loop._again.clear()
    asyncio.run(loop._step())
    assert loop.asked[3:] == ["failures.settle()", "liveness.sweep()"]
    assert (loop._read_at, loop._again.is_set()) == (0.0, True)  # what it found may be taken
    loop.in_flight.stop()
    asyncio.run(loop._step())
    assert loop.asked[5:] == ["failures.settle()"]


def test_a_claim_in_doubt_is_renewed_before_anything_else() -> None:
    loop = stubbed(answer=Turn("", [], [], 0))
    loop.in_flight.add([entry("1-1")], [], 0.0)
    loop._read_at = FOREVER
    loop.in_flight.hungry = 0
    asyncio.run(loop._step())
    assert loop.asked[:2] == ["liveness.renew()", "failures.settle()"]


@pytest.mark.parametrize(("life", "start"), [("first", "$"), ("again", "0")])
def test_a_group_that_was_lost_is_made_from_the_beginning(
    life: str, start: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    loop = stubbed(answer=True, start="$")
    loop._must_create = life
    asyncio.run(loop._create_group())
    assert (loop.asked, loop._must_create) == ([f"lanes.create_group({start!r})"], "")
    assert caplog.messages == [f"group deployer of {STREAM} is created"]


@pytest.mark.parametrize("life", ["first", "again"])
def test_after_a_lost_reply_what_was_not_begun_is_put_back(life: str) -> None:
    loop = stubbed(answer=[b"m", b"n"])
    loop._must_recover, loop._read_at = life, FOREVER
    run_entry(loop, entry("1-1"))
    loop.in_flight.add([entry("1-2")], [], time.monotonic())
    asyncio.run(loop._recover())
    lives = life == "again"
    assert loop.asked == [
        "liveness.renew()",
        f"lanes.release_own({{'1-1': '', '1-2': 0}}, lives={lives})",
        f"lanes.tidy(leaving={not lives})",
    ]
    assert loop.in_flight.ended_lanes(9) == [b"n"]  # of the other something runs here
    assert (loop._must_recover, loop._read_at) == ("", 0.0)


@pytest.mark.parametrize(
    ("left", "handled", "ended", "goes_on"),
    [("more", 0, 0, True), ("7-0", 0, 0, False), ("full", 99, 99, False), ("", 100, 0, True), ("", 0, 100, True)],
)
def test_a_turn_is_followed_by_another_where_there_is_more(left: str, handled: int, ended: int, goes_on: bool) -> None:
    loop = stubbed(answer=Turn(left, [], [], 0))
    for number in range(handled):
        loop.in_flight._finished[f"{number}-1"] = entry(f"{number}-1")
    loop.in_flight.end_lanes(str(number).encode() for number in range(ended))
    assert asyncio.run(loop._turn()) is goes_on
    assert (loop.in_flight.finished(999), loop.in_flight.ended_lanes(999)) == ([], [])


def test_what_may_begin_is_granted_and_what_another_has_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    loop = stubbed(answer=Turn("", [], [True, False], 0), concurrency=5, batch=5)
    loop.in_flight.hungry = 3
    loop._read_at = FOREVER
    kept, lost = entry("1-1", "a"), entry("2-1", "b")
    loop.in_flight.add([kept, lost], [], time.monotonic())
    asyncio.run(loop._turn())
    assert loop.asked == ["lanes.turn([], [], [('1-1', 1), ('2-1', 1)], room=3, demand=1, reads=False)"]
    assert (loop.in_flight.take(), list(loop.in_flight.entries)) == ([kept], ["1-1"])
    assert caplog.messages == ["entry 2-1 was taken over by another consumer"]


# -- what is given


@pytest.mark.parametrize(("takes_batches", "died_of"), [(False, 3), (True, 4)])
def test_of_what_is_given_each_takes_its_way(takes_batches: bool, died_of: int) -> None:
    loop = idle(max_attempts=3, batch=10, concurrency=10)
    loop.in_flight.takes_batches = takes_batches
    loop._again.clear()
    whole = encode(model_ready(name="m", version=1, uri="s3://m/"))
    entries = [
        given("1-1", attempts=died_of),
        given("2-1", {"data": b"\xff"}),
        given("3-1", {"data": b"\xff"}, attempts=2),
        given("4-1", {**whole, "replay_group": "another"}),
        given("5-1", {**whole, "replay_group": "deployer"}, is_begun=True),
        given("6-1", attempts=died_of - 1),
    ]
    held = entry("0-1", "0-1")
    loop.in_flight.add([held], [], 1.0)
    loop._receive([given("0-1"), *entries], 1.0)
    assert list(loop.in_flight.entries) == ["0-1", "5-1", "6-1"]
    assert loop.in_flight.entries["0-1"] is held  # it came twice
    assert [one.attempts for one in loop.in_flight.entries.values()] == [0, 0, died_of - 1]
    assert (loop.in_flight.finished(9), loop._again.is_set()) == (["4-1"], True)
    failures = {failure.entry_id: failure for failure in loop.in_flight.failures()}
    assert list(failures) == ["1-1", "2-1", "3-1"]
    assert failures["1-1"][1:] == (
        b"1-1", None, "CONSUMER_DIED", "its consumer ended, or lost it, in each of its attempts", died_of,
    )  # fmt: skip
    assert [failures[each][3:4] + failures[each][5:] for each in ("2-1", "3-1")] == [
        ("UNDECODABLE", 1), ("UNDECODABLE", 2),
    ]  # fmt: skip
    assert bool(loop.in_flight._granted) is not takes_batches


@pytest.mark.parametrize("what", ["given up", "for another group"])
def test_what_is_not_begun_is_settled_at_once(what: str) -> None:
    loop = idle()
    loop._again.clear()
    loop._receive([given("1-1", {"data": b"\xff", **({"replay_group": "x"} if what != "given up" else {})})], 1.0)
    assert loop._again.is_set()


# -- the end


def test_it_is_over_when_it_was_stopped_and_redis_knows_all() -> None:
    loop = idle()
    assert not loop._is_over()
    one = entry("1-1")
    run_entry(loop, one)
    loop.stop()
    assert not loop._is_over()  # it runs
    loop.in_flight.done(one)
    assert not loop._is_over()  # it is not acknowledged
    loop.in_flight.acknowledged(["1-1"])
    assert loop._is_over()
    loop.in_flight.give_up(Failure("2-1", b"n", None, "UNDECODABLE", ""))
    assert not loop._is_over()
    assert loop._idle_since is not None
    loop._idle_since -= loop_module._LAST_WORDS_SECONDS + loop._options.block_seconds + 0.1
    assert loop._is_over()  # Redis had its time


def test_a_forced_stop_waits_for_no_worker_and_stays_forced() -> None:
    loop = idle()
    run_entry(loop, entry("1-1"))
    loop.stop(forced=True)
    loop.stop()
    assert loop._is_over()
    assert (loop.in_flight.stopping, loop._stopped.is_set(), loop._again.is_set()) == (True, True, True)


# -- faults


def test_without_its_group_all_that_is_in_flight_is_lost_and_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    loop = idle()
    loop._must_create = ""
    loop.in_flight.add([entry("1-1"), entry("1-2")], [], time.monotonic())
    asyncio.run(loop._after(GONE, 0))
    assert (loop._must_create, loop.in_flight.entries) == ("again", {})
    asyncio.run(loop._after(GONE, 1))
    said = f"group deployer of {STREAM} is gone: it is created again, and all in the stream comes again"
    assert caplog.messages == [said]


def test_an_outage_is_said_once_and_pauses_grow_to_a_sixth_of_the_claim(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pauses: list[float] = []

    async def waited(stopped: Any, seconds: float) -> None:
        stopped.close()
        pauses.append(seconds)
        raise asyncio.TimeoutError

    async def slept(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(loop_module, "backoff", lambda attempt: 0.2 * (attempt + 1))
    loop = idle(claim_seconds=3.0)

    async def fail() -> None:
        monkeypatch.setattr(asyncio, "wait_for", waited)
        monkeypatch.setattr(asyncio, "sleep", slept)
        for attempt in range(4):
            await loop._after(exceptions.ConnectionError("away"), attempt)
        await loop._after(exceptions.ConnectionError("away"), 0)  # a step between them that did not succeed
        loop.stop()
        await loop._after(exceptions.ConnectionError("away"), 5)

    asyncio.run(fail())
    assert pauses == pytest.approx([0.2, 0.4, 0.5, 0.5, 0.2, 0.05])
    assert caplog.messages == ["waiting for Redis: away"]


def test_what_no_waiting_helps_against_is_raised() -> None:
    with pytest.raises(exceptions.ResponseError, match="WRONGTYPE"):
        asyncio.run(idle()._after(exceptions.ResponseError("WRONGTYPE"), 0))
