"""Whatever happens to what a consumer has in flight, no lane gets stuck and a model stays in order."""

from __future__ import annotations

import random
import time
from collections import defaultdict

import pytest

from modelready._consumer.in_flight import Entry, InFlight, State
from modelready.v1.event_pb2 import ModelReadyToDeploy

LANES = (b"a", b"b", b"c")


class Trial:
    """A loop and workers that do what a die says; the lanes' other half, in Redis, is a list."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.flight = InFlight(60.0, lambda: None, lambda: None)
        self.flight.confirm(time.monotonic())
        self.flight.takes_batches = seed % 2 == 1
        self.next_id = 1
        self.begun: dict[bytes, list[int]] = defaultdict(list)
        self.repeated: set[int] = set()
        self.open: dict[int, Entry] = {}

    def step(self) -> None:
        self.flight.hungry = 3
        self.random.choice([self.add, self.work, self.work, self.tend, self.lose])()

    def add(self) -> None:
        for _ in range(self.random.randrange(1, 6)):
            attempts = self.random.choice([0, 0, 0, 1])
            entry = Entry(f"1000-{self.next_id}", self.random.choice(LANES), ModelReadyToDeploy(), attempts)
            self.open[self.next_id] = entry
            self.next_id += 1
            begun = [entry.id] if not attempts and self.random.random() < 0.3 else []
            self.flight.add([entry], begun, time.monotonic())

    def work(self) -> None:
        taken = self.flight.take(self.random.choice([1, 3, 10]))
        if not taken:
            return
        assert len(taken) == 1 or (self.flight.takes_batches and not any(entry.is_alone for entry in taken))
        for entry in taken:
            self.begun[entry.lane].append(number(entry))
        what = self.random.random()
        if what < 0.6:
            self.flight.done(*taken)
            return
        self.repeated.update(number(entry) for entry in taken)
        if what < 0.8 and len(taken) == 1:
            self.flight.failed(taken[0], "it failed")
        else:
            self.flight.put_back(taken, alone=True)

    def tend(self) -> None:
        handled = self.flight.finished(100)
        self.flight.acknowledged(handled)
        for entry_id in handled:
            self.open.pop(int(entry_id.partition("-")[2]), None)
        ended = self.flight.ended_lanes(100)
        assert not {entry.lane for entry in self.flight.entries.values()} & set(ended)
        self.flight.went_on(ended)
        for failure in self.flight.failures():
            final = self.random.random() < 0.3
            self.flight.settled(failure, retry_at=None if final else time.monotonic())
            if final:
                self.open.pop(int(failure.entry_id.partition("-")[2]), None)
        for entry in self.flight.to_begin(time.monotonic()):
            self.flight.grant(entry)

    def lose(self) -> None:
        if self.flight.entries and self.random.random() < 0.3:
            entry = self.random.choice(list(self.flight.entries.values()))
            self.flight.lose(entry)
            self.repeated.add(number(entry))
            self.open.pop(number(entry), None)


def number(entry: Entry) -> int:
    return int(entry.id.partition("-")[2])


@pytest.mark.parametrize("seed", range(200))
def test_nothing_is_stuck_and_a_model_stays_in_order(seed: int) -> None:
    trial = Trial(seed)
    for _ in range(60):
        trial.step()
    for _ in range(10 * trial.next_id + 100):
        trial.tend()
        trial.work()
        if not trial.flight.entries:
            break
    trial.tend()
    flight = trial.flight
    assert not {entry.id: entry.state for entry in flight.entries.values()}
    assert (flight.running, flight.busy, flight.finished(10), flight.failures()) == (0, 0, [], [])
    assert not trial.open
    assert not flight._lanes
    for numbers in trial.begun.values():
        smooth = [each for each in numbers if each not in trial.repeated]
        assert smooth == sorted(set(smooth))


def test_what_is_dropped_was_not_begun_and_what_is_known_says_how_often() -> None:
    flight = InFlight(60.0, lambda: None, lambda: None)
    flight.hungry = 1
    entries = [Entry(f"1-{each}", b"m", ModelReadyToDeploy()) for each in range(3)]
    flight.add(entries, ["1-0"], time.monotonic())
    (running,) = flight.take()
    assert running.state is State.RUNNING
    assert flight.drop() == {"1-0": "", "1-1": 0, "1-2": 0}
    flight.done(running)
    assert flight.finished(9) == ["1-0"]
    assert flight.ended_lanes(9) == [b"m"]


def test_nothing_begins_while_the_claim_is_in_doubt() -> None:
    flight = InFlight(1.0, lambda: None, lambda: None)
    flight.hungry = 1
    flight.add([Entry("1-1", b"m", ModelReadyToDeploy())], ["1-1"], time.monotonic() - 0.9)
    assert not flight.take()
    flight.confirm(time.monotonic())
    assert flight.take()


def test_of_those_that_were_begun_elsewhere_one_at_a_time_begins() -> None:
    flight = InFlight(60.0, lambda: None, lambda: None)
    flight.hungry = 5
    flight.add([Entry(f"1-{each}", b"m%d" % each, ModelReadyToDeploy(), 1) for each in range(3)], [], time.monotonic())
    (first,) = flight.to_begin(time.monotonic())
    flight.grant(first)
    assert not flight.to_begin(time.monotonic())
    flight.done(*flight.take())
    assert len(flight.to_begin(time.monotonic())) == 1


def test_one_that_was_begun_elsewhere_and_hangs_holds_the_others_up_for_one_claim() -> None:
    flight = InFlight(60.0, lambda: None, lambda: None)
    flight.hungry = 2
    flight.add([Entry(f"1-{each}", b"m%d" % each, ModelReadyToDeploy(), 1) for each in range(3)], [], time.monotonic())
    (hanging,) = flight.to_begin(time.monotonic())
    flight.grant(hanging)
    flight.take()
    later = flight.next_attempt_at()
    assert later is not None
    assert 50 < later - time.monotonic() <= 60
    assert not flight.to_begin(later - 1)
    assert [entry.id for entry in flight.to_begin(later)] == ["1-1"]


def test_what_was_acknowledged_before_its_handler_raised_is_done() -> None:
    """Whichever of the two Redis learns first: it is not begun again, and holds up nobody."""
    flight = InFlight(60.0, lambda: None, lambda: None)
    flight.hungry = 1
    flight.add([Entry("1-0", b"m", ModelReadyToDeploy()), Entry("1-1", b"n", ModelReadyToDeploy())], ["1-0"], 0.0)
    flight.confirm(time.monotonic())
    (first,) = flight.take()
    flight.done(first)
    flight.failed(first, "it raised afterwards")
    assert not flight.failures()
    flight.grant(*flight.to_begin(time.monotonic()))
    (second,) = flight.take()
    flight.failed(second, "it raised, and is settled all the same")
    (failure,) = flight.failures()
    flight.done(second)
    assert not flight.failures()
    flight.settled(failure, retry_at=time.monotonic())
    assert not flight.to_begin(time.monotonic())
    assert flight.finished(9) == ["1-0", "1-1"]


def test_a_batch_that_was_handled_is_reported_before_the_next_begins() -> None:
    reports: list[int] = []
    flight = InFlight(60.0, lambda: reports.append(1), lambda: None)
    flight.takes_batches = True
    flight.add([Entry(f"1-{each}", b"m%d" % each, ModelReadyToDeploy()) for each in range(4)], [], time.monotonic())
    handled = flight.take(2)
    flight.looked()
    reports.clear()
    flight.done(*handled, report=False)
    assert len(flight.take(2)) == 2
    assert reports
