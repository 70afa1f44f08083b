"""The rights of docs/redis-acl.md are enough for all that the sidecar does, and none of them is there in vain."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest
from redis import Redis

from modelready.credentials import StaticCredentials
from modelready.redis.settings import RedisSettings
from modelready.v1 import queue_service_pb2 as pb
from sidecar.metrics import Metrics
from sidecar.publishing.interfaces import Attempts, Event
from sidecar.redisstream.connection import RedisConnection
from sidecar.redisstream.groups import RedisGroups
from sidecar.settings import QueueSettings
from tests.harness.cluster import Cluster
from tests.harness.redis_server import RedisServer, available_binaries
from tests.harness.rights import CLUSTER, MIRROR, RIGHTS
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until
from tests.integration.calls import (
    DEFAULT,
    DUPLICATE,
    KEYS,
    PRIMARY,
    REPLICATED,
    STORED,
    Caller,
    Code,
    as_spooled,
    calling,
    entries,
    health,
    model_event,
    put_into_spool,
    queued_ids,
    refusal_of,
    to_redis,
)
from tests.integration.operators import bury, give_up, operating

LIST = "deployments"
TOKEN = "a-token"
BINARIES = [pytest.param(binary, id=name) for name, binary in available_binaries().items()]


def user(*lines: str) -> list[str]:
    return [f"user registry {' '.join(lines)} >{TOKEN}", "user default off"]


def as_user(**env: str) -> dict[str, str]:
    return {"REDIS_USERNAME": "registry", "REDIS_AUTH_TOKEN": TOKEN, **env}


def do_everything(sidecar: SidecarProcess, server: RedisServer) -> None:
    """Every command that a sidecar ever sends: publish in all ways, find, bury, look at the queue."""
    hours_ago = int(time.time() * 1000) - 7_200_000
    doubtful = model_event("doubtful")
    doubtful.occurred_at.GetCurrentTime()
    old_and_read_by_a_group(server)
    put_into_spool(
        sidecar,
        [as_spooled(doubtful), Event("damaged", doubtful, b"\xff")],
        Attempts(1, hours_ago, hours_ago),
    )
    with sidecar, calling(sidecar) as caller:
        until(lambda: sidecar.metrics()["modelready_spool_events"] == 0, 5, "the spool is empty")
        until(lambda: server.execute("XRANGE", KEYS.events, "1-1", "1-1") == [], 5, "it trims")
        event = model_event()
        assert caller.publish(event).outcome == STORED
        assert caller.publish(event, PRIMARY).outcome == DUPLICATE
        assert [result.receipt.outcome for result in caller.batch([model_event() for _ in range(3)])] == [STORED] * 3
        unconfirmed = caller.refused(durability=REPLICATED, timeout=2)
        assert (unconfirmed.code, unconfirmed.reason) == (Code.UNAVAILABLE, "OUTCOME_UNKNOWN")  # there is no replica
        look_at_groups(caller, server)
        restore(sidecar, server)
        change_groups(sidecar, server)
        if "QUEUE_LIST" in sidecar.env:
            server.execute("LPUSH", f"{LIST}:dlq", "given up")
            with operating(sidecar) as operator:
                replay = pb.ReplayDeadLettersRequest(list=pb.ListSelection(name=LIST))
                assert operator.stub.ReplayDeadLetters(replay, timeout=10).replayed == 1
        assert health(sidecar) == (True, True, True)


def old_and_read_by_a_group(server: RedisServer) -> None:
    """An entry that is to be trimmed."""
    server.execute("XADD", KEYS.events, "1-1", "n", "1")
    server.execute("XGROUP", "CREATE", KEYS.events, "early", "$")


def restore(sidecar: SidecarProcess, server: RedisServer) -> None:
    """Replay to a group and to all, discard, and follow the queue."""
    with operating(sidecar) as operator:
        (letter,) = give_up(server, "busy")
        assert operator.replay([letter]) == (1, 0, 0)
        again = bury(server, model_event())
        server.execute("SET", KEYS.seen_dead(operator.get(again).event_id), again)
        assert operator.replay([again]) == (1, 0, 0)
        for group in ("", "busy"):
            with operator.tailing(1, group) as tail:
                assert next(tail).event.event_id == queued_ids(server)[-1]
        bury(server, model_event(), reason="A")
        assert operator.status().redis.role == "master"
        assert "A" in [reason.reason for reason in operator.status().dead_letter_reasons]
        assert len(operator.list(reason="A")) == 1
        assert operator.discard(reason="A") == (1, 0)


def change_groups(sidecar: SidecarProcess, server: RedisServer) -> None:
    """Create, list, reset and remove one, and forget a name that its consumer left behind."""
    with operating(sidecar) as operator:
        operator.stub.CreateGroup(pb.CreateGroupRequest(name="temporary"), timeout=10)
        server.execute("XGROUP", "CREATECONSUMER", KEYS.events, "temporary", "dead")
        server.execute("XGROUP", "CREATECONSUMER", KEYS.events, "temporary", "last")
        assert asyncio.run(forget(server, "temporary")) == 1
        listed = operator.stub.ListGroups(pb.ListGroupsRequest(name="temporary"), timeout=10)
        assert len(listed.groups[0].consumers) == 1
        reset = pb.ResetGroupRequest(name="temporary", start="newest", force=True)
        operator.stub.ResetGroup(reset, timeout=10)
        operator.stub.RemoveGroup(pb.RemoveGroupRequest(name="temporary", force=True), timeout=10)


async def forget(server: RedisServer, group: str) -> int:
    """As the sidecar does after a day."""
    settings = RedisSettings(host=server.host, port=server.port, tls=False)
    connection = RedisConnection(settings, StaticCredentials("registry", TOKEN), Metrics(), KEYS.events)
    try:
        return await RedisGroups(connection, QueueSettings()).forget_consumers(group, 0)
    finally:
        await connection.close()


def look_at_groups(caller: Caller, server: RedisServer) -> None:
    with server.client() as client:
        client.xgroup_create(KEYS.events, "idle", id="0")
        client.xgroup_create(KEYS.events, "late", id="$")  # its lag is not known: it is counted
        client.xgroup_create(KEYS.events, "busy", id="0")
        client.xreadgroup("busy", "one", {KEYS.events: ">"}, count=1)
    status = caller.status()
    assert status.redis_up, status.redis_error
    assert {group.name: group.pending for group in status.groups} == {"early": 0, "idle": 0, "late": 0, "busy": 1}
    assert [group.name for group in status.groups if group.HasField("idle")] == ["busy"]
    assert all(group.HasField("oldest_unacknowledged_at") for group in status.groups if group.depth)


@pytest.mark.parametrize("binary", BINARIES)
@pytest.mark.parametrize("mirror", [False, True], ids=["stream", "stream and list"])
def test_these_rights_are_enough(binary: str, mirror: bool) -> None:
    acl = user(RIGHTS, *[MIRROR] * mirror)
    with RedisServer(binary=binary, acl=acl) as server:
        do_everything(SidecarProcess(to_redis(server, **as_user(**{"QUEUE_LIST": LIST} if mirror else {}))), server)
        assert server.execute("ACL", "LOG") == []
        assert (
            len(queued_ids(server)) == 5 + 1 + 1
        )  # the one that no replica confirmed is there, too; and a replayed one
        assert [letter[b"dl_reason"] for letter in entries(server, KEYS.dead_letters)] == [b"UNDECODABLE"]
        if mirror:
            assert server.execute("LLEN", LIST) == 7 + 1


def test_none_of_these_rights_is_there_in_vain() -> None:
    """The server counts the commands that it carries out, those of scripts too."""
    with RedisServer(acl=user(RIGHTS, MIRROR)) as server:
        server.execute("CONFIG", "RESETSTAT")
        do_everything(SidecarProcess(to_redis(server, **as_user(QUEUE_LIST=LIST))), server)
        used = {name.removeprefix("cmdstat_") for name in server.info("commandstats")}
    rights = {right.removeprefix("+") for right in f"{RIGHTS} {MIRROR}".split() if right.startswith("+")}
    assert rights - used == set()


@pytest.mark.parametrize("key", ["events", "dead-letters", "seen:*"])
def test_without_a_key_s_pattern_nothing_is_written(key: str) -> None:
    rights = RIGHTS.replace(f" ~{{model-ready}}:{key}", "")
    with RedisServer(acl=user(rights)) as server:
        sidecar = SidecarProcess(to_redis(server, **as_user()))
        event = model_event()
        event.occurred_at.GetCurrentTime()
        put_into_spool(sidecar, [as_spooled(event), Event("damaged", event, b"\xff")], Attempts())
        sidecar.start("listening")
        with sidecar, calling(sidecar) as caller:
            until(lambda: "REDIS_NO_PERMISSION" in sidecar.logs() or "lacks a right" in sidecar.logs(), 5, "it says so")
            assert sidecar.metrics()["modelready_spool_events"] == 2
            if key == "events":
                assert not caller.status().redis_up
            server.execute("ACL", "SETUSER", "registry", f"~{{model-ready}}:{key}")
            until(lambda: sidecar.metrics()["modelready_spool_events"] == 0, 5, "it goes on when the right is there")
            assert queued_ids(server) == [event.event_id]
            assert len(entries(server, KEYS.dead_letters)) == 1
            until(lambda: health(sidecar) == (True, True, True), 12, "it serves")
            assert caller.publish(durability=DEFAULT).outcome == STORED


@pytest.mark.parametrize("binary", BINARIES)
def test_without_the_right_to_push_no_answer_says_that_nothing_is_there(binary: str) -> None:
    """LLEN is allowed, LPUSH is not: the events are in the stream when the script fails."""
    rights = f"{RIGHTS} {MIRROR}".replace(" +lpush", "")
    with RedisServer(binary=binary, acl=user(rights)) as server:
        with SidecarProcess(to_redis(server, **as_user(QUEUE_LIST=LIST))) as sidecar, calling(sidecar) as caller:
            event = model_event()
            for durability in (PRIMARY, DEFAULT):
                refusal = caller.refused_as("OUTCOME_UNKNOWN", event, durability)
                assert refusal.code is Code.UNAVAILABLE
                assert "lacks a right" in refusal.text
            until(lambda: health(sidecar) == (True, False, True), 3, "it is not ready")
            assert sidecar.metrics()["modelready_spool_events"] == 0
            assert queued_ids(server) == [event.event_id]
            server.execute("ACL", "SETUSER", "registry", "+lpush")
            assert caller.publish(event).outcome == DUPLICATE
            assert server.execute("LLEN", LIST) == 1
        assert queued_ids(server) == [event.event_id]


def test_the_one_command_of_the_runbooks_is_a_right_of_a_documented_user() -> None:
    """It puts back what a list's consumer left in flight. All else that operators do, they do by the sidecar."""
    documents = Path(__file__).parents[2] / "docs"
    runbooks = (documents / "operations.md").read_text(encoding="utf-8")
    consuming = (documents / "consuming.md").read_text(encoding="utf-8")
    code = [span or line for span, line in re.findall(r"`([^`\n]+)`|^ {4}(.+)$", runbooks, re.MULTILINE)]
    (rights,) = re.findall(r"^It needs `(\+hello .*? ~<list>)", consuming, re.MULTILINE | re.DOTALL)
    user = f"user reader on >{TOKEN} resetchannels -@all {' '.join(rights.split())} ~<list>:*"
    with RedisServer(acl=[user.replace("<list>", LIST)]) as server:
        commands = {name.upper() for name in server.execute("COMMAND")}
        named = [one for one in code if one.split()[0] in commands]
        assert named == ["BLMOVE <processing> <list> LEFT RIGHT 1"]
        for number in range(3):
            server.execute("LPUSH", f"{LIST}:processing", number)
        line = named[0].replace("<processing>", f"{LIST}:processing").replace("<list>", LIST)
        with Redis(port=server.port, username="reader", password=TOKEN) as reader:
            assert [reader.execute_command(*line.split()) for _ in range(3)] == [b"2", b"1", b"0"]
        assert server.execute("RPOP", LIST) == b"0", "the oldest is the next one"


def test_in_a_cluster_one_more_right_finds_the_node() -> None:
    with Cluster(masters=1, acl=user(RIGHTS, CLUSTER)) as cluster:
        (node,) = cluster.nodes
        env = to_redis(node, **as_user(REDIS_CLUSTER="true"))
        with SidecarProcess(env) as sidecar, calling(sidecar) as caller:
            assert caller.publish(durability=PRIMARY).outcome == STORED
            node.execute("XGROUP", "CREATE", KEYS.events, "busy", "0")
            restore(sidecar, node)
        assert node.execute("ACL", "LOG") == []


def test_without_the_rights_to_look_around_the_status_leaves_that_out() -> None:
    rights = RIGHTS.replace("+info ", "").replace("+xinfo|consumers ", "")
    with RedisServer(acl=user(rights)) as server, SidecarProcess(to_redis(server, **as_user())) as sidecar:
        server.execute("XGROUP", "CREATE", KEYS.events, "g", "0", "MKSTREAM")
        with operating(sidecar) as operator:
            status = operator.status()
        assert status.redis_up
        assert (status.redis.version, status.redis.role) == ("", "")
        assert status.redis.latency.nanos > 0
        assert [group.name for group in status.groups] == ["g"]


@pytest.mark.parametrize("right", ["xdel", "del"])
def test_without_the_rights_to_replay_nothing_is_added(right: str) -> None:
    """A script does not roll back: the rights are looked at before the first dead letter."""
    rights = RIGHTS.replace(f"+{right} ", "")
    with RedisServer(acl=user(rights)) as server, SidecarProcess(to_redis(server, **as_user())) as sidecar:
        bury(server, model_event())
        with operating(sidecar) as operator:
            for act in (operator.replay, operator.discard):
                refusal = refusal_of(act)
                assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "REDIS_NO_PERMISSION")
        assert queued_ids(server) == []
        assert len(entries(server, KEYS.dead_letters)) == 1


def test_without_the_right_to_trim_it_says_so_once() -> None:
    with RedisServer(acl=user(RIGHTS.replace("+xtrim ", ""))) as server:
        old_and_read_by_a_group(server)
        with SidecarProcess(to_redis(server, **as_user())) as sidecar, calling(sidecar) as caller:
            until(lambda: "the stream is not trimmed" in sidecar.logs(), 5, "it says so")
            assert caller.publish().outcome == STORED
