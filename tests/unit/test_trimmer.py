"""Which group keeps the stream from being trimmed."""

from __future__ import annotations

import time

from sidecar.operations.interfaces import GroupState
from sidecar.operations.trimmer import held_back


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
