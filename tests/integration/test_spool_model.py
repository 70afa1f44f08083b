"""Whatever is called in whatever order, the spool on disk does what the one in memory does."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sidecar.errors import SpoolFull
from sidecar.publishing.interfaces import Attempts, Spooled
from sidecar.spool.spool import SqliteSpool
from tests.fakes.events import event
from tests.fakes.memory_spool import MemorySpool
from tests.integration.spool_on_disk import copy_of_killed


class SpoolMachine(RuleBasedStateMachine):
    """Whatever is called in whatever order, with restarts and kills between: the same as the one in memory."""

    MAX_BYTES = 6000

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = Path("/dev/shm" if Path("/dev/shm").is_dir() else "/tmp", f"spool-{os.getpid()}-{id(self)}")
        self.model = MemorySpool(max_bytes=self.MAX_BYTES)
        self.open()

    def open(self) -> None:
        self.spool = self.runner.run(SqliteSpool.open(self.directory, max_bytes=self.MAX_BYTES))

    def teardown(self) -> None:
        self.runner.run(self.spool.close())
        self.runner.close()
        shutil.rmtree(self.directory)

    def both(self, call: Callable[[Any, list[int]], Any], positions: list[int]) -> tuple[Any, Any]:
        """Do the same to both; `positions` are those of events, whose numbers differ."""
        results = []
        for spool in (self.model, self.spool):
            rows = self.runner.run(spool.advance([], 1000))
            try:
                results.append(self.runner.run(call(spool, [rows[p].seq for p in positions if p < len(rows)])))
            except SpoolFull:
                results.append("full")
        return results[0], results[1]

    @rule(
        chosen=st.lists(st.tuples(st.integers(0, 30), st.sampled_from([0, 10, 700])), max_size=6),
        attempts=st.sampled_from([Attempts(), Attempts(1, 5, 9)]),
    )
    def put(self, chosen: list[tuple[int, int]], attempts: Attempts) -> None:
        model, real = self.both(lambda s, _: s.put([event(n, size) for n, size in chosen], attempts), [])
        assert model == real

    @rule(
        positions=st.lists(st.integers(0, 20), max_size=8),
        limit=st.integers(0, 12),
        attempt_ms=st.none() | st.integers(1, 99),
    )
    def advance(self, positions: list[int], limit: int, attempt_ms: int | None) -> None:
        model, real = self.both(lambda s, seqs: s.advance(seqs, limit, attempt_ms), positions)
        assert list(map(comparable, model)) == list(map(comparable, real))

    @rule(positions=st.lists(st.integers(0, 20), max_size=3), reason=st.sampled_from(["A", "B"]))
    def mark_dead(self, positions: list[int], reason: str) -> None:
        self.both(lambda s, seqs: s.mark_dead(seqs, reason, reason.lower()), positions)

    @rule()
    def restart(self) -> None:
        self.runner.run(self.spool.close())
        self.open()

    @precondition(lambda self: self.directory.exists())
    @rule()
    def kill(self) -> None:
        killed = self.directory.with_name(f"{self.directory.name}-killed")
        copy_of_killed(self.directory, killed)
        self.runner.run(self.spool.close())
        shutil.rmtree(self.directory)
        killed.rename(self.directory)
        self.open()

    @invariant()
    def same(self) -> None:
        assert (self.model.depth, self.model.bytes) == (self.spool.depth, self.spool.bytes)
        model, real = (self.runner.run(spool.advance([], 1000)) for spool in (self.model, self.spool))
        assert list(map(comparable, model)) == list(map(comparable, real))
        assert [row.seq for row in real] == sorted({row.seq for row in real})
        assert self.spool.oldest_ms == (real[0].spooled_ms if real else None)
        assert self.spool.damaged == 0


def comparable(row: Spooled) -> Spooled:
    """Without what may differ: its number and the time."""
    return row._replace(seq=0, spooled_ms=0)


TestModel = SpoolMachine.TestCase
TestModel.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
