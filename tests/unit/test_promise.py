"""What the status promises is what a caller of Publish gets."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sidecar.publishing.interfaces import GroupState
from sidecar.publishing.promise import promise
from sidecar.publishing.readiness import State
from sidecar.publishing.trimmer import held_back

UP = State(redis_up=True, accepting=True, problem="")
AWAY = State(redis_up=False, accepting=True, problem="no connection; events are spooled")
LOCKED_OUT = State(redis_up=False, accepting=False, problem="Redis refused the credentials", spooling=True)
REFUSING = State(redis_up=False, accepting=False, problem="no right to XADD")


@pytest.mark.parametrize(
    ("state", "others", "summary", "spooling"),
    [
        (UP, {}, "acknowledged by the Redis primary", False),
        (UP, {"durability": "primary"}, "acknowledged by the Redis primary", False),
        (UP, {"durability": "replicated"}, "acknowledged by the Redis primary and 2 of its replicas", False),
        (UP, {"spooled": 5}, "acknowledged by this task's disk: 5 events are on their way from the spool", True),
        (UP, {"full": True}, "acknowledged by this task's disk: the queue is full", True),
        (UP, {"full": True, "durability": "primary"}, "not acknowledged for now: the queue is full", True),
        (AWAY, {}, "acknowledged by this task's disk: no connection; events are spooled", True),
        (AWAY, {"durability": "replicated"}, "not acknowledged for now: no connection; events are spooled", True),
        (LOCKED_OUT, {}, "acknowledged by this task's disk: Redis refused the credentials", True),
        (REFUSING, {"spooled": 5}, "refused: no right to XADD", False),
    ],
)
def test_the_promise(state: State, others: dict[str, Any], summary: str, spooling: bool) -> None:
    known: dict[str, Any] = {"full": False, "spooled": 0, "pending": 3, "durability": "spooled", "replicas": 2}
    found = promise(state, **known | others)
    assert (found.summary, found.spooling) == (summary, spooling)
    assert (found.accepting, found.pending) == (state is not REFUSING, 3)


def test_the_group_with_the_oldest_entry_past_the_retention_holds_back() -> None:
    now = time.time_ns() // 1_000_000

    def group(name: str, age: float | None) -> GroupState:
        oldest = None if age is None else now - int(age * 1000)
        return GroupState(name, 1, 0, 0, oldest, 1, None)

    groups = [group("done", None), group("quick", 10), group("slow", 70), group("gone", 80)]
    late = held_back(groups, 60)
    assert late is not None
    assert late.name == "gone"
    assert held_back(groups[:2], 60) is None
    assert held_back(groups, 0) is None
