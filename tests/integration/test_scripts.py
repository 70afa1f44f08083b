"""What each of the sidecar's scripts does, case by case. With a real server, and nothing between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any

import pytest
import redis

from tests.harness.redis_server import RedisServer

S, ONE, TWO, DEAD, SINCE = "{q}:s", "{q}:one", "{q}:two", "{q}:dead", "{q}:since"
SEEN = ["{q}:seen:0", "{q}:seen:1", "{q}:seen:2"]
WINDOW = "100000"
YEAR_MS = 31_536_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


@pytest.fixture
def client(server: RedisServer) -> Iterator[Any]:
    with server.client() as client:
        client.flushall()
        yield client
        client.config_set("maxmemory", 0)


def run(client: Any, name: str, keys: Sequence[str], *arguments: Any) -> Any:
    text = resources.files("sidecar.redisstream").joinpath(f"lua/{name}.lua").read_text()
    return client.eval(text, len(keys), *keys, *arguments)


def event(number: int, lists: int = 0, traceparent: str = "") -> list[str]:
    fields = ["id", "source", "time", "subject", "correlation", "model"]
    messages = [f"{number}-{position}" for position in range(lists)]
    return [*(f"{field}{number}" for field in fields), traceparent, f"data{number}", *messages]


def append(client: Any, *numbers: int, lists: Sequence[str] = (), **more: Any) -> list[bytes]:
    arguments = [part for number in numbers for part in event(number, len(lists), **more)]
    keys = [S, *lists, *(SEEN[number] for number in numbers)]
    return list(run(client, "append", keys, WINDOW, "a/b", "t", len(lists), *arguments))


def fields_of(client: Any, stream: str = S) -> list[list[tuple[bytes, bytes]]]:
    return [list(fields.items()) for _, fields in client.xrange(stream)]


def pairs(**fields: str) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in fields.items()]


# -- append


@pytest.mark.parametrize("traceparent", ["", "00-1"])
def test_an_event_is_an_entry_of_all_its_fields(client: Any, traceparent: str) -> None:
    (entry,) = append(client, 1, traceparent=traceparent)
    ((found, _),) = client.xrange(S)
    assert entry == found
    trace = [(b"traceparent", b"00-1")] if traceparent else []
    assert fields_of(client) == [[
        *pairs(ce_id="id1", ce_source="source1", ce_type="t", ce_specversion="1.0", ce_time="time1"),
        *pairs(ce_subject="subject1", correlationid="correlation1", partitionkey="model1"), *trace,
        (b"content-type", b"a/b"), (b"data", b"data1"),
    ]]  # fmt: skip
    assert client.get(SEEN[1]) == entry
    assert 90_000 < client.pttl(SEEN[1]) <= 100_000


def test_an_event_is_appended_once_in_the_window_which_begins_again(client: Any) -> None:
    first, again = append(client, 1, 1)
    assert again == b"=" + first
    client.pexpire(SEEN[1], 5000)
    assert append(client, 0, 1)[1] == b"=" + first
    assert client.pttl(SEEN[1]) > 90_000
    assert client.xlen(S) == 2


def test_what_was_announced_and_not_appended_is_appended(client: Any) -> None:
    client.set(SEEN[1], "-")
    (entry,) = append(client, 1)
    assert client.get(SEEN[1]) == entry
    assert client.xlen(S) == 1


def test_each_list_gets_its_message_of_each_event(client: Any) -> None:
    assert len(append(client, 0, 1, lists=[ONE, TWO])) == 2
    assert client.lrange(ONE, 0, -1) == [b"1-0", b"0-0"]
    assert client.lrange(TWO, 0, -1) == [b"1-1", b"0-1"]


@pytest.mark.parametrize(("known", "one", "two"), [
    ("1-1!", [b"1-0"], [b"1-1"]), ("1-1!1", [], [b"1-1"]), ("1-1!2", [], []), ("1-1", [], []),
])  # fmt: skip
def test_a_repeat_gives_the_lists_what_they_lack(client: Any, known: str, one: list[bytes], two: list[bytes]) -> None:
    client.set(SEEN[1], known)
    assert append(client, 1, lists=[ONE, TWO]) == [b"=1-1"]
    assert (client.lrange(ONE, 0, -1), client.lrange(TWO, 0, -1), client.xlen(S)) == (one, two, 0)
    assert client.get(SEEN[1]) == b"1-1"
    assert client.pttl(SEEN[1]) > 90_000


@pytest.mark.parametrize(("denied", "left"), [(ONE, b"!"), (TWO, b"!1")])
def test_where_a_list_refuses_the_key_says_which_have_it(
    server: RedisServer, client: Any, denied: str, left: bytes
) -> None:
    allowed = ONE if denied == TWO else TWO
    selector = f"(+lpush ~{allowed})"
    client.execute_command("ACL", "SETUSER", "limited", "reset", "on", "nopass", "+@all", "-lpush", "~*", selector)
    limited = redis.Redis(host=server.host, port=server.port, username="limited", password="any")
    with pytest.raises(redis.ResponseError, match=r"^APPENDED "):
        append(limited, 0, 1, lists=[ONE, TWO])
    ((entry, _),) = client.xrange(S)
    assert client.get(SEEN[0]) == entry + left
    assert 90_000 < client.pttl(SEEN[0]) <= 100_000
    assert client.exists(SEEN[1]) == 0
    assert append(client, 0, lists=[ONE, TWO]) == [b"=" + entry]
    assert (client.llen(ONE), client.llen(TWO)) == (1, 1)


@pytest.mark.parametrize("key", [S, ONE, TWO])
def test_a_key_of_another_type_fails_before_anything_is_written(client: Any, key: str) -> None:
    client.set(key, "x")
    for numbers in ((0, 1), ()):  # with none it is a look
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            append(client, *numbers, lists=[ONE, TWO])
    assert client.keys() == [key.encode()]


def test_with_no_events_nothing_happens(client: Any) -> None:
    assert append(client, lists=[ONE]) == []
    assert client.keys() == []


def test_into_a_full_memory_nothing_is_written(client: Any) -> None:
    client.config_set("maxmemory", 1)
    with pytest.raises(redis.ResponseError, match="maxmemory"):
        append(client, 0, 1)
    assert client.keys() == []


def test_nothing_is_appended_where_the_key_may_not_be_written(server: RedisServer, client: Any) -> None:
    client.execute_command("ACL", "SETUSER", "limited", "reset", "on", "nopass", "+@all", "-set", "~*")
    limited = redis.Redis(host=server.host, port=server.port, username="limited", password="any")
    with pytest.raises(redis.ResponseError, match=r"ACL failure|can't run"):
        append(limited, 0, 1)
    assert client.keys() == []


# -- count


def test_entries_are_counted_and_the_last_is_named(client: Any) -> None:
    for number in range(1, 6):
        client.xadd(S, {"x": "y"}, id=f"{number}-0")
    assert run(client, "count", [S], "XRANGE", "(1-0", "+", 3, "") == [3, b"4-0"]
    assert run(client, "count", [S], "XREVRANGE", "3-0", "-", 9, "") == [3, b"1-0"]
    assert run(client, "count", [S], "XRANGE", "(5-0", "+", 3, "") == [0, b""]
    assert run(client, "count", [S], "XRANGE", "(4-0", "+", 3, "") == [1, b"5-0"]


def test_the_values_of_a_field_are_counted(client: Any) -> None:
    long = "x" * 64
    for value in ("a", "b", "a", long + "1", long + "2", None):
        client.xadd(S, {"other": "a", **({"reason": value, "reason2": "c"} if value else {})})
    count, last, *found = run(client, "count", [S], "XRANGE", "-", "+", 10, "reason")
    assert (count, last) == (6, client.xrevrange(S, count=1)[0][0])
    assert found == [b"a", 2, b"b", 1, long.encode(), 2, b"", 1]


# -- dead letters


def bury(client: Any, *letters: tuple[int, dict[str, str]]) -> list[bytes]:
    arguments: list[Any] = []
    for _, fields in letters:
        parts = [part for pair in fields.items() for part in pair]
        arguments += [len(parts), *parts]
    return list(run(client, "dead_letter", [DEAD, *(SEEN[number] for number, _ in letters)], WINDOW, *arguments))


def test_dead_letters_are_written_each_once(client: Any) -> None:
    first, second = bury(client, (0, {"a": "1"}), (1, {"b": "2", "c": "3"}))
    assert fields_of(client, DEAD) == [pairs(a="1"), pairs(b="2", c="3")]
    client.pexpire(SEEN[0], 5000)
    again, third = bury(client, (0, {"a": "x"}), (2, {"d": "4"}))
    assert (again, client.get(SEEN[0]), client.get(SEEN[1]), client.get(SEEN[2])) == (first, first, second, third)
    assert min(client.pttl(key) for key in SEEN) > 90_000
    assert fields_of(client, DEAD)[2:] == [pairs(d="4")]


def test_a_dead_letter_that_was_announced_alone_is_written(client: Any) -> None:
    client.set(SEEN[0], "-")
    (entry,) = bury(client, (0, {"a": "1"}))
    assert client.get(SEEN[0]) == entry
    assert client.xlen(DEAD) == 1


def test_a_dead_letter_is_written_only_where_its_key_may_be(server: RedisServer, client: Any) -> None:
    client.execute_command("ACL", "SETUSER", "limited", "reset", "on", "nopass", "+@all", "-set", "~*")
    limited = redis.Redis(host=server.host, port=server.port, username="limited", password="any")
    with pytest.raises(redis.ResponseError, match=r"ACL failure|can't run"):
        bury(limited, (0, {"a": "1"}))
    assert client.keys() == []


def test_discarded_ones_are_gone_and_may_come_again(client: Any) -> None:
    first, second = bury(client, (0, {"a": "1"}), (1, {"b": "2"}))
    client.set(SEEN[1], "9-9")  # of a later one
    assert run(client, "discard", [DEAD, SEEN[0], SEEN[1], SEEN[2]], first, second, "1-1") == 2
    assert client.xlen(DEAD) == 0
    assert client.mget(SEEN) == [None, b"9-9", None]


def test_a_message_of_a_list_is_put_back(client: Any) -> None:
    client.rpush(DEAD, "m", "other", "m")
    client.rpush(ONE, "old")
    assert run(client, "list_replay", [DEAD, ONE], "x", "y") == b"missing"
    assert run(client, "list_replay", [DEAD, ONE], "m", "back") == b"done"
    assert (client.lrange(DEAD, 0, -1), client.lrange(ONE, 0, -1)) == ([b"m", b"other"], [b"back", b"old"])


def test_a_message_that_cannot_be_pushed_stays_where_it_is(client: Any) -> None:
    client.rpush(DEAD, "m")
    client.set(ONE, "x")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        run(client, "list_replay", [DEAD, ONE], "m", "back")
    assert client.lrange(DEAD, 0, -1) == [b"m"]


# -- replay


def replay(client: Any, letter: bytes, group: str = "", *, own: bool = False, lists: Sequence[str] = ()) -> Any:
    messages = [f"m{number}" for number in range(len(lists))]
    keys = [S, DEAD, SEEN[0], SEEN[1], *lists]
    return run(client, "replay", keys, letter, group, "1" if own else "0", WINDOW, "replays", *messages)


def letter_of(client: Any, entry: str = "", **fields: str) -> bytes:
    own = {**({"dl_entry_id": entry} if entry else {}), "dl_reason": "R", "replay_group": "before"}
    return bytes(client.xadd(DEAD, {**fields, **own}))


def test_one_that_is_not_there_is_missing(client: Any) -> None:
    assert replay(client, b"1-1") == b"missing"


def test_to_all_it_goes_as_a_new_entry_and_into_the_lists(client: Any) -> None:
    letter = letter_of(client, ce_id="0", data="x")
    client.set(SEEN[0], "5-5")
    client.set(SEEN[1], letter)
    assert replay(client, letter, lists=[ONE, TWO]) == b"done"
    assert fields_of(client) == [pairs(ce_id="0", data="x")]
    assert (client.lrange(ONE, 0, -1), client.lrange(TWO, 0, -1)) == ([b"m0"], [b"m1"])
    assert client.get(SEEN[0]) == client.xrange(S)[0][0]
    assert 90_000 < client.pttl(SEEN[0]) <= 100_000
    assert (client.exists(SEEN[1]), client.xlen(DEAD)) == (0, 0)


@pytest.mark.parametrize(("known", "one", "two", "new"), [
    ("5-5", [], [], 0), ("5-5!", [b"m0"], [b"m1"], 0), ("5-5!1", [], [b"m1"], 0), ("-", [b"m0"], [b"m1"], 1),
    (None, [b"m0"], [b"m1"], 1),
])  # fmt: skip
def test_what_the_sidecar_gave_up_is_added_where_it_is_missing(
    client: Any, known: str | None, one: list[bytes], two: list[bytes], new: int
) -> None:
    letter = letter_of(client, ce_id="0")
    client.set(SEEN[1], "9-9")  # of a later dead letter
    if known:
        client.set(SEEN[0], known)
    assert replay(client, letter, own=True, lists=[ONE, TWO]) == b"done"
    assert (client.lrange(ONE, 0, -1), client.lrange(TWO, 0, -1), client.xlen(S)) == (one, two, new)
    assert client.get(SEEN[0]) == (client.xrange(S)[0][0] if new else b"5-5")
    assert client.get(SEEN[1]) == b"9-9"


@pytest.mark.parametrize("key", [S, ONE, TWO])
def test_a_replay_into_a_key_of_another_type_pushes_nothing(client: Any, key: str) -> None:
    letter = letter_of(client, ce_id="0")
    client.set(key, "x")
    before = sorted(client.keys())
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        replay(client, letter, lists=[ONE, TWO])
    assert (sorted(client.keys()), client.xlen(DEAD)) == (before, 1)


def test_to_a_group_that_is_not_there_it_does_not_go(client: Any) -> None:
    letter = letter_of(client, "1-1", ce_id="0")
    assert replay(client, letter, "g") == b"skipped"  # there is no stream either
    client.xadd(S, {"x": "y"}, id="1-1")
    client.xgroup_create(S, "other", id="$")
    assert replay(client, letter, "g") == b"skipped"
    assert client.xlen(DEAD) == 1


@pytest.mark.parametrize(("last", "entry", "is_claimed"), [
    ("9-9", "9-9", True), ("9-9", "9-8", True), ("9-9", "9-10", False), ("9-9", "10-1", False), ("10-1", "9-9", True),
    ("10-10", "10-9", True), ("10-9", "11-0", False), ("18446744073709551614-1", "18446744073709551613-2", True),
])  # fmt: skip
def test_in_its_place_it_goes_back_to_a_group_that_was_given_it(
    client: Any, last: str, entry: str, is_claimed: bool
) -> None:
    client.xadd(S, {"x": "y"}, id=entry)
    client.xgroup_create(S, "other", id="0")
    client.xgroup_create(S, "g", id=last)
    letter = letter_of(client, entry, ce_id="0")
    assert replay(client, letter, "g", lists=[ONE]) == b"done"
    found = client.xpending_range(S, "g", "-", "+", 10)
    assert [(row["message_id"].decode(), row["consumer"], row["times_delivered"]) for row in found] == (
        [(entry, b"replays", 0)] if is_claimed else []
    )
    assert all(YEAR_MS <= row["time_since_delivered"] < YEAR_MS + 60_000 for row in found)
    assert (client.xlen(S), client.xlen(DEAD), client.llen(ONE)) == (1, 0, 0)


def test_one_that_somebody_has_in_flight_stays_with_that_one(client: Any) -> None:
    client.xadd(S, {"x": "y"}, id="1-1")
    client.xgroup_create(S, "g", id="0")
    client.xreadgroup("g", "busy", {S: ">"})
    assert replay(client, letter_of(client, "1-1", ce_id="0"), "g") == b"done"
    assert [row["consumer"] for row in client.xpending_range(S, "g", "-", "+", 10)] == [b"busy"]
    assert client.xlen(DEAD) == 0


@pytest.mark.parametrize("entry", ["1-1", "no id", ""])
def test_what_is_not_in_the_stream_comes_as_a_new_entry_for_its_group(client: Any, entry: str) -> None:
    client.xgroup_create(S, "g", id="0", mkstream=True)
    assert replay(client, letter_of(client, entry, ce_id="0", data="x"), "g") == b"done"
    assert fields_of(client) == [pairs(ce_id="0", data="x", replay_group="g")]


def test_of_an_entry_that_was_deleted_nothing_is_left_to_replay(client: Any) -> None:
    client.xgroup_create(S, "g", id="0", mkstream=True)
    letter = letter_of(client, "1-1")
    assert replay(client, letter, "g") == b"skipped"
    assert (client.xlen(S), client.xlen(DEAD)) == (0, 1)


# -- trim


def trim(client: Any, cut: str, *, limit: int = 100, now: str = "") -> int:
    return int(run(client, "trim", [S, SINCE], cut, limit, now))


def left(client: Any) -> list[str]:
    return [entry.decode() for entry, _ in client.xrange(S)]


def fill(client: Any, *ids: str) -> None:
    for entry in ids:
        client.xadd(S, {"x": "y"}, id=entry)


@pytest.mark.parametrize(("cut", "stay"), [
    ("9-9", ["9-9", "9-10", "10-1", "100-0"]), ("9-10", ["9-10", "10-1", "100-0"]), ("10-0", ["10-1", "100-0"]),
    ("100-1", []), ("9-0", ["9-9", "9-10", "10-1", "100-0"]),
])  # fmt: skip
def test_what_all_have_acknowledged_goes_up_to_the_cut(client: Any, cut: str, stay: list[str]) -> None:
    fill(client, "9-9", "9-10", "10-1", "100-0")
    client.xgroup_create(S, "g", id="100-0")
    assert trim(client, cut) == 4 - len(stay)
    assert left(client) == stay


@pytest.mark.parametrize(("last", "stay"), [
    ("0-0", ["9-9", "9-10", "10-1"]), ("9-8", ["9-9", "9-10", "10-1"]), ("9-9", ["9-10", "10-1"]),
    ("9-10", ["10-1"]), ("10-1", []), ("9-18446744073709551615", ["10-1"]),
])  # fmt: skip
def test_what_a_group_was_not_given_stays(client: Any, last: str, stay: list[str]) -> None:
    fill(client, "9-9", "9-10", "10-1")
    client.xgroup_create(S, "ahead", id="10-1")
    client.xgroup_create(S, "g", id=last)
    trim(client, "1000-0")
    assert left(client) == stay


def test_what_is_pending_stays(client: Any) -> None:
    fill(client, "9-9", "9-10", "10-1", "11-0")
    for group, count in (("a", 4), ("b", 4)):
        client.xgroup_create(S, group, id="0")
        client.xreadgroup(group, "c", {S: ">"}, count=count)
    client.xack(S, "a", "9-9", "9-10", "10-1", "11-0")
    client.xack(S, "b", "9-9", "10-1")
    trim(client, "1000-0")
    assert left(client) == ["9-10", "10-1", "11-0"]
    client.xack(S, "b", "9-10")
    trim(client, "1000-0")
    assert left(client) == ["11-0"]


def test_without_a_group_nothing_goes_but_what_lists_have_had_for_long_enough(client: Any) -> None:
    fill(client, "10-0", "20-0", "30-0")
    assert trim(client, "25-0") == 0
    assert client.exists(SINCE) == 0
    assert trim(client, "25-0", now="25") == 0  # mirrored since the cut: not for as long as the retention
    assert client.get(SINCE) == b"25"
    assert trim(client, "26-0", now="90") == 2
    assert client.get(SINCE) == b"25"
    assert left(client) == ["30-0"]
    assert trim(client, "26-0") == 0
    assert client.exists(SINCE) == 0


def test_a_group_keeps_what_it_has_open_from_age_alone(client: Any) -> None:
    fill(client, "10-0", "20-0")
    client.set(SINCE, "1")
    client.xgroup_create(S, "g", id="0")
    assert trim(client, "25-0", now="90") == 0
    assert left(client) == ["10-0", "20-0"]


def test_an_empty_stream_has_nothing_to_trim(client: Any) -> None:
    assert trim(client, "25-0") == 0
    client.xgroup_create(S, "g", id="0", mkstream=True)
    assert trim(client, "25-0") == 0


def test_many_go_by_whole_nodes_and_a_bounded_number_a_call(client: Any) -> None:
    with client.pipeline() as pipe:
        for number in range(1, 1051):
            pipe.xadd(S, {"x": "y"}, id=f"{number}-0")
        pipe.execute()
    client.xgroup_create(S, "g", id="$")
    assert trim(client, "1041-0", limit=300) == 300
    removed = [trim(client, "1041-0", limit=300) for _ in range(5)]
    assert removed == [300, 300, 100, 40, 0]
    assert left(client)[0] == "1041-0"
