"""What the scripts of the guard and of the list consumer do, case by case. With a real server, and nothing between."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest
import redis

from tests.harness.redis_server import RedisServer

KEY, BEFORE, LIST, IN_FLIGHT, LEASE = "{q}:done", "{q}:before", "{q}:list", "{q}:hand", "{q}:lease"


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[Any]:
    with server.client() as client:
        yield client


def run(client: Any, name: str, *keys: str, arguments: tuple[Any, ...]) -> Any:
    text = resources.files("modelready").joinpath(name).read_text()
    return client.eval(text, len(keys), *keys, *arguments)


def reserve(client: Any, token: str, *keys: str) -> int:
    return int(run(client, "lua/seen_reserve.lua", *(keys or (KEY,)), arguments=(token, 50_000)))


def test_the_first_has_an_event_and_the_others_learn_for_how_long(client: Any) -> None:
    assert reserve(client, "a") == 0
    assert 40_000 < reserve(client, "b") <= 50_000
    assert client.get(KEY) == b"a"
    client.pexpire(KEY, 5000)
    assert reserve(client, "a") == 0
    assert client.pttl(KEY) > 40_000  # its lease is extended


def test_of_what_is_done_nobody_gets_it(client: Any) -> None:
    client.set(KEY, "done")
    assert reserve(client, "a") == -1
    assert client.get(KEY) == b"done"


def test_a_reservation_without_an_end_is_waited_for_a_moment(client: Any) -> None:
    client.set(KEY, "a")
    assert reserve(client, "b") == 1


def test_the_key_of_the_version_before_counts_and_is_not_written(client: Any) -> None:
    client.set(BEFORE, "done")
    assert reserve(client, "a", KEY, BEFORE) == -1
    client.set(BEFORE, "b", px=30_000)
    assert 20_000 < reserve(client, "a", KEY, BEFORE) <= 30_000
    assert client.exists(KEY) == 0
    client.set(BEFORE, "a", px=30_000)
    assert reserve(client, "a", KEY, BEFORE) == 0
    assert client.get(KEY) == b"a"
    assert client.pttl(BEFORE) <= 30_000


def test_a_reservation_is_given_up_by_its_holder_alone(client: Any) -> None:
    reserve(client, "a")
    assert run(client, "lua/seen_release.lua", KEY, arguments=("b",)) == 0
    assert client.get(KEY) == b"a"
    assert run(client, "lua/seen_release.lua", KEY, arguments=("a",)) == 1
    assert client.exists(KEY) == 0
    assert run(client, "lua/seen_release.lua", KEY, arguments=("a",)) == 0


def hold(client: Any, token: str, message: str = "m") -> int:
    return int(run(client, "_consumer/lua/list_hold.lua", IN_FLIGHT, LEASE, arguments=(message, token, 50_000)))


def test_a_message_is_held_by_one(client: Any) -> None:
    assert hold(client, "a") == 0  # nobody has taken it
    assert client.exists(LEASE) == 0
    client.rpush(IN_FLIGHT, "other", "m")
    assert hold(client, "a") == 1
    assert (client.get(LEASE), client.pttl(LEASE) > 40_000) == (b"a", True)
    assert hold(client, "b") == 0
    assert client.get(LEASE) == b"a"
    client.pexpire(LEASE, 5000)
    assert hold(client, "a") == 1
    assert client.pttl(LEASE) > 40_000


def move(client: Any, token: str, *push: str, message: str = "m") -> int:
    keys = [IN_FLIGHT, LEASE, *([LIST] if push else [])]
    return int(run(client, "_consumer/lua/list_move.lua", *keys, arguments=(message, token, *push)))


def test_a_message_is_done_by_its_holder_alone(client: Any) -> None:
    client.rpush(IN_FLIGHT, "m", "other", "m")
    client.set(LEASE, "a")
    assert move(client, "b") == move(client, "") == move(client, "a", message="x") == 0
    assert client.lrange(IN_FLIGHT, 0, -1) == [b"m", b"other", b"m"]
    assert move(client, "a") == 1
    assert (client.lrange(IN_FLIGHT, 0, -1), client.exists(LEASE)) == ([b"other", b"m"], 0)


@pytest.mark.parametrize(("side", "wanted"), [("LPUSH", [b"new", b"old"]), ("RPUSH", [b"old", b"new"])])
def test_a_message_goes_to_the_list_and_the_side_that_are_named(client: Any, side: str, wanted: list[bytes]) -> None:
    client.rpush(IN_FLIGHT, "m")
    client.rpush(LIST, "old")
    assert move(client, "", side, "new") == 1
    assert (client.lrange(LIST, 0, -1), client.llen(IN_FLIGHT)) == (wanted, 0)
    assert move(client, "", side, "new") == 0
    assert client.llen(LIST) == 2


def test_a_message_that_cannot_be_pushed_stays_in_flight(client: Any) -> None:
    client.rpush(IN_FLIGHT, "m")
    client.set(LEASE, "a")
    client.set(LIST, "no list")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        move(client, "a", "LPUSH", "new")
    assert (client.lrange(IN_FLIGHT, 0, -1), client.get(LEASE)) == ([b"m"], b"a")
