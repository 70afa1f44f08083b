"""Whatever happens to what a consumer has in hand, no lane gets stuck and a model stays in order."""

from __future__ import annotations

import random
import time
from collections import defaultdict

import pytest

from modelready._hand import Entry, Hand, State, order
from modelready.v1.event_pb2 import ModelReadyToDeploy

MODELS = "abc"


class Trial:
    """A core and workers that do what a die says."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.hand = Hand(60.0, lambda: None, lambda: None)
        self.next_id = 1
        self.handled: dict[str, list[str]] = defaultdict(list)
        self.failed: set[str] = set()
        self.added: set[str] = set()
        self.gone: set[str] = set()

    def step(self) -> None:
        work, tend = [self.work] * 3, [self.tend] * 2
        self.random.choice([self.add, self.take_over, *work, *tend, self.lose])()

    def entry(self, number: int, *, suspect: bool) -> Entry:
        event = ModelReadyToDeploy(event_id=f"{number}")
        event.model.name = self.random.choice(MODELS)
        entry = Entry(f"1000-{number}", event)
        if suspect:
            entry.suspect(1)
        if self.random.random() < 0.2:
            entry.ahead = ["999-1"]
        self.added.add(entry.id)
        return entry

    def add(self) -> None:
        count = self.random.randrange(1, 6)
        self.hand.add([self.entry(self.next_id + each, suspect=False) for each in range(count)], time.monotonic())
        self.next_id += count + self.random.randrange(3)

    def take_over(self) -> None:
        """Numbers between those that this consumer was given."""
        number = self.random.randrange(1, self.next_id + 1)
        if f"1000-{number}" not in self.added:
            self.failed.add(f"1000-{number}")
            self.hand.add([self.entry(number, suspect=True)], time.monotonic())
            self.next_id = max(self.next_id, number + 1)

    def work(self) -> None:
        taken = self.hand.take(self.random.choice([1, 3, 10]))
        if not taken:
            return
        assert len(taken) == 1 or not any(entry.alone for entry in taken)
        if self.random.random() < 0.5:
            for entry in self.hand.each(taken):
                if self.random.random() < 0.2:
                    entry.trouble = "it failed"
                    self.failed.add(entry.id)
                else:
                    self.note(entry)
                    self.hand.finished.append(entry)
                self.lose()  # while it runs, too
                if self.random.random() < 0.1:
                    break
        elif self.random.random() < 0.3:
            self.hand.begin(taken)
            if len(taken) == 1:
                self.failed.add(taken[0].id)
                self.hand.failed(taken[0], "it failed")
            else:
                self.hand.scatter(taken)
        else:
            self.hand.begin(taken)
            for entry in taken:
                self.note(entry)
            self.hand.done(*taken)

    def note(self, entry: Entry) -> None:
        self.handled[entry.model].append(entry.id)

    def tend(self) -> None:
        handled = self.hand.handled()
        self.hand.acknowledged(handled)
        self.gone.update(handled)
        for failure in self.hand.failures():
            if self.random.random() < 0.3:
                self.hand.carried(failure)
                self.gone.add(failure.entry_id)
            else:
                self.hand.carried(failure, rest_until=time.monotonic())
        for entry in self.hand.to_allow(time.monotonic()):
            self.hand.allow(entry)
        for entry in list(self.hand.stalled):
            entry.ahead = []
            self.hand.unstall(entry)

    def lose(self) -> None:
        if self.hand.entries and self.random.random() < 0.3:
            entry = self.random.choice(list(self.hand.entries.values()))
            self.hand.lose(entry)
            self.gone.add(entry.id)
            self.failed.add(entry.id)

    def finish(self) -> None:
        for _ in range(10 * len(self.added) + 100):
            self.tend()
            self.work()
            if not self.hand.entries:
                return


@pytest.mark.parametrize("seed", range(300))
def test_nothing_is_stuck_and_a_model_stays_in_order(seed: int) -> None:
    trial = Trial(seed)
    for _ in range(60):
        trial.step()
    trial.finish()
    hand = trial.hand
    stuck = {entry.id: entry.state for entry in hand.entries.values()}
    assert not stuck
    assert trial.gone == trial.added
    assert (hand.running, hand.busy, hand.handled(), hand.failures()) == (0, 0, [], [])
    assert not hand._heads
    assert not any(hand._behind.values())
    assert State.RUNNING not in {entry.state for entry in hand.entries.values()}
    for ids in trial.handled.values():
        smooth = [order(each) for each in ids if each not in trial.failed]
        assert smooth == sorted(smooth)
        assert len(smooth) == len(set(smooth))
