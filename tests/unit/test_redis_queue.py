"""What the queue and its inspector ask of Redis, against a connection that answers what the test says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from modelready.keys import Keys
from sidecar.errors import SetupFault
from sidecar.redisstream.inspector import RedisInspector
from sidecar.redisstream.queue import RedisQueue
from sidecar.redisstream.stream_info import Group
from sidecar.settings import QueueSettings

KEYS = Keys("model-ready")


class Connection:
    """It gives one reply after the other."""

    def __init__(self, *replies: Any) -> None:
        self._replies = list(replies)
        self.asked: list[Any] = []
        self.pool = self

    async def execute(self, *command: Any) -> Any:
        self.asked.append(command)
        return self._replies.pop(0)

    async def pipeline(self, commands: Sequence[tuple[Any, ...]]) -> Any:
        self.asked += commands
        return self._replies.pop(0)

    async def run(self, script: Any, keys: Any, *rest: Any) -> Any:
        self.asked.append(list(keys))
        return self._replies.pop(0)


def queue(connection: Connection) -> RedisQueue:
    given: Any = connection
    return RedisQueue(given, QueueSettings())


def inspector(connection: Connection) -> RedisInspector:
    given: Any = connection
    return RedisInspector(given, QueueSettings())


def entry(entry_id: str, event_id: bytes) -> list[Any]:
    return [entry_id.encode(), [b"ce_id", event_id]]


async def test_entries_are_looked_for_five_minutes_around_in_pages_of_a_thousand() -> None:
    first = [entry(f"{number}-0", b"x") for number in range(998)] + [entry("998-0", b"a"), entry("999-0", b"b")]
    connection = Connection(first, [entry("1000-0", b"a"), entry("1001-0", b"c")])
    assert await queue(connection).find(["a", "c"], 300_007, 400_000) == {"a": "998-0", "c": "1001-0"}
    assert connection.asked == [
        ("XRANGE", KEYS.events, start, "700000", "COUNT", 1000) for start in ("7", "(999-0")
    ]  # fmt: skip
    connection = Connection([])
    await queue(connection).find(["a"], 5, 5)
    assert connection.asked[0][2:4] == ("0", "300005")


async def test_a_ping_runs_the_script_and_a_try_writes_to_a_key_that_is_never_there() -> None:
    connection = Connection([[]], None)
    await queue(connection).ping()
    await queue(connection).try_write()
    assert connection.asked == [[KEYS.events], ("XADD", KEYS.seen(""), "NOMKSTREAM", "*", "", "")]


def group(name: bytes) -> Group:
    return Group(name, 0, 0, 0, None)


@pytest.mark.parametrize("error", ["NOGROUP gone", "NOPERM no right"])
async def test_a_group_that_goes_meanwhile_is_left_out(error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looking = inspector(Connection())

    async def ask(groups: Sequence[Group], *, consumers: bool) -> list[bytes]:
        if any(one.name == b"gone" for one in groups):
            raise SetupFault(error)
        return [one.name for one in groups]

    monkeypatch.setattr(looking, "_ask", ask)
    there = [group(name) for name in (b"a", b"gone", b"b")]
    if error.startswith("NOGROUP"):
        found: Any = await looking._states(there, consumers=True)
        assert found == [b"a", b"b"]
    else:
        with pytest.raises(SetupFault, match="NOPERM"):
            await looking._states(there, consumers=True)


async def test_when_a_consumer_asked_last_is_in_seconds() -> None:
    rows = [[b"name", name, b"pending", 0, b"idle", idle] for name, idle in ((b"a", 2500), (b"b", 9000))]
    looking = inspector(Connection([rows]))
    assert await looking._known_consumers([b"g"]) == {b"g": (2, 2.5)}
    assert await looking._known_consumers([b"g"]) == {b"g": (2, 2.5)}  # it is not asked for again


async def test_the_names_and_a_node_whose_values_have_colons() -> None:
    sections = [b"redis_version:7.0.15\r\nexecutable:/a:b:c\r\nredis_mode:cluster", b"used_memory:7", b"role:master"]
    looking = inspector(Connection(b"PONG", *([section] for section in sections)))
    state = await looking.redis()
    assert (state.engine, state.version, state.role, state.used_memory) == ("redis", "7.0.15", "master", 7)
    assert (looking.name, looking.stream) == ("model-ready", KEYS.events)
