"""The names of dead consumers: which groups are looked at, after how long, and that a fault ends nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, cast

import pytest

from sidecar.errors import SetupFault, Unavailable
from sidecar.operations import groups
from sidecar.operations.groups import Groups
from tests.harness.waiting import auntil

DAY = 86_400.0


class Store:
    """Two groups, and the faults that come first."""

    def __init__(self, *faults: Exception) -> None:
        self.faults = list(faults)
        self.asked: list[tuple[str, float]] = []

    async def names(self) -> Sequence[str]:
        if self.faults:
            raise self.faults.pop(0)
        return ["a", "b"]

    async def forget_consumers(self, group: str, idle_seconds: float) -> int:
        self.asked.append((group, idle_seconds))
        return 1


async def test_after_a_day_names_go_in_every_group() -> None:
    store = Store()
    assert await Groups(cast("Any", None), cast("Any", store)).forget_consumers() == 2
    assert store.asked == [("a", DAY), ("b", DAY)]


async def test_it_goes_on_after_every_fault_and_reports_a_missing_right_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(groups, "_PERIOD_SECONDS", 0.001)
    no_right = SetupFault("the Redis user lacks a right")
    store = Store(no_right, Unavailable("Redis is away"), no_right)
    task = asyncio.create_task(Groups(cast("Any", None), cast("Any", store)).run())
    await auntil(lambda: len(store.asked) >= 4, 10, "it looks again and again")
    task.cancel()
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == ["the names of dead consumers stay: the Redis user lacks a right"]
