"""How many entries stand behind an id, in a stream that is a list of numbers."""

from __future__ import annotations

import random
from typing import NamedTuple

import pytest

from sidecar.publishing.entry_ids import LAST
from sidecar.redisstream import stream_positions
from sidecar.redisstream.stream_positions import Gap, Positions, Snapshot

PAGE = 5


class Stream:
    """Its ids, and what Redis knows of it; `counts`: Redis 6.2 does not count."""

    def __init__(self, *, counts: bool = True) -> None:
        self.counts = counts
        self.delete()

    def delete(self) -> None:
        self.ids: list[int] = []
        self.appended = self.deleted = self.last = 0

    def add(self, count: int, step: int = 1) -> None:
        for _ in range(count):
            self.last += step
            self.ids.append(self.last)
        self.appended += count

    def remove(self, entry: int) -> None:
        self.ids.remove(entry)
        self.deleted = max(self.deleted, entry)

    def trim(self, length: int) -> None:
        self.ids = self.ids[len(self.ids) - length :]

    def snapshot(self) -> Snapshot:
        first = self.ids[0] if self.ids else self.last + 1
        counted = (self.appended, self.deleted) if self.counts else (len(self.ids), LAST)
        return Snapshot(len(self.ids), first, self.last, *counted)


class Counted(NamedTuple):
    """The answer, and how many entries were counted for it."""

    behind: int
    entries: int


def counted(stream: Stream, positions: Positions, entry: int) -> Counted:
    """As EntryCounter does it, in pages of five."""
    entries = 0
    for _ in range(2000):
        gap = positions.gap(entry)
        if gap is None:
            return Counted(positions.behind(entry), entries)
        if gap.backward:
            between = [one for one in reversed(stream.ids) if entry < one <= gap.known]
        else:
            between = [one for one in stream.ids if gap.known < one <= entry]
        page = between[:PAGE]
        entries += len(page)
        positions.learn(gap, len(page), page[-1] if len(page) == PAGE else entry)
    raise AssertionError("it does not end")


def behind(stream: Stream, entry: int) -> int:
    return sum(one > entry for one in stream.ids)


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_it_is_exact_whatever_is_done_to_the_stream(seed: int, counts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sidecars: one looks after each change, the other now and then, or goes on from the first."""
    monkeypatch.setattr(stream_positions, "_MAX_KNOWN", 12)
    chance, stream = random.Random(seed), Stream(counts=counts)
    often, rarely = Positions(), Positions()
    for _ in range(120):
        match chance.choice(["add", "add", "add", "trim", "remove", "remove", "delete", "load"]):
            case "add":
                stream.add(chance.randint(1, 60), chance.choice([1, 900]))
            case "trim":
                stream.trim(len(stream.ids) * chance.randint(0, 100) // 100)
            case "remove" if counts and stream.ids:
                for entry in chance.sample(stream.ids, min(len(stream.ids), 3)):
                    stream.remove(entry)
            case "delete" if chance.random() < 0.2:
                stream.delete()
            case "load":
                rarely.load(often.snapshot, often.known())
        for positions in (often, rarely) if chance.random() < 0.3 else (often,):
            positions.observe(stream.snapshot())
            for _ in range(4):
                entry = chance.choice(stream.ids) if stream.ids and chance.random() < 0.8 else stream.last + 1
                entry += chance.choice([-1, 0, 0, 1])
                assert counted(stream, positions, entry).behind == behind(stream, entry)


def test_what_is_known_is_not_counted_again_while_entries_come_and_go_before_it() -> None:
    stream, positions = Stream(), Positions()
    stream.add(1000)
    positions.observe(stream.snapshot())
    assert counted(stream, positions, 500) == (500, 499)
    assert counted(stream, positions, 500) == (500, 0)
    positions.observe(stream.snapshot())  # nothing went while it was counted
    stream.add(1000)
    stream.trim(1800)
    positions.observe(stream.snapshot())
    assert counted(stream, positions, 500) == (1500, 0)
    assert counted(stream, positions, 510) == (1490, 10)  # from the nearest one that is known
    assert counted(stream, positions, 495) == (1505, 1)
    positions.observe(stream.snapshot())
    assert positions.cost(498) == 2
    assert positions.cost(500) == 0
    stream.remove(505)  # behind 500: what is before it is counted again
    positions.observe(stream.snapshot())
    assert counted(stream, positions, 510) == (1490, 0)
    assert counted(stream, positions, 500).entries > 0


def test_after_six_hours_all_is_counted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, seconds in ((Stream(), 6 * 3600), (Stream(counts=False), 600)):
        positions = Positions()
        stream.add(100)
        positions.observe(stream.snapshot())
        counted(stream, positions, 50)
        positions._since -= seconds - 60
        positions.observe(stream.snapshot())
        assert positions.gap(50) is None
        positions._since -= 61
        positions.observe(stream.snapshot())
        assert positions.gap(50) is not None
        counted(stream, positions, 50)
        positions.observe(stream.snapshot())
        assert positions.gap(50) is None


def test_without_counting_it_takes_the_group_s_lag_if_that_can_be_and_else_goes_by_time() -> None:
    stream, positions = Stream(), Positions()
    assert positions.behind(7) == 0
    stream.add(101, 10)
    positions.observe(stream.snapshot())
    assert [positions.behind(entry) for entry in (5, 1010, 2000)] == [101, 0, 0]
    assert [positions.behind(510, lag) for lag in (None, 30, 101)] == [50, 30, 50]
    assert [positions.behind(510, lag) for lag in (0, 100)] == [0, 100]
    assert positions.gap(510) in (Gap(10, 510), Gap(1010, 510))
    assert positions.gap(310) == Gap(10, 310)
    assert positions.gap(710) == Gap(1010, 710)


def test_what_another_knew_is_taken_over_unless_it_is_older() -> None:
    stream, first, second = Stream(), Positions(), Positions()
    stream.add(100)
    first.observe(stream.snapshot())
    counted(stream, first, 50)
    second.load(first.snapshot, first.known())
    assert second.known() == first.known()
    stream.add(1)
    second.observe(stream.snapshot())
    second.load(first.snapshot, [])
    assert counted(stream, second, 50) == (51, 0)
    older = second.snapshot._replace(last=5)
    second.load(older, [])
    assert second.snapshot == stream.snapshot()
    second.load(second.snapshot, [])  # of the same moment: it has counted the same or more
    assert second.known() == []


def test_what_is_taken_over_is_kept_for_six_hours_from_then_on() -> None:
    stream, positions = Stream(), Positions()
    stream.add(100)
    positions._since -= 7 * 3600
    positions.load(stream.snapshot(), [(1, 1, 1), (50, 50, 50), (100, 100, 100)])
    positions.observe(stream.snapshot())
    assert positions.gap(50) is None


def test_of_more_than_two_thousand_every_other_one_is_forgotten() -> None:
    stream, positions = Stream(), Positions()
    stream.add(5000)
    for count, kept in ((2000, 2001), (2001, 1002)):  # and the last one
        positions.load(stream.snapshot(), [(number, number, number) for number in range(1, count + 1)])
        positions.observe(stream.snapshot())
        assert len(positions.known()) == kept
