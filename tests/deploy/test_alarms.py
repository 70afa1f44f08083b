"""Alarms fire when something is wrong, stop when it is fixed, and stay silent otherwise.

The lines are written by the sidecar's own code; only the time that they bear is given. The states are those that
CloudWatch's rules make of them.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple, cast

import pytest

from modelready.redis.lists import ListSettings
from sidecar.metrics import Metrics as Counted
from sidecar.operations.interfaces import DeadLetterCounts, GroupState, MirrorState, Observed, QueueState, RedisState
from sidecar.telemetry.emf import EmbeddedMetrics
from tests.deploy.cloudwatch import ALARM, FURTHER_BACK, OK, UNKNOWN, Metrics, alarms, state
from tests.deploy.template import RESOURCES, resolve

STACK = "models-"
ALARMS = {
    name.removeprefix(STACK): properties
    for name, properties in alarms().items()
    if properties["Namespace"] == "ModelReady"
}
SOURCE, QUEUE = resolve({"Ref": "Source"}), resolve({"Ref": "QueueName"})
MINUTE = 60.0
EPOCH = 30_000_000 * MINUTE
"""When the hours of these tests begin."""


class Sidecar:
    """The metrics of a sidecar whose values the test sets. At first all is well, and nobody publishes."""

    name = QUEUE

    def __init__(self) -> None:
        self.silent = self.away = False
        self.oldest_age = 20.0
        self.dead_letters = 0
        self.list = MirrorState(ListSettings(list_names="deployments").lists[0], 0, 0, 0)
        self.policy = "noeviction"
        self.used_memory, self.max_memory = 30, 100
        self.counted = Counted()
        self.counted.redis_up.set(1)
        self.counted.spool_max_bytes.set(100)
        self.counted.spool_free_bytes.set(1 << 30)
        self._read, self._write = os.pipe()
        self._emf = EmbeddedMetrics(
            self.counted, cast("Any", self), cast("Any", self), service=SOURCE, outbox=True, fd=self._write
        )

    async def observe(self) -> Observed:
        oldest = round((time.time() - self.oldest_age) * 1000)
        groups = [GroupState("deployer", 1, 1, 1, oldest, 8, 0.0)]
        state = QueueState(9, self.dead_letters, oldest, groups, [self.list])
        return Observed(state, DeadLetterCounts([], None))

    async def redis(self) -> RedisState:
        return RedisState(0.001, eviction_policy=self.policy, used_memory=self.used_memory, max_memory=self.max_memory)

    async def line(self, at: float) -> str:
        """The line that it writes at this second; empty where it is silent."""
        if self.silent:
            return ""
        self._emf._write({} if self.away else await self._emf._queue())
        root = json.loads(os.read(self._read, 1 << 16))
        root["_aws"]["Timestamp"] = round((EPOCH + at) * 1000)
        return json.dumps(root)

    def close(self) -> None:
        self._emf.close()
        os.close(self._write)
        os.close(self._read)


Effect = Callable[[Sidecar, int, bool], object]
"""What a fault does to a sidecar, given its seconds since the last line and whether it still lasts."""


class Fault(NamedTuple):
    """From one second to another."""

    effect: Effect
    begin: float
    end: float

    def happen(self, sidecar: Sidecar, since: float, at: float) -> None:
        seconds = math.ceil(min(at, self.end) - max(since, self.begin))
        self.effect(sidecar, max(seconds, 0), self.begin <= at < self.end)


@pytest.fixture
def sidecars() -> Iterator[list[Sidecar]]:
    two = [Sidecar(), Sidecar()]
    yield two
    for one in two:
        one.close()


async def watch(
    sidecars: Sequence[Sidecar], writing: Sequence[float], *faults: Fault, begin: int = -20, minutes: int = 60
) -> dict[str, list[str]]:
    """The states of all alarms after 0, 1, ... minutes. All begins at the minute `begin`, and is well but for `faults`.

    `writing`: the second of a minute at which each sidecar writes. Once in a while a line comes a minute too early.
    """
    lines = []
    for sidecar, second in zip(sidecars, writing, strict=False):
        before = begin * MINUTE
        for minute in range(begin, minutes):
            at = minute * MINUTE + (second if minute % 7 else -1)
            for fault in faults:
                fault.happen(sidecar, before, at)
            lines.append(await sidecar.line(at))
            before = at
    metrics = Metrics("\n".join(filter(None, lines)))
    ends = [EPOCH + minute * MINUTE for minute in range(minutes + 1)]
    return {name: [metrics.state(alarm, end) for end in ends] for name, alarm in ALARMS.items()}


def fired(states: dict[str, list[str]]) -> set[str]:
    return {name for name, those in states.items() if set(those) != {OK}}


def redis_away(sidecar: Sidecar, seconds: int, on: bool) -> None:
    sidecar.away = on
    sidecar.counted.redis_up.set(not on)
    sidecar.counted.connection_failures.inc(seconds)  # it asks every second


def list_is(sidecar: Sidecar, depth: int = 0, processing: int = 0, dead_letters: int = 0) -> None:
    sidecar.list = MirrorState(sidecar.list.mirror, depth, processing, dead_letters)


# Of each alarm: what it is there for, just above its threshold.
EFFECTS: dict[str, Effect] = {
    "sidecar-absent": lambda sidecar, seconds, on: setattr(sidecar, "silent", on),
    "connection-failures": redis_away,
    "auth-failures": lambda sidecar, seconds, on: sidecar.counted.auth_failures.inc(seconds),
    "queue-not-draining": lambda sidecar, seconds, on: setattr(sidecar, "oldest_age", 901 if on else 20),
    "dead-letters": lambda sidecar, seconds, on: setattr(sidecar, "dead_letters", int(on)),
    "list-dead-letters": lambda sidecar, seconds, on: list_is(sidecar, dead_letters=int(on)),
    "list-not-draining": lambda sidecar, seconds, on: list_is(sidecar, depth=900, processing=101 if on else 100),
    "spool-growing": lambda sidecar, seconds, on: sidecar.counted.spool_age.set(301 if on else 0),
    "spool-filling": lambda sidecar, seconds, on: sidecar.counted.spool_bytes.set(51 if on else 0),
    "spool-disk": lambda sidecar, seconds, on: sidecar.counted.spool_free_bytes.set(1 << (27 if on else 30)),
    "outbox-not-draining": lambda sidecar, seconds, on: sidecar.counted.outbox_age.set(301 if on else 0),
    "outbox-refused": lambda sidecar, seconds, on: sidecar.counted.outbox_refused.set(int(on)),
    "publishes-refused": lambda sidecar, seconds, on: sidecar.counted.published.labels("SPOOL_FULL").inc(seconds),
    "eviction-policy": lambda sidecar, seconds, on: setattr(sidecar, "policy", "allkeys-lru" if on else "noeviction"),
    "redis-memory": lambda sidecar, seconds, on: setattr(sidecar, "used_memory", 81 if on else 30),
}


def test_each_alarm_has_its_fault() -> None:
    assert EFFECTS.keys() == ALARMS.keys()


@pytest.mark.parametrize("writing", [(30,), (5, 50)], ids=["one", "two"])
@pytest.mark.parametrize("name", ALARMS)
async def test_an_alarm_fires_in_time_alone_and_ends(
    name: str, writing: Sequence[float], sidecars: list[Sidecar]
) -> None:
    """From 20 minutes 40 to 40 minutes 10."""
    fault = Fault(EFFECTS[name], 20 * MINUTE + 40, 40 * MINUTE + 10)
    states = await watch(sidecars, writing, fault)
    assert fired(states) == {name}
    assert [one for one, _ in groupby(states[name])] == [OK, ALARM, OK]
    of = int(ALARMS[name]["EvaluationPeriods"])
    needed = int(ALARMS[name].get("DatapointsToAlarm", of))
    further = FURTHER_BACK if name == "sidecar-absent" else 0
    on = states[name].index(ALARM) * MINUTE
    assert fault.begin < on <= fault.begin + (needed + 1 + further) * MINUTE
    off = (states[name].index(ALARM) + states[name].count(ALARM)) * MINUTE
    assert fault.end < off <= fault.end + (of - needed + 3 + FURTHER_BACK) * MINUTE


async def test_what_is_well_is_silent_whether_anybody_publishes_or_not(sidecars: list[Sidecar]) -> None:
    def publish(sidecar: Sidecar, seconds: int, on: bool) -> None:
        for outcome in ("stored", "duplicate", "spooled"):
            sidecar.counted.published.labels(outcome).inc(seconds)

    assert fired(await watch(sidecars, (30,))) == set()
    assert fired(await watch(sidecars, (5, 50), Fault(publish, 0, 60 * MINUTE))) == set()


async def test_what_is_not_known_is_silent(sidecars: list[Sidecar]) -> None:
    sidecars[0].max_memory, sidecars[0].policy = 0, ""
    assert fired(await watch(sidecars, (30,))) == set()


@pytest.mark.parametrize("second", range(0, 60, 5))
@pytest.mark.parametrize("writing", [(30,), (10, 50)], ids=["one", "two"])
async def test_a_failover_is_silent(second: int, writing: Sequence[float], sidecars: list[Sidecar]) -> None:
    """Of 30 seconds, whenever it begins. Two sidecars tell of the same failover in three different minutes."""
    begin = 2 * MINUTE + second
    assert fired(await watch(sidecars, writing, Fault(redis_away, begin, begin + 30), minutes=15)) == set()


@pytest.mark.parametrize("second", range(0, 60, 5))
async def test_a_new_token_is_silent(second: int, sidecars: list[Sidecar]) -> None:
    """The old one is refused once, and each sidecar finds the new one by itself."""
    begin = 2 * MINUTE + second
    fault = Fault(EFFECTS["auth-failures"], begin, begin + 1)
    assert fired(await watch(sidecars, (10, 50), fault, minutes=15)) == set()


async def test_a_task_that_is_replaced_within_four_minutes_is_silent(sidecars: list[Sidecar]) -> None:
    fault = Fault(EFFECTS["sidecar-absent"], 10 * MINUTE, 14 * MINUTE)
    assert fired(await watch(sidecars, (30,), fault)) == set()


async def test_a_new_stack_is_silent_from_the_first_line_on(sidecars: list[Sidecar]) -> None:
    states = await watch(sidecars, (30,), begin=1, minutes=10)
    assert states["sidecar-absent"][1] == ALARM, "so that it is made when there is a service"
    assert RESOURCES["SidecarAbsentAlarm"]["DependsOn"] == "Service"
    assert fired({name: those[2:] for name, those in states.items()}) == set()


async def test_one_event_that_is_refused_raises_the_alarm(sidecars: list[Sidecar]) -> None:
    begin = 5 * MINUTE + 20
    states = await watch(sidecars, (30,), Fault(EFFECTS["publishes-refused"], begin, begin + 1))
    assert fired(states) == {"publishes-refused"}
    assert states["publishes-refused"].index(ALARM) == 6


async def test_a_client_that_tries_again_now_and_then_makes_one_alarm(sidecars: list[Sidecar]) -> None:
    begins = [minute * MINUTE for minute in range(5, 40, 7)]
    faults = [Fault(EFFECTS["publishes-refused"], begin, begin + 1) for begin in begins]
    states = await watch(sidecars, (30,), *faults)
    assert [one for one, _ in groupby(states["publishes-refused"])] == [OK, ALARM, OK]


# The tables of the guide: 0 is within the threshold, X beyond it, - missing. States: missing, breaching, notBreaching.
TABLES = [
    (3, "0 - X - X", OK, OK, OK),
    (3, "0 - - - -", OK, OK, OK),
    (3, "- - - - -", UNKNOWN, ALARM, OK),
    (3, "0 X X - X", ALARM, ALARM, ALARM),
    (3, "- - X - -", ALARM, ALARM, OK),
    (2, "0 - X - X", ALARM, ALARM, ALARM),
    (2, "0 0 X 0 X", ALARM, ALARM, ALARM),
    (2, "0 - X - -", OK, ALARM, OK),
    (2, "- - - - 0", OK, ALARM, OK),
    (2, "- - - X -", ALARM, ALARM, OK),
]


@pytest.mark.parametrize(("needed", "values", "missing", "breaching", "not_breaching"), TABLES)
def test_states_are_those_of_cloudwatch_s_guide(
    needed: int, values: str, missing: str, breaching: str, not_breaching: str
) -> None:
    alarm = {"EvaluationPeriods": 3, "ComparisonOperator": "GreaterThanThreshold", "Threshold": 1}
    for treatment, expected in {"missing": missing, "breaching": breaching, "notBreaching": not_breaching}.items():
        given = alarm | {"DatapointsToAlarm": needed, "TreatMissingData": treatment}
        assert state(given, [{"0": 1.0, "X": 2.0, "-": None}[value] for value in values.split()]) == expected
