"""Consumer groups are listed, created, removed and reset by command, never one that is read; dead names go."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from modelready.consumer import Consumer
from modelready.credentials import StaticCredentials
from modelready.redis.settings import RedisSettings
from sidecar.cli.main import main
from sidecar.metrics import Metrics
from sidecar.operations.interfaces import Changed
from sidecar.redisstream.connection import RedisConnection
from sidecar.redisstream.groups import RedisGroups
from sidecar.settings import QueueSettings
from tests.harness.redis_server import RedisServer, available_binaries
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until
from tests.integration.calls import KEYS, Caller, calling, queued_ids
from tests.integration.command_line import command, on_a_terminal

Output = pytest.CaptureFixture[str]
BINARIES = available_binaries()
GROUP = "deployer"


@pytest.fixture(autouse=True)
def publisher(server: RedisServer, sidecar: SidecarProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[Caller]:
    """Over an empty queue; commands in this process find the sidecar, too."""
    server.execute("FLUSHALL")
    monkeypatch.setenv("SIDECAR_LISTEN", sidecar.address)
    with calling(sidecar) as caller:
        yield caller


def published(publisher: Caller, count: int) -> list[str]:
    return [publisher.publish().entry_id for _ in range(count)]


def groups(server: RedisServer) -> dict[str, str]:
    """Each group, and the last id that it was given."""
    with server.client() as client:
        return {one["name"].decode(): one["last-delivered-id"].decode() for one in client.xinfo_groups(KEYS.events)}


def read(server: RedisServer, consumer: str, count: int) -> None:
    with server.client() as client:
        client.xreadgroup(GROUP, consumer, {KEYS.events: ">"}, count=count)


def run(capsys: Output, *arguments: str) -> tuple[int, str, str]:
    code = main(["groups", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


# -- list and create


def test_they_are_listed_with_their_consumers(server: RedisServer, publisher: Caller, capsys: Output) -> None:
    assert run(capsys, "list") == (0, "", "there are none\n")
    published(publisher, 4)
    for group in ("auditor", GROUP):
        server.execute("XGROUP", "CREATE", KEYS.events, group, "0")
    read(server, "one", 1)
    read(server, "waiting", 2)
    code, out, _ = run(capsys, "list")
    rows = [line.split() for line in out.splitlines()]
    assert code == 0
    assert rows[0][:6] == ["group", "depth", "pending", "undelivered", "consumers", "idle"]
    assert rows[1][:6] == ["auditor", "4", "0", "4", "0", "-"]
    assert rows[2][:5] == [GROUP, "4", "3", "1", "1"]
    assert rows[3] == ["one", "1", rows[2][5]]
    assert rows[4] == ["waiting", "2", "-"]  # no process has this name
    code, out, _ = run(capsys, "list", GROUP, "--json")
    (group,) = [json.loads(line) for line in out.splitlines()]
    assert (group["status"]["name"], group["status"]["depth"]) == (GROUP, "4")
    assert [(one["name"], one["pending"], "idle" in one) for one in group["consumers"]] == [
        ("one", "1", True), ("waiting", "2", False),
    ]  # fmt: skip
    assert run(capsys, "list", "other")[::2] == (1, "modelready-sidecar: there is no consumer group other\n")


def test_one_is_created_where_it_is_to_begin(server: RedisServer, publisher: Caller, capsys: Output) -> None:
    assert run(capsys, "create", "first") == (0, "the group first is created: 0 events to read\n", "")
    ids = published(publisher, 3)
    until(lambda: time.time() * 1000 > int(ids[-1].partition("-")[0]) + 1, 5, "the last one is in the past")
    for name, start in (("all", "oldest"), ("new", "newest"), ("some", ids[0]), ("recent", "1h")):
        assert run(capsys, "create", name, "--start", start)[0] == 0
    found = groups(server)
    assert [found[name] for name in ("first", "all", "new", "some")] == ["0-0", "0-0", ids[-1], ids[0]]
    assert abs(int(found["recent"].partition("-")[0]) - time.time() * 1000 + 3_600_000) < 600_000
    code, out, _ = run(capsys, "create", "as-json", "--json")
    group = json.loads(out)
    assert (code, group["name"], group["depth"], group["pending"]) == (0, "as-json", "3", "0")
    code, _, err = run(capsys, "create", "all")
    assert (code, err) == (1, "modelready-sidecar: there is a consumer group all already\n")
    for name in ("", " a", "a\n", "x" * 257):
        code, _, err = run(capsys, "create", name)
        assert (code, "name: must be 1 to 256 printable characters" in err) == (1, True)
    code, _, err = run(capsys, "create", "late", "--start", f"{2**62}-0")
    assert (code, "not after now" in err) == (1, True)
    with pytest.raises(SystemExit):
        run(capsys, "create", "wrong", "--start", "yesterday")
    assert "'yesterday' is no position: write oldest, newest, an age" in capsys.readouterr().err
    assert groups(server).keys() == {*found, "as-json"}


# -- remove and reset


def test_one_that_nobody_reads_is_removed_with_all_that_it_left(
    server: RedisServer, sidecar: SidecarProcess, publisher: Caller, capsys: Output
) -> None:
    published(publisher, 4)
    for group in ("auditor", GROUP):
        server.execute("XGROUP", "CREATE", KEYS.events, group, "0")
    for group in ("auditor", GROUP):
        server.execute("HSET", KEYS.lanes(group), "fraud", "dead")
        server.execute("ZADD", KEYS.waiting(group), 0, "5:fraud 1")
        server.execute("SADD", KEYS.free(group), "fraud")
    refused = command(sidecar, "groups", "remove", "auditor")
    assert (refused.returncode, "there is no terminal to ask on: give --yes" in refused.stderr) == (2, True)
    assert on_a_terminal(sidecar, "n", "groups", "remove", "auditor")[0] == 1
    code, text = on_a_terminal(sidecar, "n", "groups", "reset", GROUP, "--start", "newest")
    assert (code, "They are lost for the group. Begin again at newest? [y/N]" in text) == (1, True)
    assert groups(server) == {"auditor": "0-0", GROUP: "0-0"}
    code, text = on_a_terminal(sidecar, "y", "groups", "remove", "auditor")
    assert code == 0
    assert "the group auditor has 4 unacknowledged events, 0 of them pending, and 0 consumers. " in text
    assert "These are lost for the group, and its dead letters cannot go back to it. Remove it? [y/N]" in text
    assert groups(server).keys() == {GROUP}
    assert len(queued_ids(server)) == 4
    for key in (KEYS.lanes, KEYS.waiting, KEYS.free):
        assert [server.execute("EXISTS", key(group)) for group in ("auditor", GROUP)] == [0, 1]
    code, _, err = run(capsys, "remove", "auditor", "--yes")
    assert (code, err) == (1, "modelready-sidecar: there is no consumer group auditor\n")


def test_one_whose_name_is_no_utf_8_is_removed_by_what_is_shown_of_it(
    server: RedisServer, publisher: Caller, capsys: Output
) -> None:
    published(publisher, 1)
    raw = (b"caf\xe9", b"t\xe9", b"t\xe8", b"a:b")
    with server.client() as client:
        for one in raw:
            client.xgroup_create(KEYS.events, one, "0")
            client.xgroup_createconsumer(KEYS.events, one, "dead")
        for name in ("caf\ufffd", "a:b"):
            assert [row.split()[0] for row in run(capsys, "list", name)[1].splitlines()[1:]] == [name, "dead"]
            assert run(capsys, "remove", name, "--yes", "--force")[0] == 0
        code, _, err = run(capsys, "remove", "t\ufffd", "--yes", "--force")  # which of the two?
        assert (code, "there is no consumer group t\ufffd" in err) == (1, True)
        assert {one["name"] for one in client.xinfo_groups(KEYS.events)} == {b"t\xe9", b"t\xe8"}


def test_one_that_is_read_is_left_alone_unless_it_is_forced(
    server: RedisServer, publisher: Caller, capsys: Output
) -> None:
    published(publisher, 3)
    server.execute("XGROUP", "CREATE", KEYS.events, GROUP, "0")
    read(server, "one", 2)
    for arguments in (("remove",), ("reset", "--start", "newest")):
        code, _, err = run(capsys, *arguments, GROUP, "--yes")
        assert code == 1
        assert f"the group {GROUP} is being read: one of 1 consumer asked for events" in err
        assert "Stop its consumers and wait, or force it" in err
    assert groups(server).keys() == {GROUP}
    code, out, _ = run(capsys, "remove", GROUP, "--force", "--yes")
    assert (code, out) == (0, f"the group {GROUP} is removed: it had 3 unacknowledged events, 2 of them pending\n")
    assert groups(server) == {}


def test_one_begins_again_elsewhere_with_nothing_pending(
    server: RedisServer, publisher: Caller, capsys: Output
) -> None:
    ids = published(publisher, 3)
    until(lambda: time.time() * 1000 > int(ids[-1].partition("-")[0]) + 1, 5, "the last one is in the past")
    server.execute("XGROUP", "CREATE", KEYS.events, GROUP, "0")
    for start, depth in (("newest", 0), ("oldest", 3), (ids[0], 2)):
        server.execute("HSET", KEYS.lanes(GROUP), "fraud", "dead")
        read(server, "one", 2)
        code, out, _ = run(capsys, "reset", GROUP, "--start", start, "--force", "--yes")
        where = start if start.isalpha() else f"entry {start}"
        assert (code, out.startswith(f"the group {GROUP} begins again at {where}: it had ")) == (0, True)
        (group,) = [json.loads(line) for line in run(capsys, "list", "--json")[1].splitlines()]
        assert (group["status"]["depth"], group["status"]["pending"], group["consumers"]) == (str(depth), "0", [])
        assert server.execute("EXISTS", KEYS.lanes(GROUP)) == 0
    code, out, _ = run(capsys, "remove", GROUP, "--yes", "--json")
    assert (code, json.loads(out)["name"], json.loads(out)["depth"]) == (0, GROUP, "2")


def test_consumers_that_run_get_every_event_again_after_a_forced_reset(
    server: RedisServer, publisher: Caller, capsys: Output
) -> None:
    handled: list[str] = []
    environ = {"REDIS_HOST": server.host, "REDIS_PORT": str(server.port), "REDIS_TLS": "false"}
    with Consumer.from_env(group=GROUP, environ=environ, block_seconds=0.1) as consumer:
        worker = threading.Thread(target=consumer.run, args=(lambda event: handled.append(event.event_id),))
        worker.start()
        try:
            ids = [publisher.publish().event_id for _ in range(3)]
            until(lambda: handled == ids, 20, "they are handled")
            assert run(capsys, "reset", GROUP, "--start", "oldest", "--force", "--yes")[0] == 0
            until(lambda: handled == ids * 2, 20, "they are handled again, in order")
            ids = ids * 2 + [publisher.publish().event_id]
            until(lambda: handled == ids, 20, "the next one is handled")
        finally:
            consumer.stop()
            worker.join(30)
    assert server.execute("XPENDING", KEYS.events, GROUP)["pending"] == 0


# -- the store, on each server


@pytest.fixture(scope="module", params=sorted(BINARIES))
def each_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(binary=BINARIES[request.param]) as running:
        yield running


@pytest.fixture
async def store(each_server: RedisServer) -> AsyncIterator[RedisGroups]:
    each_server.execute("FLUSHALL")
    each_server.execute("XADD", KEYS.events, "1-1", "a", "b")
    settings = RedisSettings(host=each_server.host, port=each_server.port, tls=False, timeout=30.0)
    connection = RedisConnection(settings, StaticCredentials(), Metrics(), KEYS.events)
    yield RedisGroups(connection, QueueSettings())
    await connection.close()


def names(server: RedisServer) -> list[str]:
    with server.client() as client:
        return sorted(one["name"].decode() for one in client.xinfo_consumers(KEYS.events, GROUP))


async def test_names_of_dead_consumers_go_and_none_with_pending_entries(
    each_server: RedisServer, store: RedisGroups
) -> None:
    """Nor names that no process has, nor the one that asked last."""
    assert await store.forget_consumers(GROUP, 0) == 0, "there is no group"
    assert await store.create(GROUP, "0-0")
    with each_server.client() as client:
        client.xreadgroup(GROUP, "holds", {KEYS.events: ">"})
        for name in ("dead-1", "replay", "dead-2", "waiting"):
            client.xgroup_createconsumer(KEYS.events, GROUP, name)

        def youngest() -> int:
            return min(int(one["idle"]) for one in client.xinfo_consumers(KEYS.events, GROUP))

        until(lambda: youngest() > 10, 10, "the next one is younger")
        client.xgroup_createconsumer(KEYS.events, GROUP, "last")
    assert await store.forget_consumers(GROUP, 3600) == 0, "none has been idle for so long"
    assert await store.forget_consumers(GROUP, 0) == 2
    assert names(each_server) == ["holds", "last", "replay", "waiting"]
    assert each_server.execute("XPENDING", KEYS.events, GROUP)["pending"] == 1
    assert await store.forget_consumers(GROUP, 0) == 0


async def test_a_group_is_left_alone_in_the_same_step_in_which_it_would_go(
    each_server: RedisServer, store: RedisGroups
) -> None:
    assert await store.remove(GROUP, "", unread_seconds=1) is Changed.MISSING
    assert await store.create(GROUP, "$")
    assert not await store.create(GROUP, "$")
    for name in ("replay", "waiting"):
        each_server.execute("XGROUP", "CREATECONSUMER", KEYS.events, GROUP, name)
    assert await store.remove(GROUP, "0-0", unread_seconds=3600) is Changed.DONE, "no process has these names"
    each_server.execute("XGROUP", "CREATECONSUMER", KEYS.events, GROUP, "one")
    assert await store.remove(GROUP, "", unread_seconds=3600) is Changed.READ
    assert await store.remove(GROUP, "", unread_seconds=0) is Changed.DONE
    assert await store.names() == []
    assert await store.consumers([GROUP, GROUP]) == [[], []]
