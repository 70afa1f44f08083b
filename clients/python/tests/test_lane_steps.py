"""What each script of a consumer does to the lanes, one step at a time. With a real server."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from clients.python.tests.test_consumer import ACL, DEAD_LETTERS, STREAM, environ
from modelready._consumer import lanes as lanes_module
from modelready._consumer.lanes import Lanes, Turn
from modelready._consumer.options import checked_options
from modelready.keys import WAITING_CONSUMER, Keys
from modelready.redis.cluster import server_from_env
from modelready.redis.faults import RedisError
from modelready.redis.pool import Pool
from tests.harness.redis_server import RedisServer

KEYS = Keys("model-ready")
LANES, WAITING, FREE = KEYS.lanes("deployer"), KEYS.waiting("deployer"), KEYS.free("deployer")
MANY = "".join(chr(0x4E00 + number) for number in range(250))  # models


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    with RedisServer(acl=[ACL]) as server:
        yield server


class Steps:
    """One consumer's calls, made from a test."""

    def __init__(self, server: RedisServer, name: str, **options: Any) -> None:
        self.name = name
        self._loop = asyncio.new_event_loop()
        self._pool = Pool(server_from_env(environ(server), STREAM))
        self._lanes = Lanes(self._pool, checked_options(group="deployer", consumer_name=name, **options))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        step = getattr(self._lanes, name)
        return lambda *args, **options: self._loop.run_until_complete(step(*args, **options))

    def close(self) -> None:
        self._loop.run_until_complete(self._pool.close())
        self._loop.close()


@pytest.fixture
def join(server: RedisServer) -> Iterator[Callable[..., Steps]]:
    """Makes consumers of the group, which exists from the first on."""
    made: list[Steps] = []

    def consumer(name: str, **options: Any) -> Steps:
        made.append(Steps(server, name, **options))
        made[-1].create_group("0")
        return made[-1]

    yield consumer
    for one in made:
        one.close()


def add(server: RedisServer, lanes: str, data: bytes = b"", **others: bytes) -> list[str]:
    """An entry for each letter: the model is that letter."""
    with server.client() as client:
        fields = {"data": data, **others}
        return [str(client.xadd(STREAM, {"partitionkey": lane, **fields}).decode()) for lane in lanes]


def pending(server: RedisServer) -> dict[str, tuple[str, int]]:
    """Of each entry that is not acknowledged: with whom, and how many times it was begun."""
    with server.client() as client:
        rows = client.xpending_range(STREAM, "deployer", "-", "+", 10_000)
    return {row["message_id"].decode(): (row["consumer"].decode(), row["times_delivered"]) for row in rows}


def owners(server: RedisServer) -> dict[str, str]:
    with server.client() as client:
        return {lane.decode(): owner.decode() for lane, owner in client.hgetall(LANES).items()}


def free(server: RedisServer) -> set[str]:
    with server.client() as client:
        return {lane.decode() for lane in client.smembers(FREE)}


def waiting(server: RedisServer) -> int:
    return int(server.execute("ZCARD", WAITING))


def claim(server: RedisServer, name: str, *entries: str, **options: Any) -> None:
    """As a consumer that knows no lanes does."""
    with server.client() as client:
        client.xclaim(STREAM, "deployer", name, 0, list(entries), justid=True, **options)


def take(consumer: Steps, count: int) -> list[str]:
    """So many that are new, in as many turns as it needs."""
    taken: list[str] = []
    for _ in range(1 + count // 100):
        taken += ids(consumer.turn(room=count - len(taken)))
    assert len(taken) == count
    return taken


def ids(turn: Turn) -> list[str]:
    return [entry.id for entry in turn.entries]


def test_a_hundred_thousand_may_wait_in_a_group_s_lanes() -> None:
    limits: list[int] = []

    class Noting:
        async def script(self, _script: Any, _keys: Any, *arguments: Any) -> list[Any]:
            limits.append(arguments[5])
            return [b"", [], [], 0]

    pool: Any = Noting()
    lanes = Lanes(pool, checked_options(group="deployer"))
    asyncio.run(lanes.turn())
    asyncio.run(lanes.turn(reads=False))
    assert limits == [100_000, 0]


# -- reading


def test_what_is_read_is_its_reader_s_and_the_heads_that_workers_wait_for_are_begun(
    join: Any, server: RedisServer
) -> None:
    entries = add(server, "aab")
    turn = join("one").turn(room=10, demand=1)
    assert ids(turn) == entries
    assert [entry.lane for entry in turn.entries] == [b"a", b"a", b"b"]
    assert [(entry.attempts, entry.is_begun) for entry in turn.entries] == [(0, True), (0, False), (0, False)]
    assert (turn.left, turn.waiting, turn.kept) == (entries[-1], 0, [])
    assert pending(server) == {entries[0]: ("one", 1), entries[1]: ("one", 0), entries[2]: ("one", 0)}
    assert owners(server) == {"a": "one", "b": "one"}


def test_a_follower_is_never_begun_with_its_head(join: Any, server: RedisServer) -> None:
    add(server, "aab")
    turn = join("one").turn(room=10, demand=2)
    assert [entry.is_begun for entry in turn.entries] == [True, False, True]


def test_a_batch_is_noted_as_begun_as_a_whole(join: Any, server: RedisServer) -> None:
    entries = add(server, "aab")
    turn = join("one").turn(room=10, demand=None)
    assert [entry.is_begun for entry in turn.entries] == [True] * 3
    assert pending(server) == dict.fromkeys(entries, ("one", 1))


def test_no_more_is_read_than_there_is_room_for(join: Any, server: RedisServer) -> None:
    entries = add(server, "abcd")
    one = join("one")
    assert (ids(one.turn(room=3)), one.turn().left) == (entries[:3], "")
    turn = one.turn(room=1)
    assert (ids(turn), turn.left) == (entries[3:], "more")
    assert one.turn(room=1).left == entries[3]


def test_nothing_is_read_without_room_or_by_one_that_reads_not(join: Any, server: RedisServer) -> None:
    add(server, "a")
    one = join("one")
    assert one.turn()[:2] == ("", [])
    turn = one.turn(room=5, reads=False)
    assert (turn.left, turn.entries, pending(server)) == ("", [], {})


def test_an_empty_stream_has_a_place_to_wait_at(join: Any, server: RedisServer) -> None:
    assert join("one").turn(room=1).left == "0-0"


def test_what_is_read_of_another_s_model_waits_in_its_lane(join: Any, server: RedisServer) -> None:
    first, *_ = add(server, "a")
    one, two = join("one"), join("two")
    one.turn(room=1, demand=1)
    second, third = add(server, "aa")
    turn = two.turn(room=5)
    assert (turn.entries, turn.waiting, turn.left) == ([], 2, third)
    assert pending(server) == {first: ("one", 1), second: (WAITING_CONSUMER, 0), third: (WAITING_CONSUMER, 0)}
    assert (owners(server), free(server)) == ({"a": "one"}, set())


def test_one_that_owns_a_lane_reads_nothing_past_what_waits_in_it(join: Any, server: RedisServer) -> None:
    """Its own later read must not overtake what it or another put into the lane."""
    one = join("one")
    first, *_ = add(server, "a")
    one.turn(room=1)
    add(server, "aa")
    assert one.turn(room=5).entries == []
    assert ids(one.turn([first], [b"a"], room=5)) == sorted(pending(server))


def test_a_hundred_are_looked_at_in_a_turn(join: Any, server: RedisServer) -> None:
    one, two = join("one"), join("two")
    add(server, "a")
    one.turn(room=1)
    add(server, "a" * 250)
    turn = two.turn(room=1)
    assert (turn.entries, turn.left, turn.waiting) == ([], "more", 100)
    turn = two.turn(room=140)
    assert (turn.entries, turn.left, turn.waiting) == ([], "more", 200)


@pytest.mark.parametrize("field", ["data", "other"])
def test_large_entries_end_a_turn_and_at_most_twenty_are_read_at_once(
    join: Any, server: RedisServer, field: str
) -> None:
    add(server, "abcdefghij" * 3, **{field: b"x" * 200_000})
    turn = join("one").turn(room=30)
    assert (len(turn.entries), turn.left) == (20, "more")


def test_large_entries_that_go_into_a_lane_end_a_turn_too(join: Any, server: RedisServer) -> None:
    one, two = join("one"), join("two")
    add(server, "a")
    one.turn(room=1)
    add(server, "a" * 30, b"x" * 200_000)
    turn = two.turn(room=30)
    assert (turn.entries, turn.left, turn.waiting) == ([], "more", 20)


def test_nothing_is_read_while_too_many_wait(join: Any, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes_module, "_MAX_WAITING", 2)
    one, two = join("one"), join("two")
    add(server, "a")
    one.turn(room=1)
    add(server, "a")
    assert two.turn(room=1).waiting == 1
    add(server, "a")
    assert two.turn(room=1).waiting == 2
    (entry,) = add(server, "b")
    turn = two.turn(room=1)
    assert (turn.left, turn.entries) == ("full", [])
    assert entry not in pending(server)


# -- going on


def hold(server: RedisServer, owner: Steps, other: Steps, behind: str) -> list[str]:
    """One has the first of each model, and `behind` waits in the lanes. Returns the ids of the first and of these."""
    first = add(server, "".join(dict.fromkeys(behind)))
    assert take(owner, len(first)) == first
    following = add(server, behind)
    while other.turn(room=100).left != following[-1]:
        pass
    return [*first, *following]


def test_the_owner_gets_what_waits_in_the_call_that_acknowledges(join: Any, server: RedisServer) -> None:
    one, two = join("one"), join("two")
    first, *following = hold(server, one, two, "aaa")
    turn = one.turn([first], [b"a"], room=1, demand=3)
    assert (ids(turn), turn.waiting) == (following, 0)
    assert [entry.is_begun for entry in turn.entries] == [True, False, False]
    assert [entry.lane for entry in turn.entries] == [b"a"] * 3
    assert pending(server) == {following[0]: ("one", 1), following[1]: ("one", 0), following[2]: ("one", 0)}
    assert (owners(server), free(server)) == ({"a": "one"}, set())


def test_a_lane_ends_where_nothing_waits(join: Any, server: RedisServer) -> None:
    (entry,) = add(server, "a")
    one = join("one")
    one.turn(room=1)
    one.turn([entry], [b"a"])
    assert (owners(server), free(server), pending(server)) == ({}, set(), {})


def test_a_hundred_are_given_at_once_and_lanes_share_them(join: Any, server: RedisServer) -> None:
    one, two = join("one"), join("two")
    first, second, *following = hold(server, one, two, "ab" * 110)
    turn = one.turn([first, second], [b"a", b"b"], room=2)
    assert (ids(turn), turn.waiting) == ([*following[:100:2], *following[1:100:2]], 120)
    turn = one.turn(ids(turn)[:50], [b"a"], room=2)
    assert (ids(turn), turn.waiting) == (following[100::2], 60)


def test_free_lanes_share_what_is_given(join: Any, server: RedisServer) -> None:
    one, two = join("one"), join("two")
    first, second, *_ = hold(server, one, two, "ab" * 110)
    one.turn([first, second], [b"a", b"b"])
    turn = two.turn(room=2)
    assert (len(turn.entries), turn.waiting, owners(server)) == (100, 120, {"a": "two", "b": "two"})
    assert {lane: sum(entry.lane == lane for entry in turn.entries) for lane in (b"a", b"b")} == {b"a": 50, b"b": 50}


def test_a_lane_for_which_its_owner_has_no_room_is_free_for_others(join: Any, server: RedisServer) -> None:
    one, two = join("one"), join("two")
    first = hold(server, one, two, "ab")
    turn = one.turn(first[:2], [b"a", b"b"], room=1)
    assert (ids(turn), turn.waiting) == ([first[2]], 1)
    assert (owners(server), free(server)) == ({"a": "one", "b": ""}, {"b"})
    assert ids(two.turn(room=1)) == [first[3]]
    assert (owners(server), free(server)) == ({"a": "one", "b": "two"}, set())
    assert pending(server) == {first[2]: ("one", 0), first[3]: ("two", 0)}


def test_without_room_nothing_is_taken_from_a_lane(join: Any, server: RedisServer) -> None:
    one, two = join("one"), join("two")
    first, second = hold(server, one, two, "a")
    assert one.turn([first], [b"a"], room=0).entries == []
    assert (owners(server), free(server), waiting(server)) == ({"a": ""}, {"a"}, 1)
    assert pending(server) == {second: (WAITING_CONSUMER, 0)}


def test_lanes_go_on_before_anything_is_read(join: Any, server: RedisServer) -> None:
    one, two = join("one"), join("two")
    first, second = hold(server, one, two, "a")
    add(server, "b")
    assert ids(one.turn([first], [b"a"], room=1)) == [second]


def test_free_lanes_and_new_entries_come_first_by_turns(join: Any, server: RedisServer) -> None:
    one, two, three = join("one"), join("two"), join("three")
    first = hold(server, one, two, "ab")
    one.turn(first[:2], [b"a", b"b"])
    new = add(server, "cd")
    assert free(server) == {"a", "b"}
    came_first = [three.turn(room=1) for _ in range(4)]
    assert [entry.lane in (b"a", b"b") for turn in came_first for entry in turn.entries] == [True, False, True, False]
    assert sorted(entry for turn in came_first for entry in ids(turn)) == sorted([*first[2:], *new])


@pytest.mark.parametrize("field", ["data", "other"])
def test_large_entries_of_a_lane_are_given_a_few_at_a_time(join: Any, server: RedisServer, field: str) -> None:
    """Also if what is large is not returned."""
    one, two = join("one"), join("two")
    (first,) = add(server, "a")
    one.turn(room=1)
    following = add(server, "aaaa", **{field: b"x" * 600_000})
    while two.turn(room=100).left != following[-1]:
        pass
    turn = one.turn([first], [b"a"], room=5)
    assert (ids(turn), turn.waiting) == (following[:2], 2)
    assert ids(one.turn(following[:2], [b"a"], room=5)) == following[2:]


def test_the_order_of_ids_is_that_of_their_numbers(join: Any, server: RedisServer) -> None:
    one, two = join("one"), join("two")
    wanted = ["9-9", "9-10", "10-0", "10-2", "100-0", "18446744073709551614-18446744073709551615"]
    with server.client() as client:
        client.xadd(STREAM, {"partitionkey": "a"}, id="1-0")
        assert len(ids(one.turn(room=1))) == 1
        for entry in wanted:
            client.xadd(STREAM, {"partitionkey": "a"}, id=entry)
    two.turn(room=10)
    assert ids(one.turn(["1-0"], [b"a"], room=1)) == wanted


@pytest.mark.parametrize("fields", [
    {"partitionkey": "a/b", "ce_subject": "other/1"}, {"ce_subject": "a/b/1"}, {"ce_subject": "a/b"[:3] + "/"},
])  # fmt: skip
def test_the_model_is_the_partition_key_or_the_subject_without_its_version(
    join: Any, server: RedisServer, fields: dict[str, str]
) -> None:
    with server.client() as client:
        client.xadd(STREAM, fields)
    assert join("one").turn(room=1).entries[0].lane == b"a/b"


def test_only_the_fields_that_say_what_an_entry_holds_are_returned(join: Any, server: RedisServer) -> None:
    one, two = join("one"), join("two")
    needed = ["data", "x", "replay_group", "g", "data", "y", "content-type", "z"]
    for entry in "1-1", "1-2":
        server.execute("XADD", STREAM, entry, "partitionkey", "a", "ce_id", "1", *needed, "__index", "data")
    server.execute("XADD", STREAM, "1-3", "partitionkey", "a")
    (new,) = one.turn(room=1).entries
    two.turn(room=5)
    waited, empty = one.turn(["1-1"], [b"a"], room=5).entries
    assert new.fields == waited.fields == [part.encode() for part in needed]
    assert empty.fields == []


def test_an_entry_without_a_model_has_a_lane(join: Any, server: RedisServer) -> None:
    with server.client() as client:
        client.xadd(STREAM, {"other": "x"})
        client.xadd(STREAM, {"ce_subject": "no slash"})
    assert [entry.lane for entry in join("one").turn(room=2).entries] == [b"", b"no slash"]


def test_what_a_consumer_without_lanes_took_is_not_given(join: Any, server: RedisServer) -> None:
    one, two = join("one"), join("two")
    first, second, third = hold(server, one, two, "aa")
    claim(server, "plain", second)
    assert ids(one.turn([first], [b"a"], room=1)) == [third]
    assert pending(server)[second][0] == "plain"
    assert waiting(server) == 0


def test_a_lane_full_of_what_others_took_is_set_free_instead_of_holding_up_redis(
    join: Any, server: RedisServer
) -> None:
    one, two = join("one"), join("two")
    first, *following = hold(server, one, two, "a" * 260)
    claim(server, "plain", *following)
    turn = one.turn([first], [b"a"], room=1)
    assert (turn.entries, turn.waiting) == ([], 160)
    assert (owners(server), free(server)) == ({"a": ""}, {"a"})


def test_what_was_deleted_while_it_waited_is_acknowledged(join: Any, server: RedisServer) -> None:
    one, two = join("one"), join("two")
    first, second, third = hold(server, one, two, "aa")
    server.execute("XDEL", STREAM, second)
    assert ids(one.turn([first], [b"a"], room=1)) == [third]
    assert list(pending(server)) == [third]


def test_nobody_takes_a_lane_that_has_an_owner(join: Any, server: RedisServer) -> None:
    one, two = join("one"), join("two")
    hold(server, one, two, "a")
    server.execute("SADD", FREE, "a")
    assert two.turn(room=5).entries == []
    assert owners(server) == {"a": "one"}


def test_a_lane_goes_on_at_its_owner_s_word_alone(join: Any, server: RedisServer) -> None:
    one, two = join("one"), join("two")
    hold(server, one, two, "a")
    assert two.turn((), [b"a"], room=5).entries == []
    assert (owners(server), waiting(server)) == ({"a": "one"}, 1)


def test_a_turn_acknowledges_what_is_its_own_alone(join: Any, server: RedisServer) -> None:
    entries = add(server, "ab")
    one, two = join("one"), join("two")
    one.turn(room=1)
    two.turn(room=1)
    one.turn(entries)
    assert list(pending(server)) == entries[1:]


def test_what_is_acknowledged_may_come_in_any_order_and_twice(join: Any, server: RedisServer) -> None:
    """Far more is in flight than one page that Redis is asked for, and some of the ids are another's or nobody's."""
    entries = add(server, MANY)
    one, two = join("one"), join("two")
    take(one, 240)
    others = take(two, 10)
    done = [entries[239], entries[0], entries[100], *entries[5:8]]
    one.turn([others[0], *done, "1-1", done[0]])
    assert pending(server) == {
        **{entry: ("one", 0) for entry in entries[:240] if entry not in done},
        **dict.fromkeys(others, ("two", 0)),
    }


def test_attempts_are_noted_for_what_is_one_s_own(join: Any, server: RedisServer) -> None:
    a, b, c = add(server, "abc")
    one, two = join("one"), join("two")
    one.turn(room=2)
    two.turn(room=1)
    assert one.turn(begins=[(a, 3), (c, 5), (b, 7)]).kept == [True, False, True]
    assert pending(server) == {a: ("one", 3), b: ("one", 7), c: ("two", 0)}


def test_lanes_that_go_on_and_free_ones_share_the_room(join: Any, server: RedisServer) -> None:
    one, two = join("one"), join("two")
    first = hold(server, one, two, "abc")
    one.turn(first[1:3], [b"b", b"c"])
    assert free(server) == {"b", "c"}
    turn = one.turn(first[:1], [b"a"], room=2)
    assert (len(turn.entries), len(free(server)), turn.waiting) == (2, 1, 1)


def test_what_was_begun_before_is_not_begun_at_once(join: Any, server: RedisServer) -> None:
    """Its consumer may have died of it."""
    (entry,) = add(server, "a")
    one, two = join("one"), join("two")
    one.turn(room=1, demand=1)
    two.release("one")
    two.tidy()
    (given,) = two.turn(room=1, demand=1).entries
    assert (given.id, given.attempts, given.is_begun) == (entry, 1, False)


def test_a_full_memory_stops_nobody(join: Any, server: RedisServer) -> None:
    """A consumer makes room: what it acknowledges can be trimmed."""
    first, second, third = add(server, "aab")
    one, two = join("one"), join("two")
    one.turn(room=1)
    server.execute("CONFIG", "SET", "maxmemory", "1")
    try:
        assert two.turn(room=1).waiting == 1
        assert one.keep([first]) == [True]
        assert ids(one.turn([first], [b"a"], room=1)) == [second]
        assert one.release("one") == ("", 1)
        server.execute("HDEL", LANES, "a")
        two.tidy()
        assert free(server) == {"a"}
    finally:
        server.execute("CONFIG", "SET", "maxmemory", "0")
    assert pending(server) == {second: (WAITING_CONSUMER, 0), third: ("two", 0)}


def test_it_lives_for_half_a_claim(join: Any, server: RedisServer) -> None:
    one = join("one", claim_seconds=100.0)
    alive = KEYS.alive("deployer", "one")
    one.turn()
    assert 40_000 < server.execute("PTTL", alive) <= 50_000
    server.execute("DEL", alive)
    one.keep([])
    assert 40_000 < server.execute("PTTL", alive) <= 50_000


# -- renewing


def test_a_claim_is_renewed_for_what_is_one_s_own_and_says_so(join: Any, server: RedisServer) -> None:
    mine, other, *_ = entries = add(server, "ab")
    one, two = join("one"), join("two")
    one.turn(room=1, demand=1)
    two.turn(room=1)
    claim(server, "one", mine, idle=500_000, retrycount=2)
    assert one.keep(entries) == [True, False]
    with server.client() as client:
        (row,) = client.xpending_range(STREAM, "deployer", mine, mine, 1)
        assert row["time_since_delivered"] < 400_000
        assert row["times_delivered"] == 2
    assert pending(server)[other] == ("two", 0)


def test_more_claims_than_a_page_are_renewed(join: Any, server: RedisServer) -> None:
    entries = add(server, MANY)
    one = join("one")
    take(one, 250)
    assert one.keep([*entries, "1-1"]) == [True] * 250 + [False]


# -- putting back


def test_what_is_put_back_waits_with_the_attempts_that_are_known(join: Any, server: RedisServer) -> None:
    a, b, c, d = add(server, "abcd")
    one = join("one")
    one.turn(room=4, demand=3)
    one.turn(begins=[(c, 2)])
    one.release_own({a: 3, d: ""}, lives=True)
    assert pending(server) == {
        a: (WAITING_CONSUMER, 3), b: (WAITING_CONSUMER, 0), c: (WAITING_CONSUMER, 2), d: ("one", 0),
    }  # fmt: skip
    assert owners(server) == dict.fromkeys("abcd", "one")


def test_of_one_that_died_all_attempts_count(join: Any, server: RedisServer) -> None:
    (entry,) = add(server, "a")
    join("one").turn(room=1, demand=1)
    assert join("two").release("one") == ("", 1)
    assert pending(server) == {entry: (WAITING_CONSUMER, 1)}


def test_what_is_not_idle_for_as_long_stays(join: Any, server: RedisServer) -> None:
    old, _ = add(server, "ab")
    one, two = join("one"), join("two")
    one.turn(room=2)
    claim(server, "one", old, idle=90_000)
    assert two.release("one", idle_seconds=60) == ("", 1)
    assert [consumer for consumer, _ in pending(server).values()] == [WAITING_CONSUMER, "one"]


def test_it_is_put_back_page_by_page(join: Any, server: RedisServer) -> None:
    entries = add(server, MANY)
    one, two = join("one"), join("two")
    take(one, 250)
    after, count = two.release("one")
    assert (after, count) == (f"({entries[99]}", 100)
    assert waiting(server) == 100
    assert two.release("one", after=f"({entries[199]}") == ("", 50)
    one.release_own({}, lives=True)
    assert set(pending(server).values()) == {(WAITING_CONSUMER, 0)}


def test_a_full_last_page_says_to_go_on(join: Any, server: RedisServer) -> None:
    entries = add(server, "abcdefghij" * 10)
    join("one").turn(room=100)
    two = join("two")
    assert two.release("one") == (f"({entries[-1]}", 100)
    assert two.release("one") == ("", 0)


def test_a_lane_without_an_owner_is_free_for_what_is_put_back(join: Any, server: RedisServer) -> None:
    (entry,) = add(server, "a")
    server.execute("XGROUP", "CREATE", STREAM, "deployer", "0")
    server.execute("XREADGROUP", "GROUP", "deployer", "plain", "STREAMS", STREAM, ">")
    one = join("one")
    one.release("plain")
    assert (owners(server), free(server)) == ({"a": ""}, {"a"})
    assert ids(one.turn(room=1)) == [entry]


def test_what_was_deleted_is_acknowledged_when_it_is_put_back(join: Any, server: RedisServer) -> None:
    (entry,) = add(server, "a")
    one = join("one")
    one.turn(room=1)
    server.execute("XDEL", STREAM, entry)
    assert one.release("one") == ("", 1)
    assert (pending(server), waiting(server)) == ({}, 0)


def test_one_is_put_back_alone(join: Any, server: RedisServer) -> None:
    a, b, c = add(server, "abc")
    one = join("one")
    one.turn(room=3, demand=3)
    one.release_one(b, 4)
    assert pending(server) == {a: ("one", 1), b: (WAITING_CONSUMER, 4), c: ("one", 1)}


# -- tidying


def test_lanes_whose_owner_has_nothing_pending_are_set_free(join: Any, server: RedisServer) -> None:
    one, two = join("one"), join("two")
    first = hold(server, one, two, "ab")
    assert two.tidy() == []
    assert free(server) == set()
    server.execute("XACK", STREAM, "deployer", first[0])
    two.tidy()
    assert free(server) == set()  # it has the other one
    server.execute("XACK", STREAM, "deployer", first[1])
    two.tidy()
    assert (owners(server), free(server)) == ({"a": "", "b": ""}, {"a", "b"})


def test_lanes_that_nobody_owns_are_free_again_where_that_was_lost(join: Any, server: RedisServer) -> None:
    one, two = join("one"), join("two")
    hold(server, one, two, "ab")
    server.execute("HDEL", LANES, "a")
    server.execute("HSET", LANES, "b", "")
    two.tidy()
    assert (owners(server), free(server)) == ({"a": "", "b": ""}, {"a", "b"})


def test_one_learns_its_own_lanes_and_sets_them_free_when_it_leaves(join: Any, server: RedisServer) -> None:
    one, two = join("one"), join("two")
    hold(server, one, two, "ab")
    assert sorted(one.tidy()) == [b"a", b"b"]
    assert free(server) == set()
    one.release_own({}, lives=True)
    assert one.tidy(leaving=True) == []
    assert free(server) == {"a", "b"}


def test_all_lanes_are_looked_at_page_by_page(join: Any, server: RedisServer) -> None:
    one, two = join("one"), join("two")
    hold(server, one, two, MANY)
    assert sorted(lane.decode() for lane in one.tidy()) == sorted(MANY)


# -- the group, names and dead letters


def test_a_group_is_made_once_and_has_none_of_the_lanes_before_it(join: Any, server: RedisServer) -> None:
    server.execute("HSET", LANES, "a", "nobody")
    server.execute("ZADD", WAITING, "0", "1:a 0")
    server.execute("SADD", FREE, "a")
    (entry,) = add(server, "a")
    one = Steps(server, "one")
    assert one.create_group("$") is True
    assert server.execute("EXISTS", LANES, WAITING, FREE) == 0
    server.execute("HSET", LANES, "b", "two")
    assert one.create_group("0") is False
    assert owners(server) == {"b": "two"}
    assert one.turn(room=1)[:2] == (entry, [])
    one.close()


def test_what_keeps_a_group_from_being_made_is_an_error(server: RedisServer) -> None:
    server.execute("SET", STREAM, "no stream")
    one = Steps(server, "one")
    with pytest.raises(RedisError, match="WRONGTYPE"):
        one.create_group("0")
    one.close()


def test_a_name_goes_unless_something_is_pending_with_it(join: Any, server: RedisServer) -> None:
    (entry,) = add(server, "a")
    one, two = join("one"), join("two")
    one.turn(room=1)
    two.turn(room=1)
    assert two.forget("one") is False
    assert pending(server) == {entry: ("one", 0)}
    one.turn([entry])
    assert two.forget("one") is True
    with server.client() as client:
        assert [each["name"] for each in client.xinfo_consumers(STREAM, "deployer")] == [b"two"]
    assert server.execute("EXISTS", KEYS.alive("deployer", "two")) == 1
    assert two.forget("two") is True
    assert server.execute("EXISTS", KEYS.alive("deployer", "two")) == 0


def letters(server: RedisServer) -> list[list[tuple[bytes, bytes]]]:
    with server.client() as client:
        return [list(fields.items()) for _, fields in client.xrange(DEAD_LETTERS)]


def test_a_dead_letter_has_the_entry_s_fields_and_its_own(join: Any, server: RedisServer) -> None:
    with server.client() as client:
        entry = client.xadd(
            STREAM, {"partitionkey": "a", "dl_reason": "before", "replay_group": "g", "data": "x", "extra": "y"}
        ).decode()
    one = join("one")
    one.turn(room=1)
    assert join("two").dead_letter(entry, {"dl_reason": "R"}) is False
    assert letters(server) == []
    assert one.dead_letter(entry, {"dl_reason": "R", "dl_detail": "D"}) is True
    assert letters(server) == [[
        (b"partitionkey", b"a"), (b"data", b"x"), (b"extra", b"y"), (b"dl_reason", b"R"), (b"dl_detail", b"D"),
    ]]  # fmt: skip
    assert pending(server) == {}


def test_of_a_deleted_entry_there_is_no_dead_letter(join: Any, server: RedisServer) -> None:
    (entry,) = add(server, "a")
    one = join("one")
    one.turn(room=1)
    server.execute("XDEL", STREAM, entry)
    assert one.dead_letter(entry, {"dl_reason": "R"}) is True
    assert (letters(server), pending(server)) == ([], {})


def test_a_stranger_s_many_fields_are_cut_and_ours_are_kept(join: Any, server: RedisServer) -> None:
    ours = [("ce_id", "1"), ("correlationid", "2"), ("traceparent", "3"), ("content-type", "4"), ("data", "5")]
    strange = [(f"field {number}", "x") for number in range(2500)]
    with server.client() as client:
        entry = client.xadd(STREAM, dict([("partitionkey", "a"), *strange, *ours])).decode()
    one = join("one")
    one.turn(room=1)
    assert one.dead_letter(entry, {"dl_reason": "R"}) is True
    (fields,) = letters(server)
    names = [name.decode() for name, _ in fields]
    assert names == ["partitionkey", *(name for name, _ in strange[:1000]), *(name for name, _ in ours), "dl_reason"]


def test_of_a_name_of_ours_there_are_a_hundred_at_most(join: Any, server: RedisServer) -> None:
    server.execute("XADD", STREAM, "1-1", *(part for number in range(150) for part in (f"ce_{number}", "x")))
    one = join("one")
    one.turn(room=1)
    assert one.dead_letter("1-1", {"dl_reason": "R"}) is True
    assert len(letters(server)[0]) == 101


def test_a_dead_letter_that_cannot_be_written_leaves_its_entry_pending(join: Any, server: RedisServer) -> None:
    (entry,) = add(server, "a")
    one = join("one")
    one.turn(room=1)
    server.execute("SET", DEAD_LETTERS, "no stream")
    with pytest.raises(RedisError, match="WRONGTYPE"):
        one.dead_letter(entry, {"dl_reason": "R"})
    assert pending(server) == {entry: ("one", 0)}


# -- all of them together


class Play:
    """Three consumers and what each holds: by model, in order."""

    def __init__(self, server: RedisServer, join: Callable[..., Steps], seed: int) -> None:
        self.random = random.Random(seed)
        self.server = server
        self.order = {lane: add(server, lane * 12) for lane in "abc"}
        self.consumers = {name: join(name) for name in ("one", "two", "three")}
        self.held: dict[str, dict[str, list[str]]] = {name: {} for name in self.consumers}
        self.handled: dict[str, list[str]] = {lane: [] for lane in self.order}

    def turn(self, name: str, *arguments: Any, room: int, demand: int = 0) -> None:
        for entry in self.consumers[name].turn(*arguments, room=room, demand=demand).entries:
            self.held[name].setdefault(entry.lane.decode(), []).append(entry.id)

    def step(self) -> None:
        steps = [self.read, self.read, self.handle, self.handle, self.handle, self.put_back, self.die, self.go_on]
        self.random.choice(steps)(self.random.choice(sorted(self.consumers)))

    def read(self, name: str) -> None:
        self.turn(name, room=self.random.randint(0, 3), demand=self.random.randint(0, 2))

    def handle(self, name: str) -> None:
        if mine := self.held[name]:
            lane = self.random.choice(sorted(mine))
            done = mine[lane].pop(0)
            self.handled[lane].append(done)
            if not mine[lane]:
                del mine[lane]
            self.turn(name, [done], [] if lane in mine else [lane.encode()], room=self.random.randint(0, 2))

    def put_back(self, name: str) -> None:
        self.held[name].clear()
        self.consumers[name].release_own({}, lives=True)
        self.go_on(name)

    def die(self, name: str) -> None:
        self.held[name].clear()
        other = self.consumers[self.random.choice(sorted(self.consumers.keys() - {name}))]
        other.release(name)
        other.tidy()

    def go_on(self, name: str) -> None:
        lanes = [lane for lane in self.consumers[name].tidy() if lane.decode() not in self.held[name]]
        self.turn(name, (), lanes, room=1)

    def finish(self, name: str) -> None:
        done = [entry for entries in self.held[name].values() for entry in entries]
        for lane, entries in self.held[name].items():
            self.handled[lane] += entries
        lanes = {lane.encode() for lane in self.held[name]} | set(self.consumers[name].tidy())
        self.held[name].clear()
        self.turn(name, done, sorted(lanes), room=5)

    def check(self) -> None:
        """Each entry is in one place, and of each model one consumer has all that is held."""
        for lane, entries in self.order.items():
            assert self.handled[lane] == entries[: len(self.handled[lane])]
            assert sum(lane in mine for mine in self.held.values()) <= 1
        with_whom = {entry: consumer for entry, (consumer, _) in pending(self.server).items()}
        for name, mine in self.held.items():
            own = [entry for entry, consumer in with_whom.items() if consumer == name]
            assert sorted(own) == sorted(entry for entries in mine.values() for entry in entries)
        assert waiting(self.server) == list(with_whom.values()).count(WAITING_CONSUMER)
        assert free(self.server) == {lane for lane, owner in owners(self.server).items() if not owner}


@pytest.mark.parametrize("seed", range(3))
def test_whatever_steps_follow_each_other_none_is_lost_and_each_model_keeps_its_order(
    join: Any, server: RedisServer, seed: int
) -> None:
    """Consumers handle, put back and die, in any order."""
    play = Play(server, join, seed)
    for _ in range(50):
        play.step()
        play.check()
    for _ in range(50):
        for name in play.consumers:
            play.finish(name)
            play.check()
        if play.handled == play.order:
            break
    assert play.handled == play.order
    assert (pending(server), owners(server), waiting(server)) == ({}, {}, 0)
