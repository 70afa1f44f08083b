"""The rights of docs/redis-acl.md are enough for all that the sidecar does, and none of them is there in vain."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from sidecar.publishing.interfaces import Attempts, Event
from tests.harness.cluster import Cluster
from tests.harness.redis_server import RedisServer, available_binaries
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
    to_redis,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "redis-acl.md"
RIGHTS, MIRROR, CLUSTER = re.findall(r"^    (.+)$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
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
    put_into_spool(
        sidecar,
        [as_spooled(doubtful), Event("damaged", doubtful, b"\xff")],
        Attempts(1, hours_ago, hours_ago),
    )
    with sidecar, calling(sidecar) as caller:
        until(lambda: sidecar.metrics()["modelready_spool_events"] == 0, 5, "the spool is empty")
        event = model_event()
        assert caller.publish(event).outcome == STORED
        assert caller.publish(event, PRIMARY).outcome == DUPLICATE
        assert [result.receipt.outcome for result in caller.batch([model_event() for _ in range(3)])] == [STORED] * 3
        unconfirmed = caller.refused(durability=REPLICATED, timeout=1)
        assert (unconfirmed.code, unconfirmed.reason) == (Code.UNAVAILABLE, "OUTCOME_UNKNOWN")  # there is no replica
        look_at_groups(caller, server)
        assert health(sidecar) == (True, True, True)


def look_at_groups(caller: Caller, server: RedisServer) -> None:
    with server.client() as client:
        client.xgroup_create(KEYS.events, "idle", id="0")
        client.xgroup_create(KEYS.events, "late", id="$")  # its lag is not known: it is counted
        client.xgroup_create(KEYS.events, "busy", id="0")
        client.xreadgroup("busy", "one", {KEYS.events: ">"}, count=1)
    status = caller.status()
    assert status.redis_up, status.redis_error
    assert {group.name: group.pending for group in status.groups} == {"idle": 0, "late": 0, "busy": 1}
    assert all(group.HasField("oldest_unacknowledged_at") for group in status.groups if group.depth)


@pytest.mark.parametrize("binary", BINARIES)
@pytest.mark.parametrize("mirror", [False, True], ids=["stream", "stream and list"])
def test_these_rights_are_enough(binary: str, mirror: bool) -> None:
    acl = user(RIGHTS, *[MIRROR] * mirror)
    with RedisServer(binary=binary, acl=acl) as server:
        do_everything(SidecarProcess(to_redis(server, **as_user(**{"QUEUE_LIST": LIST} if mirror else {}))), server)
        assert server.execute("ACL", "LOG") == []
        assert len(queued_ids(server)) == 5 + 1  # the one that no replica confirmed is there, too
        assert [letter[b"dl_reason"] for letter in entries(server, KEYS.dead_letters)] == [b"UNDECODABLE"]
        if mirror:
            assert server.execute("LLEN", LIST) == 6


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


def test_in_a_cluster_one_more_right_finds_the_node() -> None:
    with Cluster(masters=1, acl=user(RIGHTS, CLUSTER)) as cluster:
        (node,) = cluster.nodes
        env = to_redis(node, **as_user(REDIS_CLUSTER="true"))
        with SidecarProcess(env) as sidecar, calling(sidecar) as caller:
            assert caller.publish(durability=PRIMARY).outcome == STORED
        assert node.execute("ACL", "LOG") == []
