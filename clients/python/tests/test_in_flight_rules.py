"""What becomes of one entry in flight, state by state."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from modelready._consumer.in_flight import Entry, Failure, InFlight, State
from modelready.v1.event_pb2 import ModelReadyToDeploy


class Flight(InFlight):
    """It notes how often the loop and the workers were woken."""

    def __init__(self, claim_seconds: float = 60.0) -> None:
        self.woken = self.readied = 0
        super().__init__(claim_seconds, self._woke, self._readied)
        self.hungry = 10
        self.confirm(time.monotonic())

    def _woke(self) -> None:
        self.woken += 1

    def _readied(self) -> None:
        self.readied += 1


def of(entry_id: str, lane: str = "m", attempts: int = 0) -> Entry:
    return Entry(entry_id, lane.encode(), ModelReadyToDeploy(), attempts)


def flying(*entries: Entry, begun: tuple[str, ...] = (), **options: Any) -> Flight:
    flight = Flight(**options)
    flight.add(entries, begun, time.monotonic())
    return flight


def due(flight: Flight, after: float = 0.0) -> list[str]:
    return [entry.id for entry in flight.to_begin(time.monotonic() + after)]


def ids(entries: list[Entry]) -> list[str]:
    return [entry.id for entry in entries]


def test_a_head_begins_when_its_attempt_is_noted_and_its_follower_when_it_ended() -> None:
    one, two, other = of("1-1"), of("1-2"), of("1-3", "n")
    flight = flying(one, two, other)
    assert (one.state, two.state, due(flight), flight.take()) == (State.READY, State.QUEUED, ["1-1", "1-3"], [])
    flight.grant(one)
    assert (due(flight), flight.demand, flight.busy) == (["1-3"], 9, 2)
    assert flight.take() == [one]
    assert (one.attempts, one.state, flight.running, flight.busy, due(flight)) == (1, State.RUNNING, 1, 2, ["1-3"])
    assert time.monotonic() - 5 < one.began_at <= time.monotonic()
    flight.done(one)
    assert (one.state, two.state, flight.running, due(flight)) == (State.FINISHED, State.READY, 0, ["1-3", "1-2"])
    assert (flight.finished(9), flight.ended_lanes(9)) == (["1-1"], [])


def test_one_that_redis_noted_as_begun_is_granted_at_once() -> None:
    one, two = of("1-1"), of("1-2")
    flight = flying(one, two, begun=("1-1", "1-2", "9-9"))
    assert (one.state, two.state) == (State.GRANTED, State.QUEUED)
    assert flight.take(5) == [one]  # one at a time where no batches are taken
    assert flight.take() == []


def test_what_comes_twice_is_in_flight_once() -> None:
    flight = flying(of("1-1"), of("1-2"))
    flight.add([of("1-1"), of("1-2"), of("1-3")], ["1-1"], time.monotonic())
    assert sorted(flight.entries) == ["1-1", "1-2", "1-3"]
    handled = []
    while taken := flight.take():
        handled += ids(taken)
        flight.done(*taken)
        for entry in flight.to_begin(time.monotonic()):
            flight.grant(entry)
    assert handled == ["1-1", "1-2", "1-3"]


def test_no_more_begin_than_workers_wait() -> None:
    flight = flying(*(of(f"1-{number}", f"m{number}") for number in range(5)))
    flight.hungry = 2
    assert due(flight) == ["1-0", "1-1"]
    flight.grant(flight.entries["1-0"])
    assert (flight.demand, due(flight)) == (1, ["1-1"])
    flight.stop()
    assert (flight.demand, due(flight), flight.take()) == (0, [], [])
    flight.hungry = 0
    assert flight.demand == 0


def test_demand_is_never_negative() -> None:
    flight = flying(of("1-1"), begun=("1-1",))
    flight.hungry = 0
    assert flight.demand == 0


def test_a_lane_ends_when_redis_knows_all_of_it() -> None:
    one, two = of("1-1"), of("2-1", "n")
    flight = flying(one, two, begun=("1-1", "2-1"))
    for _ in range(2):
        flight.done(*flight.take())
    assert (flight.finished(1), flight.finished(9)) == (["1-1"], ["1-1", "2-1"])
    assert (flight.ended_lanes(1), flight.ended_lanes(9)) == ([b"m"], [b"m", b"n"])  # the second end is not reported
    flight.acknowledged(["1-1", "8-8"])
    assert (flight.finished(9), list(flight.entries)) == (["2-1"], ["2-1"])
    flight.went_on([b"m", b"x"])
    assert flight.ended_lanes(9) == [b"n"]
    flight.add([of("2-2", "n")], [], time.monotonic())
    assert flight.ended_lanes(9) == []  # something of it is in flight again


def test_lanes_that_redis_has_as_this_consumer_s_end_where_nothing_of_them_is_in_flight() -> None:
    flight = flying(of("1-1"))
    flight.end_lanes([b"m", b"n"])
    assert flight.ended_lanes(9) == [b"n"]


def test_what_failed_backs_off_and_its_lane_waits() -> None:
    one, two = of("1-1"), of("1-2")
    flight = flying(one, two, begun=("1-1",))
    flight.take()
    flight.failed(one, "why")
    (failure,) = flight.failures()
    assert failure == Failure("1-1", b"m", one, "HANDLER_FAILED", "why", 1)
    assert (one.state, flight.running, due(flight)) == (State.BACKING_OFF, 0, [])
    assert flight.next_attempt_at() is None
    at = time.monotonic() + 30
    flight.settled(failure, retry_at=at)
    assert (flight.failures(), flight.next_attempt_at(), due(flight), due(flight, 31)) == ([], at, [], ["1-1"])
    flight.grant(one)
    assert flight.next_attempt_at() is None
    assert flight.take() == [one]
    assert one.attempts == 2
    flight.done(one)
    assert due(flight) == ["1-2"]


def test_the_one_that_is_due_first_begins_first() -> None:
    entries = [of(f"1-{number}", f"m{number}") for number in range(3)]
    flight = flying(*entries, begun=("1-0", "1-1", "1-2"))
    now = time.monotonic()
    for entry, delay in zip(entries, (3, 1, 2), strict=True):
        flight.take()
        flight.failed(entry, "")
        (failure,) = flight.failures()
        flight.settled(failure, retry_at=now + delay)
    assert (due(flight, 9), flight.next_attempt_at()) == (["1-1", "1-2", "1-0"], now + 1)
    flight.grant(entries[1])
    assert (due(flight, 9), flight.next_attempt_at()) == (["1-2", "1-0"], now + 2)


def test_one_that_is_given_up_lets_its_lane_go_on() -> None:
    one, two = of("1-1"), of("1-2")
    flight = flying(one, two, begun=("1-1",))
    flight.take()
    flight.failed(one, "why")
    (failure,) = flight.failures()
    flight.settled(failure)
    assert (flight.failures(), list(flight.entries), due(flight)) == ([], ["1-2"], ["1-2"])
    never = Failure("2-1", b"n", None, "UNDECODABLE", "")
    flight.give_up(never)
    assert flight.failures() == [never]
    flight.settled(never)
    assert (flight.failures(), flight.ended_lanes(9)) == ([], [b"n"])


def test_one_that_was_put_back_counts_no_attempt_and_begins_again() -> None:
    one = of("1-1")
    flight = flying(one, begun=("1-1",))
    flight.take()
    flight.put_back([one])
    assert (one.attempts, one.is_alone, one.state, due(flight), flight.running) == (0, False, State.READY, ["1-1"], 0)
    flight.put_back([one])  # it does not run
    assert one.attempts == 0
    flight.grant(one)
    flight.take()
    flight.put_back([one], alone=True)
    assert one.is_alone


def test_a_lost_one_is_neither_acknowledged_nor_begun() -> None:
    one, two, three = of("1-1"), of("1-2"), of("1-3")
    flight = flying(one, two, three, begun=("1-1",))
    flight.take()
    flight.lose(one)
    flight.lose(one)
    assert (list(flight.entries), due(flight)) == (["1-2", "1-3"], [])  # it runs still
    flight.lose(two)
    flight.done(one)
    assert (flight.finished(9), due(flight), flight.running) == ([], ["1-3"], 0)
    flight.grant(three)
    flight.take()
    flight.done(three)
    flight.lose(three)
    assert (flight.finished(9), flight.ended_lanes(9)) == ([], [b"m"])


@pytest.mark.parametrize("how", ["failed", "put back"])
def test_a_lost_one_that_does_not_succeed_lets_its_lane_go_on(how: str) -> None:
    one, two = of("1-1"), of("1-2")
    flight = flying(one, two, begun=("1-1",))
    flight.take()
    flight.lose(one)
    if how == "failed":
        flight.failed(one, "why")
    else:
        flight.put_back([one])
    assert (flight.failures(), due(flight), flight.running) == ([], ["1-2"], 0)


def test_what_failed_and_is_lost_is_no_failure() -> None:
    one = of("1-1")
    flight = flying(one, begun=("1-1",))
    flight.take()
    flight.failed(one, "why")
    (failure,) = flight.failures()
    flight.lose(one)
    assert flight.failures() == []
    flight.settled(failure, retry_at=time.monotonic())
    assert (due(flight), flight.next_attempt_at(), flight.entries) == ([], None, {})


def test_a_loop_that_goes_on_lets_the_lane_go_on_and_may_settle_later() -> None:
    one, two = of("1-1"), of("1-2")
    flight = flying(one, two, begun=("1-1",))
    flight.take()
    flight.detach(one)
    assert (one.state, flight.running, due(flight), list(flight.entries)) == (
        State.DETACHED, 0, ["1-2"], ["1-1", "1-2"],
    )  # fmt: skip
    flight.detach(two)  # it does not run
    assert two.state is State.READY
    flight.failed(one, "late")
    (failure,) = flight.failures()
    flight.settled(failure, retry_at=time.monotonic())
    assert (due(flight), flight.next_attempt_at()) == (["1-2"], None)  # it does not begin here again
    flight.done(one)
    assert (flight.finished(9), flight.running) == (["1-1"], 0)


def test_suspects_begin_one_at_a_time_beside_the_others() -> None:
    first, second, fresh = of("1-1", "a", 1), of("2-1", "b", 1), of("3-1", "c")
    flight = flying(first, second, fresh)
    assert (first.state, first.is_alone, fresh.is_alone) == (State.QUARANTINED, True, False)
    assert due(flight) == ["1-1", "3-1"]
    flight.grant(first)
    assert due(flight) == ["3-1"]
    (taken,) = flight.take()
    assert (taken, taken.attempts) == (first, 2)
    flight.failed(first, "")
    assert due(flight) == ["2-1", "3-1"]


def test_a_batch_takes_what_may_go_together() -> None:
    entries = [of("1-1", "a"), of("1-2", "a"), of("2-1", "b"), of("3-1", "c", 1), of("4-1", "d")]
    flight = Flight()
    flight.takes_batches = True
    flight.add(entries, ["1-1"], time.monotonic())
    assert due(flight) == ["3-1"]  # the others' attempts are noted when they are read
    assert ids(flight.take(3)) == ["1-1", "1-2", "2-1"]
    assert (flight.running, entries[1].state) == (3, State.RUNNING)
    assert ids(flight.take(9)) == ["4-1"]
    flight.put_back(entries[:3], alone=True)
    assert flight.take(9) == []
    assert sorted(due(flight)) == ["1-1", "2-1", "3-1"]
    flight.grant(entries[0])
    assert ids(flight.take(9)) == ["1-1"]


def test_a_follower_that_goes_alone_ends_a_batch() -> None:
    head, alone, last = of("1-1"), of("1-2"), of("1-3")
    alone.is_alone = True
    flight = Flight()
    flight.takes_batches = True
    flight.add([head, alone, last], [], time.monotonic())
    assert ids(flight.take(9)) == ["1-1"]


@pytest.mark.parametrize(("age", "begins"), [(0.7, True), (0.9, False)])
def test_nothing_begins_after_four_fifths_of_a_claim_without_its_renewal(age: float, begins: bool) -> None:
    flight = flying(of("1-1"), begun=("1-1",), claim_seconds=100.0)
    flight.confirm(time.monotonic() - age * 100)
    assert flight.is_doubtful(time.monotonic()) is not begins
    assert bool(flight.take()) is begins
    assert not Flight().is_doubtful(time.monotonic() + 1e6)  # nothing is in flight


def test_the_first_in_flight_is_claimed_when_it_was_asked_for() -> None:
    flight = Flight(100.0)
    flight.add([of("1-1")], [], 5.0)
    assert flight.confirmed_at == 5.0
    flight.add([of("1-2")], [], 9.0)
    assert flight.confirmed_at == 5.0  # of the first nothing new is known


def test_what_is_dropped_and_what_is_kept() -> None:
    states = {"queued": of("1-2"), "ready": of("2-1", "b"), "granted": of("3-1", "c"), "suspect": of("4-1", "d", 2)}
    running, backing_off, finished = of("1-1"), of("5-1", "e"), of("6-1", "f")
    flight = flying(running, backing_off, finished, begun=("1-1", "5-1", "6-1"))
    for _ in range(3):
        flight.take()
    flight.failed(backing_off, "")
    flight.done(finished)
    flight.acknowledged([])
    flight.give_up(Failure("7-1", b"g", None, "UNDECODABLE", ""))
    flight.skip("8-1", b"h")
    flight.add(states.values(), ["3-1"], time.monotonic())
    assert flight.release() == {
        "1-1": 1, "5-1": 1, "1-2": 0, "2-1": 0, "3-1": 0, "4-1": 2,
    }  # fmt: skip
    assert flight.drop() == {
        "1-1": "", "5-1": "", "6-1": "", "7-1": "", "8-1": "", "1-2": 0, "2-1": 0, "3-1": 0, "4-1": 2,
    }  # fmt: skip
    assert sorted(flight.entries) == ["1-1", "5-1", "6-1"]
    assert (due(flight), flight.take(), flight.busy) == ([], [], 1)


def test_one_for_another_group_is_acknowledged_unseen() -> None:
    flight = Flight()
    flight.skip("1-1", b"m")
    assert (flight.finished(9), flight.ended_lanes(9), flight.take()) == (["1-1"], [b"m"], [])


def test_the_first_change_wakes_a_loop_that_has_not_looked_yet() -> None:
    flight = Flight()
    flight.take()
    assert flight.woken == 1


@pytest.mark.parametrize(
    "end",
    [
        lambda flight, entry: flight.done(entry),
        lambda flight, entry: flight.failed(entry, "why"),
        lambda flight, entry: flight.put_back([entry]),
        lambda flight, entry: flight.detach(entry),
    ],
    ids=["done", "failed", "put back", "detached"],
)
def test_every_end_of_a_handling_wakes_the_loop(end: Callable[[Flight, Entry], None]) -> None:
    one = of("1-1")
    flight = flying(one, begun=("1-1",))
    flight.take()
    flight.looked()
    flight.woken = 0
    end(flight, one)
    assert flight.woken == 1


def test_the_loop_is_woken_once_until_it_looks() -> None:
    one, two = of("1-1"), of("2-1", "n")
    flight = flying(one, two, begun=("1-1", "2-1"))
    flight.take()
    flight.take()
    flight.looked()
    flight.woken = 0
    flight.done(one, report=False)
    assert flight.woken == 0
    flight.failed(two, "")
    assert flight.woken == 1
    flight.take()
    assert flight.woken == 1
    flight.looked()
    flight.take()  # in vain: there may be more to begin
    assert flight.woken == 2


@pytest.mark.parametrize("change", ["confirm", "stop", "end"])
def test_workers_hear_of_it(change: str) -> None:
    flight = Flight()
    flight.readied = 0
    flight.confirm(1.0) if change == "confirm" else getattr(flight, change)()
    assert flight.readied == 1
    assert (flight.stopping, flight.ended) == (change != "confirm", change == "end")
