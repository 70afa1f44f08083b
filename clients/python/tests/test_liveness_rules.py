"""What a sweep and a leave ask of Redis, against lanes that answer what the test says. Without a server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from modelready._consumer import liveness as liveness_module
from modelready._consumer.in_flight import InFlight
from modelready._consumer.liveness import Liveness
from modelready._consumer.options import checked_options
from modelready.keys import REPLAY_CONSUMER, WAITING_CONSUMER

CLAIM = 6.0
REPLAY, WAITING = REPLAY_CONSUMER.encode(), WAITING_CONSUMER.encode()


class FakeLanes:
    """It notes what is asked, and gives one page after the other."""

    def __init__(self, *pages: tuple[str, int]) -> None:
        self._pages = list(pages)
        self.asked: list[Any] = []
        self.mine: list[bytes] = []

    async def keep(self, ids: Sequence[str]) -> list[bool]:
        self.asked.append(("keep", ids))
        return [True] * len(ids)

    async def release(self, name: bytes, *, after: str = "-", idle_seconds: float = 0.0) -> tuple[str, int]:
        self.asked.append((name, after, idle_seconds))
        return self._pages.pop(0)

    async def forget(self, name: bytes | str) -> bool:
        self.asked.append(("forget", name))
        return True

    async def release_own(self, known: Mapping[str, int | str], *, lives: bool) -> None:
        self.asked.append(("release own", known, lives))

    async def tidy(self, *, leaving: bool = False) -> list[bytes]:
        self.asked.append(("tidy", leaving))
        return self.mine


class FakePool:
    """It gives one reply after the other."""

    def __init__(self, *replies: Any) -> None:
        self._replies = list(replies)
        self.commands: list[tuple[Any, ...]] = []

    async def call(self, *commands: tuple[Any, ...]) -> Any:
        self.commands += commands
        return self._replies.pop(0)


def living(lanes: FakeLanes, pool: FakePool | None = None, claim: float = CLAIM) -> Liveness:
    stubs: dict[str, Any] = {"pool": pool, "lanes": lanes}
    flight = InFlight(CLAIM, lambda: None, lambda: None)
    options = checked_options(group="deployer", consumer_name="one", claim_seconds=claim)
    return Liveness(**stubs, in_flight=flight, options=options)


def peer(pending: int, idle: int = 0) -> dict[str, int]:
    return {"pending": pending, "idle": idle}


def row(name: bytes, pending: int = 0, idle: int = 0) -> list[Any]:
    return [b"name", name, b"pending", pending, b"idle", idle]


@pytest.mark.parametrize(("claim", "pause"), [(6.0, 1.0), (360.0, 60.0), (36_000.0, 60.0)])
def test_claims_are_renewed_six_times_a_claim_and_once_a_minute_at_least(claim: float, pause: float) -> None:
    liveness, before = living(FakeLanes(), claim=claim), time.monotonic()
    asyncio.run(liveness.renew())
    assert before + pause <= liveness.renew_at <= time.monotonic() + pause


@pytest.mark.parametrize(("idle", "is_forgotten"), [(59_999, False), (60_000, True)])
def test_a_name_without_entries_goes_after_ten_claims(idle: int, is_forgotten: bool) -> None:
    lanes = FakeLanes()
    assert asyncio.run(living(lanes)._release_dead(b"dead", peer(0, idle), 0)) == (0, False)
    assert lanes.asked == [("forget", b"dead")] * is_forgotten


@pytest.mark.parametrize(
    ("count", "waiting", "is_left"), [(1001, 10_001, True), (1001, 10_000, False), (1000, 10_001, False)]
)
def test_one_that_has_many_is_left_while_many_wait(count: int, waiting: int, is_left: bool) -> None:
    lanes = FakeLanes(("", 7))
    found = asyncio.run(living(lanes)._release_dead(b"dead", peer(count), waiting))
    assert found == ((0, False) if is_left else (7, False))
    assert lanes.asked == ([] if is_left else [(b"dead", "-", CLAIM), ("forget", b"dead")])


def test_a_dead_one_is_read_page_by_page_until_nothing_is_old_enough_and_the_next_sweep_goes_on() -> None:
    lanes = FakeLanes(("(5-0", 100), ("(9-0", 0), ("", 0), ("", 1))
    liveness = living(lanes)
    assert asyncio.run(liveness._release_dead(b"dead", peer(300), 0)) == (100, False)
    assert lanes.asked == [(b"dead", "-", CLAIM), (b"dead", "(5-0", CLAIM)]
    assert asyncio.run(liveness._release_dead(b"dead", peer(300), 0)) == (0, False)
    assert lanes.asked[2:] == [(b"dead", "(9-0", CLAIM)]  # it keeps what is too young, and its name
    assert asyncio.run(liveness._release_dead(b"dead", peer(300), 0)) == (1, False)
    assert lanes.asked[3:] == [(b"dead", "-", CLAIM), ("forget", b"dead")]


@pytest.mark.parametrize(
    ("peers", "waiting", "pages", "asked", "found"),
    [
        ({}, 0, [], [], (0, False)),
        ({REPLAY: peer(3)}, 10_000, [("", 3)], [(REPLAY, "-", CLAIM)], (3, False)),
        ({REPLAY: peer(300)}, 0, [("(5-0", 100)], [(REPLAY, "-", CLAIM)], (100, True)),
        ({REPLAY: peer(300)}, 0, [("(5-0", 0)], [(REPLAY, "-", CLAIM)], (0, False)),
        ({REPLAY: peer(3)}, 10_001, [], [], (0, False)),
        ({WAITING: peer(5)}, 5, [], [], (0, False)),
        ({WAITING: peer(6)}, 5, [("", 1)], [(WAITING, "-", 0.0)], (1, False)),
        ({WAITING: peer(6)}, 5, [("(5-0", 0)], [(WAITING, "-", 0.0)], (0, True)),
        (
            {REPLAY: peer(3), WAITING: peer(1)}, 0, [("(4-0", 3), ("", 1)],
            [(REPLAY, "-", CLAIM), (WAITING, "-", 0.0)], (4, True),
        ),
    ],
)  # fmt: skip
def test_what_was_replayed_and_what_is_in_no_lane_is_put_into_one(
    peers: dict[bytes, Any], waiting: int, pages: list[tuple[str, int]], asked: list[Any], found: tuple[int, bool]
) -> None:
    lanes = FakeLanes(*pages)
    assert asyncio.run(living(lanes)._release_special(peers, waiting)) == found
    assert lanes.asked == asked


def test_the_look_for_what_is_in_no_lane_goes_on_where_it_was() -> None:
    lanes = FakeLanes(("(5-0", 1), ("", 1), ("", 0))
    liveness = living(lanes)
    for _ in range(3):
        asyncio.run(liveness._release_special({WAITING: peer(9)}, 0))
    assert [after for _, after, _ in lanes.asked] == ["-", "(5-0", "-"]


def test_who_is_dead_is_asked_for_all_but_two_names_and_places_of_those_that_went_are_forgotten() -> None:
    pool = FakePool([1, 0], [0], [0], [])
    liveness = living(FakeLanes(), pool)
    liveness._positions = {b"a": "(1-0", b"gone": "(2-0"}
    peers: dict[bytes, Any] = {b"a": peer(1), REPLAY: peer(1), b"b": peer(1), WAITING: peer(1)}
    assert asyncio.run(liveness._dead(peers, 100.0)) == []
    assert [(word, key.rpartition(b":")[2]) for word, key in pool.commands] == [("EXISTS", b"a"), ("EXISTS", b"b")]
    assert liveness._positions == {b"a": "(1-0"}
    assert liveness._missing_since == {b"b": 100.0}
    del peers[b"a"]
    assert asyncio.run(liveness._dead(peers, 100.0 + CLAIM / 2 - 0.1)) == []
    assert asyncio.run(liveness._dead(peers, 100.0 + CLAIM / 2)) == [b"b"]
    del peers[b"b"]
    assert asyncio.run(liveness._dead(peers, 200.0)) == []
    assert len(pool.commands) == 4  # nobody is there to be asked for


@pytest.mark.parametrize(("following", "pause"), [("", 1.0), ("(5-0", 0.1)])
def test_the_next_sweep_is_soon_where_there_is_more(
    monkeypatch: pytest.MonkeyPatch, following: str, pause: float
) -> None:
    spreads: list[tuple[float, float]] = []

    def spread(least: float, most: float) -> float:
        spreads.append((least, most))
        return 0.5

    monkeypatch.setattr(liveness_module, "random", SimpleNamespace(uniform=spread))
    lanes = FakeLanes((following, 4))
    pool = FakePool([[row(REPLAY, 4), row(b"one", 2)], 0])
    liveness = living(lanes, pool)
    before = time.monotonic()
    asyncio.run(liveness.sweep())
    assert before + pause / 2 <= liveness.sweep_at <= time.monotonic() + pause / 2
    assert spreads == [(0.8, 1.2)]


def test_lanes_are_tidied_after_a_take_over_and_every_half_claim() -> None:
    pool = FakePool(*[[[], 0]] * 3, [[row(REPLAY, 1)], 0])
    lanes = FakeLanes(("", 1))
    lanes.mine = [b"m"]
    liveness = living(lanes, pool)
    for _ in range(2):
        asyncio.run(liveness.sweep())
    assert lanes.asked == [("tidy", False)]
    assert liveness._in_flight.ended_lanes(9) == [b"m"]
    liveness._tidied_at -= CLAIM / 2
    asyncio.run(liveness.sweep())
    assert lanes.asked == [("tidy", False)] * 2
    asyncio.run(liveness.sweep())
    assert lanes.asked[2:] == [(REPLAY, "-", CLAIM), ("tidy", False)]


def test_a_leave_gives_back_what_is_known_then_its_lanes_then_its_name() -> None:
    """`lives`: what a lost reply gave it was never begun."""
    lanes = FakeLanes()
    asyncio.run(living(lanes).leave({"1-1": 1}))
    assert lanes.asked == [("release own", {"1-1": 1}, True), ("tidy", True), ("forget", "one")]
