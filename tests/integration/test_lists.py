"""Several mirror lists at once: each its format and its labels, each event once in each, whatever fails."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from modelready.credentials import StaticCredentials
from modelready.entry import encode_list_message, first_try
from modelready.redis.settings import RedisSettings
from modelready.v1 import queue_service_pb2 as pb
from modelready.v1.event_pb2 import ModelReadyToDeploy
from sidecar.metrics import Metrics
from sidecar.redisstream.connection import RedisConnection
from sidecar.redisstream.trimmer import RedisTrimmer
from sidecar.settings import QueueSettings
from tests.harness.cluster import Cluster
from tests.harness.redis_server import RedisServer, available_binaries
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.toolchains import built_by_node
from tests.harness.waiting import until
from tests.integration.calls import (
    DUPLICATE,
    KEYS,
    STORED,
    TO_DISK,
    Code,
    calling,
    model_event,
    queued_ids,
    read_error,
    to_redis,
)
from tests.integration.command_line import command
from tests.integration.operators import ALL, Operator, bury, operating
from tests.integration.test_examples import EXAMPLES

SEVERAL = {"QUEUE_LIST": "deployments, audit=payload", "QUEUE_LIST_LABELS": "audit=token_symbol"}
NAMED = {
    "QUEUE_LIST": "deployments,audit=payload",
    "QUEUE_LIST_PROCESSING": "busy:{list}",
    "QUEUE_LIST_DEAD_LETTERS": "failed:{list}",
}
BINARIES = available_binaries()


@pytest.fixture(scope="module", params=sorted(BINARIES))
def shared(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(binary=BINARIES[request.param]) as server:
        yield server


@pytest.fixture
def server(shared: RedisServer) -> RedisServer:
    shared.execute("FLUSHALL")
    shared.execute("ACL", "SETUSER", "default", "reset", "on", "nopass", "~*", "&*", "+@all")
    return shared


def labelled(version: object = 7) -> ModelReadyToDeploy:
    event = model_event(version, source="//s", correlation_id="c", labels={"token_symbol": "MSG-AI", "team": "risk"})
    event.occurred_at.GetCurrentTime()
    event.provenance.run_id = "run-1"
    event.evaluation.metric_name = "reply_rate"
    event.evaluation.baseline_value, event.evaluation.current_value = 0.75, 0.82
    return event


def at(server: RedisServer, key: str) -> list[bytes]:
    """Of a list, the oldest first."""
    found: Any = server.execute("LRANGE", key, 0, -1)
    return list(found)[::-1]


def connect(server: RedisServer) -> RedisConnection:
    settings = RedisSettings(host=server.host, port=server.port, tls=False)
    return RedisConnection(settings, StaticCredentials(), Metrics(), KEYS.events)


# -- writing


def test_each_list_gets_the_event_in_its_format_and_with_its_labels(server: RedisServer) -> None:
    events = [labelled(number) for number in range(5)]
    with SidecarProcess(to_redis(server, **SEVERAL)) as sidecar, calling(sidecar) as caller:
        caller.publish(events[0])
        caller.batch(events[1:])
    assert at(server, "deployments") == [encode_list_message(event) for event in events]
    assert at(server, "audit") == [encode_list_message(event, "payload", {"token_symbol"}) for event in events]
    envelope, payload = json.loads(at(server, "deployments")[0]), json.loads(at(server, "audit")[0])
    assert envelope["payload"] == {**payload, "team": "risk"}
    assert payload["token_symbol"] == "MSG-AI"


@pytest.mark.parametrize(
    ("labels", "first", "second"),
    [
        ("", {"team", "token_symbol"}, {"team", "token_symbol"}),
        ("team", {"team"}, {"team"}),
        ("audit=", {"team", "token_symbol"}, set()),
        ("team, audit=token_symbol,audit=team", {"team"}, {"team", "token_symbol"}),
    ],
)
def test_labels_are_chosen_for_all_lists_or_for_one(
    labels: str, first: set[str], second: set[str], server: RedisServer
) -> None:
    env = to_redis(server, QUEUE_LIST="deployments=payload,audit=payload", QUEUE_LIST_LABELS=labels)
    with SidecarProcess(env) as sidecar, calling(sidecar) as caller:
        caller.publish(labelled())
    chosen = [json.loads(at(server, key)[0]).keys() & {"team", "token_symbol"} for key in ("deployments", "audit")]
    assert chosen == [first, second]


@pytest.mark.timeout(600)  # the first build fetches its packages
def test_a_strict_reader_accepts_the_one_while_an_old_one_reads_the_other(server: RedisServer) -> None:
    """One demands bare payloads without a key that it does not know, the other envelopes, of the same events."""
    reader = str(built_by_node(EXAMPLES / "typescript") / "dist/strict.js")
    with SidecarProcess(to_redis(server, **SEVERAL)) as sidecar, calling(sidecar) as caller:
        caller.batch([labelled(number) for number in range(3)])
        caller.publish(model_event("without what it demands"))
    payloads = at(server, "audit")
    env = {"REDIS_HOST": server.host, "REDIS_PORT": f"{server.port}", "LIST": "audit", "PATH": "/usr/bin:/bin"}
    run = subprocess.run(["node", reader], env=env, capture_output=True, text=True, timeout=30, check=True)
    accepted = [f"accepted: {payload.decode()}" for payload in payloads[:3]]
    assert run.stdout.splitlines() == [*accepted, "refused: mlflow_run_id is missing or wrong"]
    assert at(server, "audit:processing") == []
    assert len(at(server, "audit:dlq")) == 1

    for message in at(server, "deployments")[:3]:
        # As Python 3.10's fromisoformat reads it.
        assert json.loads(message)["timestamp"].endswith("+00:00")
    strict = SidecarProcess(to_redis(server, QUEUE_LIST="audit=payload"))
    with strict as sidecar, calling(sidecar) as caller:
        caller.publish(labelled(9))
    run = subprocess.run(["node", reader], env=env, capture_output=True, text=True, timeout=30, check=True)
    assert run.stdout.splitlines() == ["refused: team is not allowed"]


def test_where_a_push_to_one_list_fails_a_retry_completes_each_once(server: RedisServer) -> None:
    """The user may push to the first list alone, which no command finds out without a push."""
    server.execute("ACL", "SETUSER", "default", "-lpush", "(+lpush ~deployments)")
    with SidecarProcess(to_redis(server, **SEVERAL)) as sidecar, calling(sidecar) as caller:
        event = labelled()
        refusal = caller.refused(event)
        assert (refusal.code, refusal.reason) == (Code.UNAVAILABLE, "OUTCOME_UNKNOWN")
        assert server.execute("GET", KEYS.seen(event.event_id)).endswith(b"!1")
        assert 0 < server.execute("PTTL", KEYS.seen(event.event_id)) <= 86_400_000
        assert (len(at(server, "deployments")), server.execute("EXISTS", "audit")) == (1, 0)
        assert caller.refused(event).reason == "OUTCOME_UNKNOWN"
        server.execute("ACL", "SETUSER", "default", "+lpush")
        assert caller.publish(event).outcome == DUPLICATE
        assert caller.publish(event).outcome == DUPLICATE
    assert (len(at(server, "deployments")), len(at(server, "audit"))) == (1, 1)
    assert queued_ids(server) == [event.event_id]


@pytest.mark.parametrize(("known", "first", "second"), [("", 0, 0), ("!", 1, 1), ("!1", 0, 1), ("!2", 0, 0)])
def test_what_an_earlier_attempt_left_undone_is_done_and_no_more(
    known: str, first: int, second: int, server: RedisServer
) -> None:
    """`!` is also what the version before left, which knew one list."""
    event = labelled()
    with SidecarProcess(to_redis(server, **SEVERAL)) as sidecar, calling(sidecar) as caller:
        entry = caller.publish(event).entry_id
        server.execute("DEL", "deployments", "audit")
        server.execute("SET", KEYS.seen(event.event_id), entry + known)
        receipt = caller.publish(event)
    assert (receipt.outcome, receipt.entry_id) == (DUPLICATE, entry)
    assert (len(at(server, "deployments")), len(at(server, "audit"))) == (first, second)
    assert server.execute("GET", KEYS.seen(event.event_id)) == entry.encode()
    assert server.execute("PTTL", KEYS.seen(event.event_id)) > 0


def test_what_the_spool_held_reaches_all_lists(server: RedisServer) -> None:
    events = [labelled(number) for number in range(10)]
    with SidecarProcess(to_redis(server, **SEVERAL)) as sidecar, calling(sidecar) as caller:
        server.kill()
        assert {result.receipt.outcome for result in caller.batch(events)} == {TO_DISK}
        server.start()
        until(lambda: sidecar.metrics()["modelready_spool_events"] == 0, 10, "the spool is empty")
    assert at(server, "deployments") == [encode_list_message(event) for event in events]
    assert at(server, "audit") == [encode_list_message(event, "payload", {"token_symbol"}) for event in events]


@pytest.mark.parametrize("key", ["deployments", "audit"])
def test_a_list_of_another_type_keeps_the_others_untouched(key: str, server: RedisServer) -> None:
    server.execute("SET", key, "no list")
    sidecar = SidecarProcess(to_redis(server, **SEVERAL))
    sidecar.start("listening")
    with sidecar, calling(sidecar) as caller:
        assert caller.refused(labelled()).reason == "REDIS_WRONG_TYPE"
    assert [one for one in (KEYS.events, "deployments", "audit") if server.execute("EXISTS", one)] == [key]


# -- replaying the stream's dead letters


def test_a_replay_to_all_reaches_all_lists(server: RedisServer) -> None:
    event = labelled()
    with SidecarProcess(to_redis(server, **SEVERAL)) as sidecar, operating(sidecar) as operator:
        assert operator.replay([bury(server, event)], target=ALL) == (1, 0, 0)
        assert at(server, "deployments") == [encode_list_message(event)]
        assert at(server, "audit") == [encode_list_message(event, "payload", {"token_symbol"})]
        server.execute(
            "SET", KEYS.seen(event.event_id), "1-1!1"
        )  # as an append leaves it that only the first list took
        assert operator.replay([bury(server, event)]) == (1, 0, 0)
        assert (len(at(server, "deployments")), len(at(server, "audit"))) == (1, 2)


@pytest.mark.parametrize("key", [KEYS.events, "deployments", "audit"])
def test_a_replay_with_a_key_of_another_type_pushes_nothing(key: str, server: RedisServer) -> None:
    letter = bury(server, labelled())
    with SidecarProcess(to_redis(server, **SEVERAL)) as sidecar, operating(sidecar) as operator:
        server.execute("SET", key, "of another type")
        for _ in range(2):
            with pytest.raises(grpc.RpcError) as raised:
                operator.replay([letter], target=ALL)
            assert read_error(raised.value).reason == "REDIS_WRONG_TYPE"
        assert {at_key for at_key in (KEYS.events, "deployments", "audit") if server.execute("EXISTS", at_key)} == {key}
        server.execute("DEL", key)
        assert operator.replay([letter], target=ALL) == (1, 0, 0)
        assert (len(at(server, "deployments")), len(at(server, "audit"))) == (1, 1)


# -- status and metrics


def test_status_and_metrics_know_each_list_and_its_companions_by_their_names(server: RedisServer) -> None:
    for key, count in {"deployments": 3, "busy:audit": 2, "failed:deployments": 1, "audit:dlq": 9}.items():
        server.execute("LPUSH", key, *(f"m-{number}" for number in range(count)))
    with SidecarProcess(to_redis(server, **NAMED)) as sidecar, operating(sidecar) as operator:
        status = operator.status()
        assert [
            (one.name, one.depth, one.processing, one.dead_letters, one.processing_key, one.dead_letters_key)
            for one in status.lists
        ] == [
            ("deployments", 3, 0, 1, "busy:deployments", "failed:deployments"),
            ("audit", 0, 2, 0, "busy:audit", "failed:audit"),
        ]
        assert status.list == status.lists[0], "for those that know one list"
        metrics = sidecar.get("/metrics")[1]
    assert 'modelready_list_depth{list="deployments"} 3.0' in metrics
    assert 'modelready_list_processing{key="busy:audit",list="audit"} 2.0' in metrics
    assert 'modelready_list_dead_letters{key="failed:deployments",list="deployments"} 1.0' in metrics
    assert 'modelready_list_dead_letters{key="failed:audit",list="audit"} 0.0' in metrics


# -- nobody but the lists


def test_without_groups_the_longest_list_is_the_depth(server: RedisServer) -> None:
    def spooled() -> bool:
        return caller.publish(labelled()).outcome == TO_DISK

    def stored() -> bool:
        server.execute("DEL", "deployments", "audit")  # consumers take it at once
        waits = sidecar.metrics()["modelready_spool_events"] > 0
        return not waits and caller.publish(labelled()).outcome == STORED

    server.execute("LPUSH", "deployments", "1", "2", "3")
    server.execute("LPUSH", "audit", "1", "2", "3")
    env = to_redis(server, QUEUE_MAX_DEPTH="3", **SEVERAL)
    with SidecarProcess(env) as sidecar, calling(sidecar) as caller:
        until(spooled, 5, "it is full")
        server.execute("DEL", "deployments")
        time.sleep(1.5)  # more than the time between two looks at the depth: the other list is as long still
        assert sidecar.metrics()["modelready_spool_events"] > 0
        assert spooled()
        server.execute("LPOP", "audit", 2)
        until(
            lambda: stored() and server.execute("XLEN", KEYS.events) >= 3, 10, "there is room, however long the stream"
        )
        server.execute("XGROUP", "CREATE", KEYS.events, "deployer", "0")
        until(lambda: not stored(), 5, "with a group the group decides")


def test_without_groups_what_the_lists_have_got_is_trimmed_by_age(server: RedisServer) -> None:
    env = to_redis(server, QUEUE_RETENTION_SECONDS="1", **SEVERAL)
    with SidecarProcess(env) as sidecar, calling(sidecar) as caller:
        caller.batch([labelled(number) for number in range(20)])
        until(lambda: server.execute("XLEN", KEYS.events) == 0, 30, "it is trimmed")
        until(lambda: sidecar.metrics()["modelready_trimmed_entries_total"] == 20, 5, "it is counted")
        assert (len(at(server, "deployments")), len(at(server, "audit"))) == (20, 20)


@pytest.fixture
async def trimmers(server: RedisServer) -> AsyncIterator[tuple[RedisTrimmer, RedisTrimmer]]:
    """With a mirror, and without."""
    connection = connect(server)
    yield (
        RedisTrimmer(connection, QueueSettings(list_names="deployments")),
        RedisTrimmer(connection, QueueSettings()),
    )
    await connection.close()


async def test_what_no_list_has_got_is_kept_for_as_long_again(
    server: RedisServer, trimmers: tuple[RedisTrimmer, RedisTrimmer]
) -> None:
    """Entries from before the list was turned on, or while it was off."""
    mirrored, plain = trimmers
    now = int(time.time() * 1000)
    server.execute("XADD", KEYS.events, f"{now - 60_000}-0", "field", "value")
    assert await mirrored.trim(now - 1000) == 0, "the list has been there for no second yet"
    assert await plain.trim(now + 3_600_000) == 0, "it was turned off"
    assert await mirrored.trim(now - 1000) == 0, "and on again"
    server.execute("SET", KEYS.mirrored_since, now - 30_000)
    assert await mirrored.trim(now - 40_000) == 0
    server.execute("XGROUP", "CREATE", KEYS.events, "deployer", "0")
    assert await mirrored.trim(now - 1000) == 0, "a group has not read it"
    server.execute("XGROUP", "DESTROY", KEYS.events, "deployer")
    assert await mirrored.trim(now - 1000) == 1


# -- replaying a list's dead letters


@pytest.fixture
def operator(server: RedisServer) -> Iterator[Operator]:
    with SidecarProcess(to_redis(server, **NAMED)) as sidecar, operating(sidecar) as operator:
        yield operator


def replay(operator: Operator, name: str, limit: int = 0, **fields: Any) -> tuple[int, int, int]:
    request = pb.ReplayDeadLettersRequest(list=pb.ListSelection(name=name, limit=limit), **fields)
    done = operator.stub.ReplayDeadLetters(request, timeout=30)
    return done.replayed, done.missing, done.skipped


def given_up(version: int, **fields: Any) -> bytes:
    """An envelope after its last try."""
    return json.dumps({**json.loads(encode_list_message(labelled(version))), "retry_count": 3, **fields}).encode()


def test_a_list_s_dead_letters_go_back_the_oldest_first_to_be_tried_as_new(
    server: RedisServer, operator: Operator
) -> None:
    letters = [given_up(number) for number in range(250)]
    server.execute("LPUSH", "failed:deployments", *letters)
    server.execute("LPUSH", "deployments", "one that waits")
    server.execute("LPUSH", "failed:audit", "of another list")
    assert replay(operator, "deployments", dry_run=True) == (250, 0, 0)
    assert replay(operator, "deployments", limit=120) == (120, 0, 0)
    assert json.loads(at(server, "failed:deployments")[0])["payload"]["model_version"] == "120"
    assert replay(operator, "deployments") == (130, 0, 0)
    assert replay(operator, "deployments") == (0, 0, 0)
    waiting, *back = at(server, "deployments")
    assert waiting == b"one that waits"
    assert [json.loads(one) for one in back] == [{**json.loads(one), "retry_count": 0} for one in letters]
    assert at(server, "failed:audit") == [b"of another list"]


def test_equal_messages_are_replayed_each(server: RedisServer, operator: Operator) -> None:
    server.execute("LPUSH", "failed:deployments", *[given_up(1)] * 3)
    assert replay(operator, "deployments", limit=1) == (1, 0, 0)
    assert len(at(server, "failed:deployments")) == 2
    assert replay(operator, "deployments") == (2, 0, 0)
    assert len(at(server, "deployments")) == 3


def test_a_replay_of_a_list_has_a_rate(server: RedisServer, operator: Operator) -> None:
    server.execute("LPUSH", "failed:deployments", *(given_up(number) for number in range(5)))
    began = time.monotonic()
    assert replay(operator, "deployments", max_per_second=10) == (5, 0, 0)
    assert time.monotonic() - began > 0.39


@pytest.mark.parametrize("name", ["", "failed:deployments", "{model-ready}:dead-letters", "deployments,audit"])
def test_only_a_list_that_is_configured_can_be_named(name: str, operator: Operator) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        replay(operator, name)
    refusal = read_error(raised.value)
    assert (refusal.code, refusal.fields) == (Code.INVALID_ARGUMENT, ("list.name",))
    assert "deployments, audit" in refusal.text


def test_a_push_that_fails_keeps_the_dead_letter(server: RedisServer, operator: Operator) -> None:
    server.execute("LPUSH", "failed:deployments", given_up(1))
    server.execute("SET", "deployments", "no list")
    with pytest.raises(grpc.RpcError) as raised:
        replay(operator, "deployments")
    assert read_error(raised.value).reason == "REDIS_WRONG_TYPE"
    assert len(at(server, "failed:deployments")) == 1


def test_what_consumers_wrap_is_unwrapped() -> None:
    envelope, payload = encode_list_message(labelled()), encode_list_message(labelled(), "payload")
    tried = {**json.loads(payload), "_retryCount": 3}
    for written, back in {
        envelope: envelope,
        payload: payload,
        given_up(1): None,
        json.dumps({"original_message": envelope.decode(), "error": "no"}).encode(): envelope,
        json.dumps({"originalMessage": tried, "error": "no"}).encode(): None,
        json.dumps({"originalMessage": payload.decode(), "error": "no"}).encode(): payload,
        json.dumps({"originalMessage": "{", "error": "no"}).encode(): b"{",
        b"\xff": b"\xff",
        b"[1]": b"[1]",
        b"[" * 100_000: b"[" * 100_000,
    }.items():
        fresh = first_try(written)
        if back is not None:
            assert fresh == back
        else:
            assert json.loads(fresh).get("retry_count", 0) == 0
            assert "_retryCount" not in json.loads(fresh)
    label = {**json.loads(payload), "original_message": "a label"}
    assert first_try(json.dumps(label).encode()) == json.dumps(label).encode()


def test_the_command_replays_a_list(server: RedisServer) -> None:
    server.execute("LPUSH", "failed:deployments", *(given_up(number) for number in range(1200)))
    with SidecarProcess(to_redis(server, SIDECAR_ADMIN_TOKEN="admin", **NAMED)) as sidecar:
        replaying = ["dead-letters", "replay", "--list", "deployments"]
        refused = command(sidecar, *replaying, "--yes", SIDECAR_ADMIN_TOKEN="")
        assert refused.returncode != 0
        assert len(at(server, "failed:deployments")) == 1200
        counted = command(sidecar, *replaying, "--dry-run", SIDECAR_ADMIN_TOKEN="admin")
        assert counted.stdout == "1,200 dead letters would be replayed\n"
        done = command(sidecar, *replaying, "--yes", SIDECAR_ADMIN_TOKEN="admin")
        assert (done.returncode, done.stdout) == (0, "1,200 dead letters replayed\n"), done.stderr
        wrong = command(sidecar, "dead-letters", "replay", "--list", "deployments", "--all", "--yes")
        assert wrong.returncode == 2
    assert len(at(server, "deployments")) == 1200


# -- a cluster


def test_in_a_cluster_all_keys_of_a_list_are_in_the_queue_s_slot() -> None:
    env = {
        "REDIS_CLUSTER": "true",
        "QUEUE_LIST": "{model-ready}:list,{model-ready}:audit=payload",
        "QUEUE_LIST_PROCESSING": "{list}:busy",
    }
    with Cluster(masters=3) as cluster:
        owner = cluster.owner(KEYS.events)
        env |= {"REDIS_HOST": owner.host, "REDIS_PORT": f"{cluster.port}"}
        with SidecarProcess(env) as sidecar, calling(sidecar) as caller, operating(sidecar) as operator:
            for number in range(3):
                assert caller.publish(labelled(number)).outcome == STORED
            with owner.client() as client:
                assert client.llen("{model-ready}:audit") == 3
                client.lmove("{model-ready}:list", "{model-ready}:list:dlq", "RIGHT", "LEFT")
            assert replay(operator, "{model-ready}:list") == (1, 0, 0)
            assert [one.depth for one in operator.status().lists] == [3, 3]
