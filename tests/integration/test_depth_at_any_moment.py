"""The depth of every group is exact whatever is done to the stream, though little is counted and much remembered."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from modelready.credentials import StaticCredentials
from modelready.keys import Keys
from modelready.redis.settings import RedisSettings
from sidecar.metrics import Metrics
from sidecar.redisstream import counter, stream_positions
from sidecar.redisstream.connection import RedisConnection
from sidecar.redisstream.inspector import RedisInspector
from sidecar.settings import QueueSettings
from tests.harness.redis_server import RedisServer, available_binaries

KEYS = Keys("model-ready")
BINARIES = available_binaries()
GROUPS = ("a", "b", "c", "d")
# As on Redis 6.2, which does not say how many entries were ever appended.
BLIND = "user blind on >blind ~* +@all -xinfo|stream"


class Looking(RuleBasedStateMachine):
    """Two sidecars: one looks after each step, the other now and then."""

    server: RedisServer
    blind = False

    def __init__(self) -> None:
        super().__init__()
        self.client = self.server.client()
        self.runner = asyncio.Runner()
        who = {"username": "blind", "auth_token": "blind"} if self.blind else {}
        redis_settings = RedisSettings(host=self.server.host, port=self.server.port, tls=False, timeout=30.0)
        credentials = StaticCredentials(**{"username": "blind", "token": "blind"} if who else {})
        self.connection = RedisConnection(redis_settings, credentials, Metrics(), KEYS.events)
        self.often, self.rarely = (RedisInspector(self.connection, QueueSettings()) for _ in range(2))
        self.last = 7

    @initialize()
    def empty(self) -> None:
        self.client.flushall()

    @rule(count=strategies.integers(1, 60), step=strategies.sampled_from([1, 900]))
    def entries_come(self, count: int, step: int) -> None:
        with self.client.pipeline(transaction=False) as pipe:
            for _ in range(count):
                self.last += step
                pipe.xadd(KEYS.events, {"n": "1"}, id=f"{self.last >> 3}-{self.last & 7}")
            pipe.execute()

    @rule(group=strategies.sampled_from(GROUPS), where=strategies.integers(0, 100), read=strategies.booleans())
    def a_group_is_made_or_set(self, group: str, where: int, read: bool) -> None:
        """Also with a number of entries read that is wrong."""
        ids = self.ids()
        at = ids[(len(ids) - 1) * where // 100] if ids and where < 100 else b"$"
        if group in self.groups():
            self.client.xgroup_setid(KEYS.events, group, at, entries_read=where if read else None)
        else:
            self.client.xgroup_create(KEYS.events, group, id=at, mkstream=True)

    @rule(group=strategies.sampled_from(GROUPS), count=strategies.integers(1, 40), acknowledged=strategies.booleans())
    def a_group_reads(self, group: str, count: int, acknowledged: bool) -> None:
        if group in self.groups():
            self.client.xreadgroup(group, "c", {KEYS.events: ">"}, count=count, noack=acknowledged)

    @rule(group=strategies.sampled_from(GROUPS))
    def a_group_goes(self, group: str) -> None:
        if group in self.groups():
            self.client.xgroup_destroy(KEYS.events, group)

    @rule(where=strategies.lists(strategies.integers(0, 100), min_size=1, max_size=4))
    @precondition(lambda self: not self.blind)
    def entries_are_deleted(self, where: list[int]) -> None:
        ids = self.ids()
        if ids:
            self.client.xdel(KEYS.events, *(ids[(len(ids) - 1) * part // 100] for part in where))

    @rule(where=strategies.integers(0, 100))
    def it_is_trimmed(self, where: int) -> None:
        self.client.xtrim(KEYS.events, maxlen=len(self.ids()) * where // 100, approximate=False)

    @rule()
    def it_is_deleted(self) -> None:
        self.client.delete(KEYS.events)

    @rule()
    def the_other_looks(self) -> None:
        self.check(self.rarely)

    @rule()
    def the_other_goes_on_from_the_first(self) -> None:
        positions = self.often.positions
        self.rarely.positions.load(positions.snapshot, positions.known())

    @invariant()
    def the_depth_is_exact(self) -> None:
        self.check(self.often)

    def check(self, inspector: RedisInspector) -> None:
        state = self.runner.run(inspector.inspect())
        exact = {}
        for group, info in self.groups().items():
            behind: Any = self.client.xrange(KEYS.events, f"({info['last-delivered-id'].decode()}")
            pending: Any = self.client.xpending_range(KEYS.events, group, "-", "+", 100_000)
            times = [one["message_id"] for one in pending] + [one for one, _ in behind]
            exact[group] = len(behind), len(pending), min((int(one.split(b"-")[0]) for one in times), default=None)
        assert {one.name: (one.undelivered, one.pending, one.oldest_ms) for one in state.groups} == exact
        depths = [undelivered + pending for undelivered, pending, _ in exact.values()]
        assert state.depth == max(depths, default=len(self.ids()))
        assert self.runner.run(inspector.depth()).depth == state.depth

    def ids(self) -> list[bytes]:
        entries: Any = self.client.xrange(KEYS.events)
        return [entry_id for entry_id, _ in entries]

    def groups(self) -> dict[str, Any]:
        if not self.client.exists(KEYS.events):
            return {}
        infos: Any = self.client.xinfo_groups(KEYS.events)
        return {info["name"].decode(): info for info in infos}

    def teardown(self) -> None:
        self.runner.run(self.connection.close())
        self.runner.close()
        self.client.close()


def look_at_any_moment(monkeypatch: pytest.MonkeyPatch, binary: str, examples: int, *, blind: bool = False) -> None:
    # Small pages and a short memory, so that their edges are met.
    monkeypatch.setattr(counter, "_PAGE", 5)
    monkeypatch.setattr(counter, "_REST_SECONDS", 0)
    monkeypatch.setattr(counter, "_MAX_SAVED", 1e9)
    monkeypatch.setattr(stream_positions, "_MAX_KNOWN", 12)
    with RedisServer(binary=binary, acl=[BLIND], config={"stream-node-max-entries": "3"}) as server:
        machine = type("Looked", (Looking,), {"server": server, "blind": blind})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )


@pytest.mark.parametrize("binary", BINARIES.values(), ids=BINARIES)
@pytest.mark.parametrize("blind", [False, True], ids=["counted by Redis", "as on Redis 6.2"])
def test_the_depth_is_exact_whatever_is_done(monkeypatch: pytest.MonkeyPatch, binary: str, blind: bool) -> None:
    look_at_any_moment(monkeypatch, binary, 12, blind=blind)


@pytest.mark.soak
@pytest.mark.parametrize("binary", BINARIES.values(), ids=BINARIES)
@pytest.mark.parametrize("blind", [False, True], ids=["counted by Redis", "as on Redis 6.2"])
def test_the_depth_is_exact_for_long(monkeypatch: pytest.MonkeyPatch, binary: str, blind: bool) -> None:
    look_at_any_moment(monkeypatch, binary, 1000, blind=blind)
