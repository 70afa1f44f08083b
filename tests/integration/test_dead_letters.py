"""Dead letters are listed, read, replayed and discarded, and a replay makes nothing twice and loses nothing."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from modelready.credentials import StaticCredentials
from modelready.entry import encode_list_message
from modelready.ids import uuid7
from modelready.redis.settings import RedisSettings
from modelready.v1 import queue_service_pb2 as pb
from sidecar.errors import SetupFault
from sidecar.metrics import Metrics
from sidecar.operations.dead_letters import DeadLetters, Filter
from sidecar.redisstream.connection import RedisConnection
from sidecar.redisstream.dead_letters import DeadLetterStream
from sidecar.settings import QueueSettings
from tests.harness.ports import LOOPBACK, PortLease
from tests.harness.redis_server import RedisServer, available_binaries
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import patience, until
from tests.integration.calls import (
    DUPLICATE,
    KEYS,
    STORED,
    Caller,
    Code,
    Refusal,
    calling,
    entries,
    model_event,
    queued_ids,
    refusal_of,
    to_redis,
)
from tests.integration.operators import ALL, Operator, bury, give_up, operating

LIST = "deployments"
FOREVER_MS = 3_600_000


@pytest.fixture(scope="module", params=sorted(available_binaries()))
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(binary=available_binaries()[request.param]) as running:
        yield running


@pytest.fixture(scope="module")
def sidecar(server: RedisServer) -> Iterator[SidecarProcess]:
    with SidecarProcess(to_redis(server, QUEUE_LIST=LIST)) as running:
        yield running


def pending(server: RedisServer, group: str) -> list[str]:
    with server.client() as client:
        found: Any = client.xpending_range(KEYS.events, group, "-", "+", 100)
    return [one["message_id"].decode() for one in found]


def taken_over(server: RedisServer, group: str) -> list[str]:
    """The event ids that a consumer which takes over from dead ones is given, and acknowledges."""
    with server.client() as client:
        reply: Any = client.xautoclaim(KEYS.events, group, "taker", FOREVER_MS, "0-0")
        for entry_id, _ in reply[1]:
            client.xack(KEYS.events, group, entry_id)
    return [fields[b"ce_id"].decode() for _, fields in reply[1]]


def new_for(server: RedisServer, group: str) -> list[dict[bytes, bytes]]:
    with server.client() as client:
        reply: Any = client.xreadgroup(group, "c", {KEYS.events: ">"}, count=100)
    return [fields for _, fields in next(iter(reply.values()))[0]] if reply else []


# -- list and get


def test_they_are_listed_oldest_first_page_by_page(server: RedisServer, operator: Operator) -> None:
    ids = [bury(server, model_event(number)) for number in range(7)]
    first = operator.page(3)
    second = operator.page(3, first.next_page_token)
    third = operator.page(3, second.next_page_token)
    pages = [[letter.id for letter in page.dead_letters] for page in (first, second, third)]
    assert pages == [ids[:3], ids[3:6], ids[6:]]
    assert third.next_page_token == ""
    assert [letter.id for letter in operator.list()] == ids


def test_filters_select_and_all_that_is_set_must_hold(server: RedisServer, operator: Operator) -> None:
    now = time.time_ns() // 1_000_000
    old = bury(server, model_event(), letter_id=f"{now - 60_000}-0")
    poison = bury(server, model_event(), reason="HANDLER_FAILED", origin="group:a")
    other = model_event()
    other.model.name = "fraud/eu"
    slashed = bury(server, other, origin="group:b")
    damaged = bury(server, model_event(), reason="UNDECODABLE", data=b"\xff")

    def listed(**fields: Any) -> list[str]:
        return [letter.id for letter in operator.list(**fields)]

    assert listed(reason="HANDLER_FAILED") == [poison]
    assert listed(origin="sidecar") == [old, damaged]
    assert listed(origin="group:b") == [slashed]
    assert listed(model="fraud") == [old, poison, damaged]
    assert listed(model="fraud/eu") == [slashed]
    assert listed(older_than=30) == [old]
    assert listed(newer_than=30) == [poison, slashed, damaged]
    assert listed(newer_than=30, size=1) == [poison, slashed, damaged]
    assert listed(model="fraud", newer_than=30, reason="UNDECODABLE") == [damaged]
    assert listed(reason="NONE") == []


def test_a_scan_that_finds_nothing_is_bounded_and_goes_on(server: RedisServer, operator: Operator) -> None:
    with server.client() as client, client.pipeline(transaction=False) as pipe:
        for _ in range(10_001):
            pipe.xadd(KEYS.dead_letters, {"dl_reason": "A"})
        pipe.execute()
    last = bury(server, model_event(), reason="B")
    page = operator.page(reason="B")
    assert not page.dead_letters
    for _ in range(20):  # a call ends after a second, too
        page = operator.page(token=page.next_page_token, reason="B")
        if page.dead_letters:
            break
    assert [letter.id for letter in page.dead_letters] == [last]


def test_one_is_shown_whole_in_both_encodings(server: RedisServer, operator: Operator) -> None:
    event = model_event(correlation_id="c-1")
    entry_id = "1700000000000-7"
    letter = operator.get(bury(server, event, origin="group:a", reason="HANDLER_FAILED", entry_id=entry_id))
    assert letter.event == event
    assert letter.data == event.SerializeToString(deterministic=True)
    assert (letter.event_id, letter.reason, letter.detail) == (event.event_id, "HANDLER_FAILED", "a detail")
    assert (letter.origin, letter.attempts, letter.entry_id) == ("group:a", 3, entry_id)
    assert (letter.subject, letter.correlation_id) == ("fraud/7", "c-1")
    assert letter.content_type == "application/protobuf"
    assert abs(letter.dead_at.seconds - time.time()) < 10
    assert abs(letter.first_at.seconds - time.time()) < 10
    assert letter.last_at == letter.first_at
    (listed,) = operator.list()
    assert not listed.HasField("event")
    assert not listed.data
    as_json = b'{"event_id":"j","model":{"name":"m","version":"1"},"artifact":{"uri":"s3://m"}}'
    fields: dict[str, Any] = {"content-type": b"application/json", "data": as_json}
    assert operator.get(bury(server, event, **fields)).event.model.name == "m"
    damaged = operator.get(bury(server, event, data=b"\xff\x00"))
    assert not damaged.HasField("event")
    assert damaged.data == b"\xff\x00"


def test_what_another_program_wrote_breaks_nothing(server: RedisServer, operator: Operator) -> None:
    strange = {"dl_attempts": "-3", "dl_first_at": "yesterday", "dl_last_at": "9" * 30, "dl_reason": b"\xff"}
    with server.client() as client:
        client.xadd(KEYS.dead_letters, strange, id="18446744073709551614-5")
    (letter,) = operator.list()
    assert (letter.attempts, letter.HasField("first_at"), letter.HasField("dead_at")) == (0, False, False)
    assert operator.replay() == (0, 0, 1)
    assert operator.discard() == (1, 0)
    no_json = model_event()
    no_json.evaluation.baseline_value = float("nan")
    bury(server, no_json)
    bury(server, model_event())
    assert operator.replay() == (1, 0, 1)


@pytest.mark.parametrize("bad", ["", "7", "a-1", "1-2-3", "99999999999999999999-0", "\u0661\u0662-\u0663"])
def test_a_bad_request_names_the_field(operator: Operator, bad: str) -> None:
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: operator.get(bad), "id"),
        (lambda: operator.replay(["1-1", bad]), "ids.ids[1]"),
        (lambda: operator.discard([bad]), "ids.ids[0]"),
        (lambda: operator.page(token=bad or "*"), "page_token"),
        (lambda: operator.page(1001), "page_size"),
        (lambda: operator.page(-1), "page_size"),
        (lambda: operator.replay([]), "ids.ids"),
        (lambda: operator.discard(["1-1"] * 1001), "ids.ids"),
        (lambda: operator.replay(max_per_second=-1), "max_per_second"),
        (lambda: operator.replay(target=9), "target"),  # type: ignore[arg-type]
        (lambda: operator.discard(older_than=-1), "filter.older_than"),
        (lambda: operator.stub.ReplayDeadLetters(pb.ReplayDeadLettersRequest(), timeout=5), "selection"),
        (lambda: operator.stub.DiscardDeadLetters(pb.DiscardDeadLettersRequest(), timeout=5), "selection"),
    ]
    for call, field in calls:
        refusal = refusal_of(call)
        assert (refusal.code, refusal.reason, refusal.fields) == (Code.INVALID_ARGUMENT, "INVALID_REQUEST", (field,))


def test_one_that_is_not_there_is_not_found(operator: Operator) -> None:
    refusal = refusal_of(lambda: operator.get("1-1"))
    assert (refusal.code, refusal.reason) == (Code.NOT_FOUND, "NOT_FOUND")


# -- replay to the group that gave it up


def test_a_group_s_dead_letter_goes_back_to_that_group_alone(
    server: RedisServer, operator: Operator, publisher: Caller
) -> None:
    with server.client() as client:
        for group in ("a", "b"):
            client.xgroup_create(KEYS.events, group, id="0", mkstream=True)
    event_id = publisher.publish().event_id
    (letter,) = give_up(server, "a")
    assert len(new_for(server, "b")) == 1
    assert operator.replay([letter]) == (1, 0, 0)
    assert operator.list() == []
    assert len(pending(server, "a")) == 1
    assert len(pending(server, "b")) == 1
    assert len(entries(server)) == 1
    assert operator.replay([letter]) == (0, 1, 0)
    assert taken_over(server, "a") == [event_id]
    assert taken_over(server, "a") == []
    assert new_for(server, "a") == []
    assert server.execute("LLEN", LIST) == 1


def test_what_was_trimmed_comes_as_a_new_entry_for_its_group(
    server: RedisServer, operator: Operator, publisher: Caller
) -> None:
    with server.client() as client:
        client.xgroup_create(KEYS.events, "a", id="0", mkstream=True)
        event_id = publisher.publish().event_id
        (letter,) = give_up(server, "a")
        client.xtrim(KEYS.events, maxlen=0, approximate=False)
    assert operator.replay([letter]) == (1, 0, 0)
    assert operator.replay([letter]) == (0, 1, 0)
    (fields,) = new_for(server, "a")
    assert fields[b"replay_group"] == b"a"
    assert fields[b"ce_id"].decode() == event_id
    assert not [name for name in fields if name.startswith(b"dl_")]
    again = bury(server, model_event(event_id=event_id), origin="group:a", replay_group=b"a")
    assert operator.replay([again], target=ALL) == (1, 0, 0)
    assert b"replay_group" not in new_for(server, "a")[0]
    assert server.execute("LLEN", LIST) == 2  # when it was published, and by the replay to all


def test_one_in_flight_or_still_to_be_delivered_is_left_alone(
    server: RedisServer, operator: Operator, publisher: Caller
) -> None:
    with server.client() as client:
        client.xgroup_create(KEYS.events, "a", id="0", mkstream=True)
        publisher.publish()
        (letter,) = give_up(server, "a")
        client.xgroup_setid(KEYS.events, "a", "0")
        assert operator.replay([letter]) == (1, 0, 0)
        assert pending(server, "a") == []
        assert len(new_for(server, "a")) == 1
        entry_id = pending(server, "a")[0]
        again = bury(server, model_event(), origin="group:a", entry_id=entry_id)
        assert operator.replay([again]) == (1, 0, 0)
        (one,) = client.xpending_range(KEYS.events, "a", "-", "+", 10)
        assert one["consumer"] == b"c"


def test_without_its_group_it_stays_a_dead_letter(server: RedisServer, operator: Operator, publisher: Caller) -> None:
    letter = bury(server, model_event(), origin="group:gone")
    for dry_run in (True, False):
        assert operator.replay([letter], dry_run=dry_run) == (0, 0, 1)
    publisher.publish()
    assert operator.replay([letter]) == (0, 0, 1)
    assert [one.id for one in operator.list()] == [letter]


def test_a_group_gets_back_byte_for_byte_what_nobody_can_read(server: RedisServer, operator: Operator) -> None:
    with server.client() as client:
        client.xgroup_create(KEYS.events, "a", id="0", mkstream=True)
    letter = bury(server, model_event(), origin="group:a", data=b"\xff\x00")
    assert operator.replay([letter], target=ALL) == (0, 0, 1)
    assert operator.replay([letter]) == (1, 0, 0)
    assert new_for(server, "a")[0][b"data"] == b"\xff\x00"


# -- replay to all


def test_to_all_it_is_a_new_event_that_a_publish_duplicates(
    server: RedisServer, operator: Operator, publisher: Caller
) -> None:
    event = model_event()
    with server.client() as client:
        client.xgroup_create(KEYS.events, "a", id="0", mkstream=True)
        publisher.publish(event)
        (letter,) = give_up(server, "a")
        assert operator.replay([letter], target=ALL) == (1, 0, 0)
        assert operator.replay([letter], target=ALL) == (0, 1, 0)
        (first, _), (second, fields) = client.xrange(KEYS.events)
        assert fields == client.xrange(KEYS.events, first, first)[0][1]
        receipt = publisher.publish(event)
        assert (receipt.outcome, receipt.entry_id) == (DUPLICATE, second.decode())
        assert client.pttl(KEYS.seen(event.event_id)) > 86_000_000
        event.occurred_at.FromJsonString(fields[b"ce_time"].decode())
        messages: Any = client.lrange(LIST, 0, -1)
    assert len(messages) == 2
    assert messages[0] == messages[1]


def test_what_the_sidecar_gave_up_goes_to_all(server: RedisServer, operator: Operator, publisher: Caller) -> None:
    event = model_event(source="//s", correlation_id="c")
    event.occurred_at.GetCurrentTime()
    letter = bury(server, event)
    server.execute("SET", KEYS.seen(event.event_id), "-")  # as an append leaves it that failed
    assert operator.replay([letter], dry_run=True) == (1, 0, 0)
    assert entries(server) == []
    assert operator.replay([letter]) == (1, 0, 0)
    assert queued_ids(server) == [event.event_id]
    assert server.execute("LRANGE", LIST, 0, -1) == [encode_list_message(event)]
    assert publisher.publish(event).outcome == DUPLICATE


def test_what_got_into_the_stream_after_all_is_not_added_again(
    server: RedisServer, operator: Operator, publisher: Caller
) -> None:
    event = model_event()
    assert publisher.publish(event).outcome == STORED
    letter = bury(server, event)
    assert operator.replay([letter], target=ALL) == (1, 0, 0)
    assert operator.list() == []
    assert queued_ids(server) == [event.event_id]
    assert server.execute("LLEN", LIST) == 1
    with server.client() as client:  # the list still lacks it: it gets it now
        key = KEYS.seen(event.event_id)
        client.set(key, client.get(key) + b"!")
        assert operator.replay([bury(server, event)]) == (1, 0, 0)
        assert client.llen(LIST) == 2
        assert not client.get(key).endswith(b"!")


def test_it_may_become_a_dead_letter_again(server: RedisServer, operator: Operator) -> None:
    """Its dedup key goes with it, unless it is another one's."""
    event = model_event()
    for act in (operator.replay, operator.discard):
        letter = bury(server, event)
        server.execute("SET", KEYS.seen_dead(event.event_id), letter)
        act([letter])
        assert server.execute("GET", KEYS.seen_dead(event.event_id)) is None
        server.execute("SET", KEYS.seen_dead(event.event_id), "1-1")
        act([bury(server, event)])
        assert server.execute("GET", KEYS.seen_dead(event.event_id)) == b"1-1"


def test_what_comes_back_during_a_replay_is_not_replayed_again(server: RedisServer, operator: Operator) -> None:
    for number in range(130):  # more than are read at a time
        bury(server, model_event(number))
    added = threading.Event()

    def add() -> None:
        until(lambda: len(entries(server)) > 3, 10, "the replay has begun")
        bury(server, model_event())
        added.set()

    thread = threading.Thread(target=add)
    thread.start()
    assert operator.replay(max_per_second=200) == (130, 0, 0)
    thread.join()
    assert added.is_set()
    assert len(operator.list()) == 1


def test_a_replay_keeps_to_its_rate_and_ends_with_its_caller(server: RedisServer, operator: Operator) -> None:
    for number in range(40):
        bury(server, model_event(number))
    began = time.monotonic()
    refusal = refusal_of(lambda: operator.replay(max_per_second=40, timeout=0.4))
    assert refusal.code is Code.DEADLINE_EXCEEDED

    def ended() -> bool:
        before = len(entries(server))
        time.sleep(0.2)  # it would replay eight more
        return len(entries(server)) == before

    until(ended, 10, "it ends")
    assert 1 <= len(entries(server)) <= min(40 * (time.monotonic() - began), 39)
    assert len(operator.list()) + len(entries(server)) == 40
    began = time.monotonic()
    assert operator.replay([letter.id for letter in operator.list(5)[:10]], max_per_second=40) == (10, 0, 0)
    assert 0.2 < time.monotonic() - began < patience(2)


def test_two_replays_at_a_time_make_nothing_twice(server: RedisServer, sidecar: SidecarProcess) -> None:
    server.execute("FLUSHALL")
    ids = sorted(uuid7() for _ in range(300))
    for event_id in ids:
        bury(server, model_event(event_id=event_id))
    done: list[int] = []

    def replay() -> None:
        with operating(sidecar) as operator:
            done.append(operator.replay()[0])

    threads = [threading.Thread(target=replay) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(done) == 300
    assert sorted(queued_ids(server)) == ids


def test_where_the_memory_is_full_it_stays_a_dead_letter(server: RedisServer, operator: Operator) -> None:
    event = model_event()
    bury(server, event)
    server.execute("CONFIG", "SET", "maxmemory", "1")
    refusal = refusal_of(operator.replay)
    server.execute("CONFIG", "SET", "maxmemory", "0")
    assert (refusal.code, refusal.reason) == (Code.UNAVAILABLE, "REDIS_OOM")
    assert len(operator.list()) == 1
    assert entries(server) == []
    assert server.execute("EXISTS", KEYS.seen(event.event_id), LIST) == 0
    assert operator.replay() == (1, 0, 0)


@pytest.mark.parametrize("key", [KEYS.events, LIST])
def test_where_a_key_holds_another_type_it_stays_a_dead_letter(
    server: RedisServer, operator: Operator, key: str
) -> None:
    bury(server, model_event())
    server.execute("SET", key, "something")
    refusal = refusal_of(operator.replay)
    assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "REDIS_WRONG_TYPE")
    server.execute("DEL", key)
    assert len(operator.list()) == 1
    assert server.execute("EXISTS", KEYS.events, LIST) == 0
    assert operator.replay() == (1, 0, 0)


def replaying(server: RedisServer, settings: QueueSettings) -> tuple[DeadLetterStream, RedisConnection]:
    """The store alone."""
    redis = RedisSettings(host=server.host, port=server.port, tls=False)
    connection = RedisConnection(redis, StaticCredentials(), Metrics(), KEYS.events)
    return DeadLetterStream(connection, settings), connection


async def test_a_stream_of_another_type_is_seen_before_the_list_gets_anything(server: RedisServer) -> None:
    """Also where it became one after the replay began."""
    server.execute("FLUSHALL")
    store, connection = replaying(server, QueueSettings(list_names=LIST))
    (letter,) = await store.get([bury(server, model_event())])
    assert letter is not None
    server.execute("SET", KEYS.events, "something")
    with pytest.raises(SetupFault):
        await store.replay(letter, everyone=True)
    assert server.execute("EXISTS", LIST, KEYS.seen(letter.event_id)) == 0
    assert server.execute("XLEN", KEYS.dead_letters) == 1
    await connection.close()


def test_a_group_may_have_a_name_that_is_no_text(server: RedisServer, operator: Operator) -> None:
    group = b"caf\xe9"
    server.execute("XGROUP", "CREATE", KEYS.events, group, "0", "MKSTREAM")
    server.execute("XADD", KEYS.events, "1-1", "n", "1")
    server.execute("XREADGROUP", "GROUP", group, "c", "STREAMS", KEYS.events, ">")
    server.execute("XACK", KEYS.events, group, "1-1")
    letter = bury(server, model_event(), entry_id="1-1")
    for name in (b"group:" + group, b"group:other\xff"):
        fields: list[Any] = ["dl_reason", "A", "dl_origin", name, "dl_entry_id", "1-1", "data", "x"]
        server.execute("XADD", KEYS.dead_letters, "*", *fields)
    assert [one.origin for one in operator.list(reason="A")] == ["group:caf\ufffd", "group:other\ufffd"]
    assert operator.replay(reason="A") == (1, 0, 1)
    assert operator.replay([letter]) == (1, 0, 0)
    with server.client() as client:
        assert len(client.xpending_range(KEYS.events, group, "-", "+", 10)) == 1


@pytest.mark.parametrize("newest_first", [False, True])
async def test_pages_within_ages_end(server: RedisServer, newest_first: bool) -> None:
    """The range moves on while one reads, and ids of one millisecond differ by their sequence number."""
    server.execute("FLUSHALL")
    store, connection = replaying(server, QueueSettings())
    dead_letters = DeadLetters(store, asyncio.Event())
    old = time.time_ns() // 1_000_000 - 60_000
    ids = [bury(server, model_event(), letter_id=f"{old + number // 4}-{number % 4}") for number in range(12)]
    bury(server, model_event())
    selected = Filter(older_than=20.0, newer_than=300.0)
    seen: list[str] = []
    token = ""
    for _ in range(len(ids) + 1):
        page = await dead_letters.list(selected, 1, token, newest_first=newest_first)
        seen += [letter.id for letter in page.letters]
        if not (token := page.next_token):
            break
    assert seen == (ids[::-1] if newest_first else ids)
    assert not token
    await connection.close()


async def test_from_an_exact_age_on_the_pages_go_on_within_that_millisecond(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.execute("FLUSHALL")
    store, connection = replaying(server, QueueSettings())
    dead_letters = DeadLetters(store, asyncio.Event())
    now = time.time_ns() // 1_000_000
    ids = [bury(server, model_event(), letter_id=f"{now - 60_000}-{number}") for number in range(5)]
    monkeypatch.setattr("sidecar.operations.dead_letters.time.time_ns", lambda: now * 1_000_000)
    for selected, newest_first in ((Filter(older_than=60.0), True), (Filter(newer_than=60.0), False)):
        seen: list[str] = []
        token = ""
        for _ in range(len(ids) + 1):
            page = await dead_letters.list(selected, 1, token, newest_first=newest_first)
            seen += [letter.id for letter in page.letters]
            if not (token := page.next_token):
                break
        assert (seen, token) == (ids[::-1] if newest_first else ids, "")
    await connection.close()


# -- discard


def test_discarded_ones_are_gone(server: RedisServer, operator: Operator) -> None:
    ids = [bury(server, model_event(), reason=reason) for reason in "AABBB"]
    assert operator.discard(reason="B", dry_run=True) == (3, 0)
    assert len(operator.list()) == 5
    assert operator.discard(reason="B") == (3, 0)
    assert operator.discard([ids[0], ids[2], ids[0]]) == (1, 1)
    assert [letter.id for letter in operator.list()] == [ids[1]]
    assert entries(server) == []


def test_more_than_a_page_is_discarded_and_replayed(server: RedisServer, operator: Operator) -> None:
    for number in range(250):
        bury(server, model_event(number), reason="A" if number % 2 else "B")
    assert operator.discard(reason="A") == (125, 0)
    assert operator.replay(reason="B") == (125, 0, 0)
    assert operator.replay() == (0, 0, 0)
    assert len(queued_ids(server)) == 125


# -- interrupted


def test_a_replay_whose_sidecar_is_killed_leaves_each_event_in_one_place() -> None:
    count = 2000
    with RedisServer() as server, SidecarProcess(to_redis(server)) as sidecar:
        ids = {uuid7() for _ in range(count)}
        for event_id in ids:
            bury(server, model_event(event_id=event_id))
        failed = threading.Event()

        def replay() -> None:
            with operating(sidecar) as operator:
                try:
                    operator.replay()
                except grpc.RpcError:
                    failed.set()

        thread = threading.Thread(target=replay)
        thread.start()
        until(lambda: server.execute("XLEN", KEYS.events) > 100, 10, "the replay is under way")
        sidecar.kill()
        thread.join()
        assert failed.is_set()
        replayed = queued_ids(server)
        dead = [fields[b"ce_id"].decode() for fields in entries(server, KEYS.dead_letters)]
        print(f"killed after {len(replayed)} of {count}")
        assert 100 < len(replayed) < count
        assert len(set(replayed)) == len(replayed)
        assert set(replayed) & set(dead) == set()
        assert set(replayed) | set(dead) == ids
        sidecar.start()
        with operating(sidecar) as operator:
            assert operator.replay() == (len(dead), 0, 0)
        assert sorted(queued_ids(server)) == sorted(ids)


def test_a_stop_ends_a_replay_between_two(server: RedisServer) -> None:
    server.execute("FLUSHALL")
    for number in range(10):
        bury(server, model_event(number))
    with SidecarProcess(to_redis(server)) as sidecar, operating(sidecar) as operator:
        refusals: list[Refusal] = []
        caller = threading.Thread(target=lambda: refusals.append(refusal_of(lambda: operator.replay(max_per_second=2))))
        caller.start()
        until(lambda: entries(server), 5, "the replay has begun")
        began = time.monotonic()
        assert sidecar.terminate() == 0
        assert time.monotonic() - began < patience(3)
        caller.join()
    assert [(refusal.code, refusal.reason) for refusal in refusals] == [(Code.UNAVAILABLE, "SHUTTING_DOWN")]
    assert len(entries(server)) + len(entries(server, KEYS.dead_letters)) == 10


# -- who may


def test_replay_and_discard_need_the_admin_token(server: RedisServer) -> None:
    env = {"SIDECAR_API_TOKEN": "api", "SIDECAR_ADMIN_TOKEN": "admin"}
    with SidecarProcess(to_redis(server, **env)) as sidecar:
        for token, code, reason in (
            ("", Code.UNAUTHENTICATED, "TOKEN_MISSING"),
            ("wrong", Code.UNAUTHENTICATED, "TOKEN_WRONG"),
            ("api", Code.PERMISSION_DENIED, "ADMIN_ONLY"),
        ):
            with operating(sidecar, token) as operator:
                for act in (operator.replay, operator.discard):
                    refusal = refusal_of(act)
                    assert (refusal.code, refusal.reason) == (code, reason)
        with operating(sidecar, "api") as operator:
            operator.list()
            assert operator.status().redis_up
        with operating(sidecar, "admin") as operator, calling(sidecar, "admin") as publisher:
            operator.list()
            assert publisher.publish().outcome == STORED
            assert operator.replay()[1:] == (0, 0)
            assert operator.discard()[1] == 0


def test_without_an_admin_token_only_this_machine_may(server: RedisServer, tmp_path: Any) -> None:
    host = own_address()
    path = f"unix:{tmp_path}/s.sock"
    near, far = PortLease(), PortLease()
    listen = f"{LOOPBACK}:{near.port},{host}:{far.port},{path}"
    with SidecarProcess(to_redis(server, SIDECAR_LISTEN=listen)):
        for address in (f"{LOOPBACK}:{near.port}", path):
            with grpc.insecure_channel(address) as channel:
                assert Operator(channel).discard()[1] == 0
        with grpc.insecure_channel(f"{host}:{far.port}") as channel:
            operator = Operator(channel)
            for act in (operator.replay, operator.discard):
                refusal = refusal_of(act)
                assert (refusal.code, refusal.reason) == (Code.PERMISSION_DENIED, "ADMIN_ONLY")
            operator.list()
    near.release()
    far.release()


def own_address() -> str:
    """An address of this machine that is not loopback; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no network")
        return str(probe.getsockname()[0])
