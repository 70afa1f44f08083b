"""The example consumers, as they stand, against a real sidecar: by TLS, with a token and the least rights.

Where a toolchain is missing, its example is skipped: see tests/harness/toolchains.py.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from modelready.keys import Keys
from modelready.v1.event_pb2 import Artifact, ModelReadyToDeploy
from tests.harness.certificates import Authority
from tests.harness.child import Child
from tests.harness.redis_server import RedisServer
from tests.harness.relay import Relay
from tests.harness.sidecar_process import INHERITED, INHERITED_PREFIXES, SidecarProcess
from tests.harness.toolchains import ROOT, built_by_go, built_by_node
from tests.harness.waiting import until
from tests.integration.calls import STORED, calling, model_event, to_redis

EXAMPLES = ROOT / "docs/examples"
KEYS = Keys("model-ready")
GROUP = "deployer"
pytestmark = pytest.mark.timeout(600)  # the first build compiles Go's standard library


def rights() -> str:
    """The lines of docs/consuming.md: for a client of any kind, and what Python's Consumer needs besides."""
    text = (ROOT / "docs/consuming.md").read_text()
    any_client, ours = re.findall(r"^    ((?:on resetchannels|\+eval) .*)", text, re.MULTILINE)
    return f"{any_client} {ours}"


# -- building


def python() -> list[str]:
    return [sys.executable, str(EXAMPLES / "python/deployer.py")]


def go() -> list[str]:
    return [str(built_by_go(EXAMPLES / "go"))]


def typescript() -> list[str]:
    return ["node", str(built_by_node(EXAMPLES / "typescript") / "dist/deployer.js")]


BUILDS = {"python": python, "typescript": typescript, "go": go}


@pytest.fixture(scope="module", params=list(BUILDS))
def command(request: pytest.FixtureRequest) -> list[str]:
    """What starts the example, built; the first time that takes a minute."""
    return BUILDS[request.param]()


in_other_languages = pytest.mark.parametrize("command", ["typescript", "go"], indirect=True, scope="module")
"""What Python's deployer does in these tests is the Consumer's, and clients/python/tests shows it."""


# -- the world


class World(NamedTuple):
    """Redis, and the two sidecars that write into one queue of it, in each encoding."""

    server: RedisServer
    link: Relay
    sidecars: Mapping[str, SidecarProcess]
    env: Mapping[str, str]

    def publish(self, version: int, encoding: str = "protobuf", uri: str = "s3://models/fraud/") -> ModelReadyToDeploy:
        event = model_event(version, artifact=Artifact(uri=uri))
        with calling(self.sidecars[encoding]) as caller:
            assert caller.publish(event).outcome == STORED
        return event

    def pending(self) -> int:
        with self.server.client() as client:
            return int(client.xpending(KEYS.events, GROUP)["pending"])

    def dead_letters(self) -> list[Mapping[bytes, bytes]]:
        with self.server.client() as client:
            return [fields for _, fields in client.xrange(KEYS.dead_letters)]

    def consumers(self) -> list[Mapping[str, Any]]:
        with self.server.client() as client:
            return list(client.xinfo_consumers(KEYS.events, GROUP))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    authority = Authority(tmp_path_factory.mktemp("examples"))
    user = f"user downstream {rights()} >a-token"
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer(appendonly=True, password="theirs", acl=[user]))
        link = stack.enter_context(Relay(server.port, tls=authority.server()))
        sidecars = {
            encoding: stack.enter_context(SidecarProcess(to_redis(server, QUEUE_ENCODING=encoding)))
            for encoding in ("protobuf", "json")
        }
        env = {
            **{name: value for name, value in os.environ.items() if name.startswith((*INHERITED, *INHERITED_PREFIXES))},
            "REDIS_HOST": link.host,
            "REDIS_PORT": f"{link.port}",
            "REDIS_USERNAME": "downstream",
            "REDIS_AUTH_TOKEN": "a-token",
            "REDIS_TLS": "true",
            "REDIS_TLS_CA_FILE": str(authority.ca),
            "CLAIM_IDLE_MS": "300",
        }
        yield World(server, link, sidecars, env)


@pytest.fixture
def world(shared: World) -> Iterator[World]:
    yield shared
    with shared.server.client() as client:
        client.flushall()


class Deployer(Child):
    """An example that runs."""

    def deployed(self) -> list[str]:
        """What it said of the versions that it deployed, in order."""
        return [line for line in self.output().splitlines() if line.startswith("deploying ")]

    def saw(self, *events: ModelReadyToDeploy) -> bool:
        """Whether it deployed these, in this order, and no other. AssertionError with its log when it ended."""
        assert self.running, self.tail()
        return self.deployed() == [
            f"deploying fraud {event.model.version} from {event.artifact.uri}, event {event.event_id}"
            for event in events
        ]


@pytest.fixture
def start(world: World, tmp_path: Path) -> Iterator[Any]:
    started: list[Deployer] = []

    def start(command: Sequence[str]) -> Deployer:
        deployer = Deployer(command, tmp_path / f"log-{len(started)}", world.env)
        started.append(deployer)
        deployer.start()
        return deployer

    yield start
    for deployer in started:
        deployer.kill()
        print(deployer.tail(50))  # shown where the test failed


# -- what every example does


def test_events_of_both_encodings_are_handled_acknowledged_and_survive_an_outage(
    command: list[str], world: World, start: Any
) -> None:
    first = world.publish(1, "protobuf")  # before its first start: nothing is missed
    deployer = start(command)
    until(lambda: deployer.saw(first), 10, "the event from before its start")
    second = world.publish(2, "json")
    until(lambda: deployer.saw(first, second), 10, "the event in JSON")
    until(lambda: world.pending() == 0, 5, "both are acknowledged: else one may come again")

    world.server.kill()
    world.server.start()
    third = world.publish(3)
    until(lambda: deployer.saw(first, second, third), 15, "the event from after the outage")
    until(lambda: world.pending() == 0, 5, "all are acknowledged")

    assert deployer.terminate(10) == 0
    assert world.dead_letters() == []
    with world.server.client() as client:
        assert client.acl_log() == []


# -- what the examples in other languages do by themselves


def frozen_with_an_event(deployer: Deployer, world: World) -> ModelReadyToDeploy:
    """Freezes it while it waits for an event, and gives it one, which it cannot handle: as if it hung there."""
    for version in range(1, 20):
        until(lambda: world.server.info("clients")["blocked_clients"] == 1, 10, "it waits for an event")
        deployer.freeze()
        event = world.publish(version)
        if world.pending() == 1:  # its connection lives, so that Redis gives it the event
            return event
        deployer.thaw()  # it had stopped waiting just then
        until(lambda: len(deployer.deployed()) == version and world.pending() == 0, 10, "it goes on")  # noqa: B023
    raise AssertionError("it never waits for an event")


@in_other_languages
def test_what_a_dead_one_left_is_taken_over(command: list[str], world: World, start: Any) -> None:
    dying = start(command)
    event = frozen_with_an_event(dying, world)
    dying.kill()
    assert not any(event.event_id in line for line in dying.deployed())

    successor = start(command)
    until(lambda: successor.saw(event), 10, "the other one takes it over")
    until(lambda: world.pending() == 0, 5, "it is acknowledged")
    assert successor.terminate(10) == 0
    assert len(world.consumers()) == 1, "the one that left has removed its name"


@in_other_languages
def test_what_fails_becomes_a_dead_letter_and_holds_up_nobody(command: list[str], world: World, start: Any) -> None:
    failing = world.publish(1, uri="ftp://models/fraud/")
    with world.server.client() as client:
        ((entry_id, fields),) = client.xrange(KEYS.events)
        strange = client.xadd(KEYS.events, {"ce_id": "strange", "content-type": "application/json", "data": "{"})
        client.xadd(KEYS.events, {**fields, b"ce_id": b"not-ours", b"replay_group": b"another"})
        client.xadd(KEYS.events, {**fields, b"ce_id": b"ours", b"replay_group": GROUP.encode()})
    good = world.publish(2)
    deployer = start(command)
    until(lambda: deployer.saw(good), 10, "the good one")
    until(lambda: len(world.dead_letters()) == 3, 10, "the dead letters")
    assert world.pending() == 0
    assert deployer.saw(good)

    letters = {letter[b"ce_id"].decode(): letter for letter in world.dead_letters()}
    assert letters.keys() == {failing.event_id, "strange", "ours"}
    letter = letters[failing.event_id]
    assert {name: letter.get(name) for name in fields} == fields
    assert letter[b"dl_reason"] == b"HANDLER_FAILED"
    assert b"cannot fetch ftp://models/fraud/" in letter[b"dl_detail"]
    assert letter[b"dl_attempts"] == b"3"
    assert letter[b"dl_origin"] == b"group:deployer"
    assert letter[b"dl_entry_id"] == entry_id
    assert int(entry_id.split(b"-")[0]) <= int(letter[b"dl_first_at"]) <= int(letter[b"dl_last_at"])
    assert letters["strange"][b"dl_reason"] == b"UNDECODABLE"
    assert letters["strange"][b"dl_entry_id"] == strange
    assert b"replay_group" not in letters["ours"]
    assert "waiting for Redis" not in deployer.output()


@pytest.mark.parametrize("package", ["docs/examples/typescript", "clients/typescript"])
def test_nothing_that_is_committed_names_where_packages_come_from(package: str) -> None:
    lock = (ROOT / package / "package-lock.json").read_text()
    assert '"resolved"' not in lock
    assert '"integrity"' in lock
