"""The state in one line: each problem has its words, the worst comes first, and the line stays one at any size.

And each problem leads to a runbook of docs/operations.md and to a command.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from modelready.v1 import queue_service_pb2 as pb
from sidecar.cli.main import build_parser
from sidecar.cli.status import table
from sidecar.format import shorten, shorten_name
from sidecar.summary import RUNBOOKS, is_well, runbooks, summarize


def _status(**fields: Any) -> pb.GetQueueStatusResponse:
    """One in which all is well, but for these fields."""
    well: dict[str, Any] = {
        "redis_up": True,
        "promise": {"accepting": True, "summary": "acknowledged by the Redis primary"},
        "redis": {"engine": "valkey", "role": "master", "eviction_policy": "noeviction"},
        "spool": {"max_bytes": 100},
    }
    for name, value in fields.items():
        well[name] = {**well.get(name, {}), **value} if isinstance(value, dict) else value
    return json_format.ParseDict(well, pb.GetQueueStatusResponse())


def _headings() -> set[str]:
    text = (Path(__file__).parents[2] / "docs/operations.md").read_text(encoding="utf-8")
    return set(re.findall(r"^### (.+)$", text, re.MULTILINE))


def _redis(reason: str, *, up: bool = True, **fields: Any) -> dict[str, Any]:
    """Events are spooled, and why."""
    return {
        "redis_up": up,
        "redis": {},
        "promise": {"spooling": True, "summary": "by disk", "reason": reason, **fields},
    }


@pytest.mark.parametrize(
    ("fields", "runbook", "command"),
    [
        ({"promise": {"accepting": False, "reason": "REDIS_NO_PERMISSION"}}, "publishes-refused", "doctor"),
        (_redis("REDIS_UNAVAILABLE", up=False), "connection-failures", "doctor"),
        (_redis("REDIS_LOADING", up=False), "connection-failures", "doctor"),
        (_redis("REDIS_AUTH_FAILED", up=False), "auth-failures", "doctor"),
        (_redis("REDIS_OOM"), "redis-memory", "groups list"),
        (_redis("QUEUE_FULL"), "queue-not-draining", "groups list"),
        ({**_redis("QUEUE_FULL"), "lists": [{"name": "a"}]}, "list-not-draining", "status --watch"),
        (_redis("REDIS_READONLY"), "spool-growing", "doctor"),
        (_redis(""), "spool-growing", "doctor"),
        ({"redis_up": False, "redis_error": "refused"}, "connection-failures", "doctor"),
        ({"spool": {"error": "no room"}}, "spool-disk", "doctor"),
        ({"spool": {"depth": 3}}, "spool-growing", "doctor"),
        ({"spool": {"bytes": 90}}, "spool-filling", "doctor"),
        ({"outbox": {"error": "refused"}}, "outbox-not-draining", "doctor"),
        ({"outbox": {"refused": 1}}, "outbox-refused", "outbox list"),
        ({"redis": {"role": "slave"}}, "connection-failures", "doctor"),
        ({"redis": {"used_memory_bytes": 81, "max_memory_bytes": 100}}, "redis-memory", "groups list"),
        ({"redis": {"eviction_policy": "volatile-lru"}}, "eviction-policy", "doctor"),
        ({"redis": {"eviction_policy": "allkeys-lru"}}, "eviction-policy", "doctor"),
        ({"trim": {"held_back_by": "old"}}, "queue-not-draining", "groups list"),
        ({"groups": [{"name": "a", "depth": 1}]}, "queue-not-draining", "groups list"),
        ({"dead_letters": 3}, "dead-letters", "dead-letters list"),
        ({"list": {"name": "a b", "dead_letters": 1}}, "list-dead-letters",
         "dead-letters replay --dry-run --list 'a b'"),
    ],
)  # fmt: skip
def test_each_problem_leads_to_a_runbook_and_a_command(fields: dict[str, Any], runbook: str, command: str) -> None:
    status = _status(**fields)
    assert dict(runbooks(status)) == {runbook: f"modelready-sidecar {command}"}
    assert table(status).splitlines()[1] == f"  docs/operations.md#{runbook}, next: modelready-sidecar {command}"
    build_parser().parse_args(command.replace("'a b'", "a").split())


def test_every_runbook_is_a_heading_of_the_document() -> None:
    assert RUNBOOKS.keys() - _headings() == set()


def test_of_several_problems_the_worst_one_s_runbook_comes_first_and_each_once() -> None:
    groups = [{"name": "a", "depth": 9}, {"name": "b", "depth": 95, "consumers": 1}]
    several = _status(trim={"max_depth": 100}, groups=groups, spool={"depth": 1}, dead_letters=1)
    assert list(runbooks(several)) == ["spool-growing", "queue-not-draining", "dead-letters"]
    assert runbooks(_status()) == {}
    assert table(_status()).splitlines()[1] == ""


@pytest.mark.parametrize(
    ("fields", "well", "state"),
    [
        ({}, True, "ok: "),
        ({"redis_up": False, "redis_error": "refused", "spool": {"depth": 2000}}, False,
         "warning: Redis is away (refused); 2,000 events in the spool"),
        ({"promise": {"accepting": False, "summary": "refused: the spool is full"}}, False,
         "failure: events are refused: the spool is full"),
        ({"spool": {"bytes": 90}}, True, "warning: the spool is 90% full"),
        ({"promise": {"spooling": True, "summary": "by disk: the queue is full"}}, True,
         "warning: events are by disk: the queue is full"),
        ({"outbox": {"depth": 3, "oldest_age": "90s", "error": "OperationalError: refused"}}, True,
         "warning: the outbox is not being emptied, 3 rows for 1m 30s (OperationalError: refused)"),
        ({"outbox": {"refused": 1}}, True, "warning: 1 row of the outbox refused"),
        ({"spool": {"error": "no room"}}, True, "warning: events are acknowledged by the Redis primary"),
        ({"redis": {"eviction_policy": "volatile-lru"}}, True, "volatile-lru, not noeviction"),
        ({"redis": {"eviction_policy": "allkeys-lfu"}, "dead_letters": 3}, False,
         "failure: Redis deletes whole queues when its memory is full: allkeys-lfu, not noeviction; 3 dead letters"),
        ({"redis": {"used_memory_bytes": 81, "max_memory_bytes": 100}}, True, "the memory of Redis is 81% full"),
        ({"redis": {"role": "slave"}}, True, "is a replica"),
        ({"dead_letters": 3}, True, "warning: 3 dead letters"),
        ({"trim": {"held_back_by": "old", "retention": "604800s"}}, True,
         "warning: the group old holds back entries older than 7d"),
        ({"trim": {"max_depth": 10}, "groups": [{"name": "a", "depth": 9, "consumers": 1}]}, True,
         "the group a has 9 of at most 10 unacknowledged events"),
        ({"groups": [{"name": "a\x1b[2J", "depth": 1, "consumers": 1, "idle": "3600s"}]}, True,
         "nobody reads for the group a\\x1b[2J since 1h, 1 event unacknowledged"),
        ({"list": {"dead_letters": 1}}, True, "1 message of the list given up"),
        ({"lists": [{"name": "a"}, {"name": "b", "dead_letters": 2, "dead_letters_key": "b:dlq"}]}, True,
         "2 messages of the list given up, in b:dlq"),
        ({"trim": {"max_depth": 10}, "lists": [{"name": "a", "depth": 9}]}, True,
         "the list a has 9 of at most 10 messages"),
    ],
)  # fmt: skip
def test_each_problem_is_in_the_line(fields: dict[str, Any], well: bool, state: str) -> None:
    status = _status(**fields)
    assert is_well(status) == well
    assert state in summarize(status)
    assert "\x1b" not in table(status)


def _unread(*groups: tuple[str, int]) -> dict[str, Any]:
    return {"groups": [{"name": name, "depth": depth} for name, depth in groups]}


@pytest.mark.parametrize(
    ("others", "more"),
    [
        (0, ""),
        (1, ", and 1 more group without readers"),
        (2, ", and 2 more groups without readers"),
        (29, ", and 29 more groups without readers"),
    ],
)
def test_of_groups_without_readers_the_worst_is_named_and_the_others_are_counted(others: int, more: str) -> None:
    groups = [(f"group-{number}", number + 1) for number in range(others)]
    status = _status(**_unread(*groups, ("worst", 2000), ("read", 0)))
    assert summarize(status) == f"warning: nobody reads for the group worst, 2,000 events unacknowledged{more}"


def test_without_groups_nobody_is_missed() -> None:
    assert summarize(_status(groups=[])) == "ok: Redis answers and events go straight into the queue"


def test_each_kind_counts_its_own() -> None:
    full = [{"name": f"full-{number}", "depth": 90 + number, "consumers": 1} for number in range(3)]
    mirrors = [{"name": f"list-{number}", "depth": 95, "dead_letters": number} for number in range(4)]
    status = _status(
        trim={"max_depth": 100}, groups=[*full, *_unread(("a", 5), ("b", 7))["groups"]], lists=mirrors, dead_letters=3
    )
    assert summarize(status) == (
        "warning: nobody reads for the group b, 7 events unacknowledged, and 1 more group without readers"
        "; and 3 more warnings"
    )
    del status.groups[3:]
    assert summarize(status) == (
        "warning: the group full-2 has 92 of at most 100 unacknowledged events, and 2 more groups near the limit"
        "; 3 dead letters; 3 messages of the list given up, and 2 more lists with such messages"
    )
    del status.groups[:]
    assert summarize(status) == (
        "warning: the list list-0 has 95 of at most 100 messages, and 3 more lists near the limit; 3 dead letters; "
        "3 messages of the list given up, and 2 more lists with such messages"
    )


def test_a_group_that_holds_back_entries_is_named_once() -> None:
    status = _status(trim={"held_back_by": "old", "retention": "604800s"}, **_unread(("old", 9), ("new", 2)))
    assert summarize(status) == (
        "warning: the group old holds back entries older than 7d"
        "; nobody reads for the group new, 2 events unacknowledged"
    )


@pytest.mark.parametrize("length", [1, 40, 41, 300, 10_000])
def test_it_stays_one_readable_line(length: int) -> None:
    """Also with the longest names and reasons; what is left out is counted, and the worst is always named."""
    name = f"{'team-' * length}"[: length - 1] + "é"
    many = {
        "groups": [{"name": f"{number}{name}", "depth": 10**9 + number} for number in range(30)],
        "lists": [
            {"name": name, "dead_letters": 10**9, "dead_letters_key": f"{name}:dlq{number}"} for number in range(30)
        ],
        "trim": {"max_depth": 10, "held_back_by": name, "retention": "604800s"},
        "dead_letters": 10**9,
    }
    for fields in (
        many,
        {**many, "promise": {"accepting": False, "summary": f"refused: {name}"}},
        {**many, "spool": {"depth": 5, "bytes": 99}, "redis": {"role": "slave", "eviction_policy": "volatile-lru"}},
        {"redis_up": False, "redis_error": name},
        {"promise": {"accepting": False, "summary": f"refused: {name}"}},
        {"redis": {"eviction_policy": f"allkeys-{name}"}},
    ):
        line = summarize(_status(**fields))
        assert len(line) <= 200
        assert line.isprintable()
        assert ("more warning" in line) == (len(fields) > 3)


def test_the_outbox_has_its_line_in_the_table_where_there_is_one() -> None:
    assert "outbox" not in table(_status())
    found = table(_status(outbox={"depth": 2, "oldest_age": "90s", "refused": 1, "error": "away"}))
    assert "\noutbox        2 rows, the oldest for 1m 30s, 1 refused; NOT BEING EMPTIED (away)" in found


@pytest.mark.parametrize(
    ("name", "shortened"),
    [
        ("deployer", "deployer"),
        ("deployer-of-the-staging-cluster-in-europe", "deployer-of-the-staging…in-europe"),
        ("team/fraud.scoring:deployer_blue_green_canary_7", "team/fraud.scoring…canary_7"),
        ("a" * 30 + "b" * 30, "a" * 26 + "…" + "b" * 13),
        ("-" * 60, "-" * 26 + "…" + "-" * 13),
        ("x" * 30 + "-y", "x" * 30 + "-y"),
    ],
)
def test_a_long_name_loses_its_middle_between_two_of_its_parts(name: str, shortened: str) -> None:
    assert shorten_name(name, 40) == shortened
    assert len(shortened) <= 40


def test_names_that_differ_at_their_ends_still_differ() -> None:
    groups = [f"deployers-of-the-fraud-team-in-production-{place}" for place in ("eu-west-1", "us-east-1")]
    lines = [summarize(_status(**_unread((name, 3)))) for name in groups]
    assert lines == [
        f"warning: nobody reads for the group deployers-of-the-fraud…{place}, 3 events unacknowledged"
        for place in ("eu-west-1", "us-east-1")
    ]


def test_a_long_line_ends_with_a_whole_word() -> None:
    """And long names within it keep their ends."""
    name = "deployers-of-the-fraud-team-in-production-eu-west-1"
    reason = f"refused: the group {name} has not acknowledged 10,000 events, the most that QUEUE_MAX_DEPTH allows; "
    line = summarize(
        _status(promise={"accepting": False, "summary": reason + "and Redis is away " * 9}, dead_letters=3)
    )
    assert line == (
        "failure: events are refused: the group deployers-of-the-fraud…eu-west-1 has not acknowledged 10,000 events,"
        " the most that QUEUE_MAX_DEPTH allows; and Redis is away and Redis is …; and 1 more warning"
    )


@pytest.mark.parametrize("text", ["one two three", "x" * 99, "a " * 99, " " * 99, "y" * 60 + " z"])
@pytest.mark.parametrize("length", [12, 40, 60])
def test_a_shortened_text_is_never_longer(text: str, length: int) -> None:
    assert len(shorten(text, length)) <= length
