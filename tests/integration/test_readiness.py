"""Status, /readyz, health and the page say what a caller gets: each Redis, spool and default durability, for real."""

from __future__ import annotations

import html
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest

from modelready.keys import Keys
from sidecar.summary import summarize
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until
from tests.integration.calls import DEFAULT, SPOOLED, TO_DISK, Caller, calling, health, model_event, to_redis
from tests.integration.operators import Operator, operating

LIMIT = 500
PAUSE = 0.1  # between two looks at what changes once a second, in eight processes at once
needs_mount = pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to mount small disks")


class Redis(NamedTuple):
    """A way in which Redis takes no event, the word that names it, and the way back."""

    word: str
    begin: Callable[[RedisServer], object]
    end: Callable[[RedisServer], object]


def refuse_login(server: RedisServer) -> None:
    server.execute("CONFIG", "SET", "requirepass", "x")
    server.execute("CLIENT", "KILL", "TYPE", "normal")


def fill_queues(server: RedisServer) -> None:
    with server.client() as client, client.pipeline(transaction=False) as pipeline:
        for name in names():
            for _ in range(LIMIT):
                pipeline.xadd(Keys(name).events, {"of": "another"})
        pipeline.execute()


def empty_queues(server: RedisServer) -> None:
    for name in names():
        server.execute("XTRIM", Keys(name).events, "MAXLEN", "0")


def writes(server: RedisServer) -> None:
    server.execute("REPLICAOF", "NO", "ONE")


READONLY = Redis("READONLY", lambda server: server.execute("REPLICAOF", "127.0.0.1", "1"), writes)
REDIS = {
    "away": Redis("Redis", RedisServer.kill, RedisServer.start),
    "credentials refused": Redis(
        "credentials", refuse_login, lambda server: server.execute("CONFIG", "SET", "requirepass", "")
    ),
    "a right is missing": Redis(
        "lacks a right",
        lambda server: server.execute("ACL", "SETUSER", "default", "-xadd"),
        lambda server: server.execute("ACL", "SETUSER", "default", "+@all"),
    ),
    "a replica": READONLY,
    "its memory is full": Redis(
        "OOM",
        lambda server: server.execute("CONFIG", "SET", "maxmemory", "1"),
        lambda server: server.execute("CONFIG", "SET", "maxmemory", "0"),
    ),
    "the queue is full": Redis("the queue is full", fill_queues, empty_queues),
}


class Disk:
    """A small disk of its own; `spoil` is what is wrong with it from `begin` to `end`."""

    def __init__(self, path: Path, spoil: str) -> None:
        self.path, self.spoil, self.spoiled = path, spoil, False
        (path / "spool").mkdir()

    def begin(self) -> None:
        if self.spoil == "full":
            with (self.path / "ballast").open("ab", buffering=0) as file:
                try:
                    while file.write(bytes(4096)):
                        pass
                except OSError:
                    pass
        if self.spoil == "broken" and not self.spoiled:  # another one, read-only, in its place
            mount("-o", "ro,size=1m", "tmpfs", self.path / "spool")
        self.spoiled = self.spoil in {"full", "broken"}

    def end(self) -> None:
        if self.spoiled and self.spoil == "full":
            (self.path / "ballast").unlink()
        if self.spoiled and self.spoil == "broken":
            unmount(self.path / "spool")
        self.spoiled = False


def mount(*arguments: object) -> None:
    subprocess.run(["mount", "-t", "tmpfs", *map(str, arguments)], check=True)


def unmount(path: Path) -> None:
    subprocess.run(["umount", "-l", path], check=True)


class Watched(NamedTuple):
    """A sidecar with its disk."""

    name: str
    durability: str
    disk: Disk
    sidecar: SidecarProcess
    caller: Caller
    operator: Operator

    def knows(self, word: str) -> bool:
        """Whether it has met what is wrong with Redis, and with its spool."""
        problem = json.loads(self.sidecar.get("/readyz")[1])["problem"]
        broken = self.disk.spoiled or (self.disk.spoil == "small" and self.operator.status().spool.bytes > 16_000)
        return word in problem and bool(self.operator.status().spool.error) == broken

    def is_well(self) -> bool:
        state = json.loads(self.sidecar.get("/readyz")[1])
        return state["problem"] == "" and state["accepting"] and not state["spooled"]

    def hold(self) -> None:
        """Let the spool hold what it can."""
        for number in range(100 if self.disk.spoil == "small" else 3):
            if self.outcome(SPOOLED, number) == "refused":
                return

    def exhaust(self) -> None:
        """Let the spool use up what its file has room for, on a disk that has none."""
        for size in (30_000, 1):
            refused = 0
            while refused < 4:  # a refusal makes some room, from what the file does not need
                refused = refused + 1 if self.outcome(SPOOLED, size=size) == "refused" else 0
                self.disk.begin()

    def outcome(self, durability: Any = DEFAULT, number: int = 0, size: int = 1) -> str:
        event = model_event(number)
        event.runtime.signature = "x" * size
        try:
            receipt = self.caller.publish(event, durability, timeout=0.6)
        except grpc.RpcError:
            return "refused"
        return "spooled" if receipt.outcome == TO_DISK else "stored"

    def check(self) -> None:
        """All of them say the same, and that is what a caller gets."""
        until(self.agree, 8, f"{self.name}: all say the same", pause=PAUSE)

    def agree(self) -> bool:
        """AssertionError if not: on a busy machine the state may change between two of the questions."""
        until(
            lambda: health(self.sidecar)[1] == self.operator.status().promise.accepting,
            3,
            f"{self.name}: its health says so",  # which is a second old
            pause=PAUSE,
        )
        status = self.operator.status()
        said = status.promise
        code, body = self.sidecar.get("/readyz")
        serving = health(self.sidecar)
        begin = said.summary[:60]  # the line leaves out the middle of the longest reasons
        if said.spooling or not said.accepting:  # the page may be a second old
            until(
                lambda: begin in html.unescape(self.sidecar.get("/")[1]),
                3,
                f"{self.name}: the page says so",
                pause=PAUSE,
            )
        if self.disk.spoiled:
            self.disk.begin()  # again: the spool may have given its reserve back, which a small event fits into
        outcome = self.outcome()
        reported = (said.accepting, said.spooling)
        assert reported == (outcome != "refused", outcome == "spooled"), (self.name, outcome, said)
        assert (code, serving[1]) == (200 if said.accepting else 503, said.accepting), self.name
        state = json.loads(body)
        assert (state["accepting"], state["spooling"], state["summary"]) == (*reported, said.summary), self.name
        assert serving[2] == state["redis_up"]
        line = summarize(status)
        if outcome != "stored":
            assert begin in line, self.name
            assert begin in state["state"], self.name
        assert state["state"].partition(":")[0] == line.partition(":")[0], self.name
        assert said.summary.startswith("refused: ") == (outcome == "refused")
        return True


KINDS = [(spoil, durability) for spoil in ("", "small", "full", "broken") for durability in ("spooled", "primary")]


def names() -> list[str]:
    return [f"{spoil or 'sound'}-{durability}" for spoil, durability in KINDS]


class Sidecars:
    """All of them, each with a thread here."""

    def __init__(self, watched: list[Watched], pool: ThreadPoolExecutor) -> None:
        self._watched = watched
        self._pool = pool

    def each(self, do: Callable[[Watched], object]) -> None:
        list(self._pool.map(do, self._watched))

    def await_all(self, word: str, about: str) -> None:
        self.each(lambda one: until(lambda: one.knows(word), 8, f"{one.name} knows: {about}", pause=PAUSE))

    def await_health(self, after: str) -> None:
        self.each(lambda one: until(one.is_well, 20, f"{one.name} is well after {after}", pause=PAUSE))


@contextmanager
def running(server: RedisServer, directory: Path) -> Iterator[Sidecars]:
    with ExitStack() as stack:
        found = []
        for (spoil, durability), name in zip(KINDS, names(), strict=True):
            (directory / name).mkdir()
            mount("-o", "size=24m", "tmpfs", directory / name)
            stack.callback(unmount, directory / name)
            disk = Disk(directory / name, spoil)
            stack.callback(disk.end)
            env = to_redis(server, QUEUE_NAME=name, PUBLISH_DURABILITY=durability, QUEUE_MAX_DEPTH=str(LIMIT))
            env |= {"SPOOL_DIR": str(disk.path / "spool"), "RETRY_MAX_SECONDS": "0.5", "REDIS_TIMEOUT_SECONDS": "1"}
            env["SPOOL_MAX_BYTES"] = str(20_000 if spoil == "small" else 1 << 30)
            sidecar = SidecarProcess(env)
            sidecar.start(None)
            stack.enter_context(sidecar)
            caller, operator = stack.enter_context(calling(sidecar)), stack.enter_context(operating(sidecar))
            found.append(Watched(name, durability, disk, sidecar, caller, operator))
        sidecars = Sidecars(found, stack.enter_context(ThreadPoolExecutor(len(found))))
        sidecars.await_health("the start")
        yield sidecars


@needs_mount
@pytest.mark.parametrize("what", REDIS)
def test_all_say_what_a_caller_gets(what: str, tmp_path: Path) -> None:
    """With a spool that was empty, and with one that held events when this began."""
    with RedisServer() as server, running(server, tmp_path) as sidecars:
        for spool in ("empty", "holds"):
            redis, about = REDIS[what], f"{what}, spool {spool}"
            first = redis if spool == "empty" or what == "the queue is full" else READONLY
            if spool == "holds":
                first.begin(server)
                sidecars.await_all(first.word, about)
                sidecars.each(Watched.hold)
            sidecars.each(lambda one: one.disk.begin())
            if spool == "empty" or redis is not first:
                redis.begin(server)
            if first is not redis and what != "away":
                first.end(server)
            sidecars.await_all(redis.word, about)
            sidecars.each(lambda one: one.exhaust() if one.disk.spoil == "full" else None)
            sidecars.await_all(redis.word, about)
            sidecars.each(Watched.check)
            redis.end(server)
            sidecars.each(lambda one: one.disk.end())
            sidecars.await_health(about)


@needs_mount
def test_with_redis_up_they_also_report_the_spool(tmp_path: Path) -> None:
    """Where it takes no event: that matters to nobody yet."""
    word = "the spool takes no event"

    def reported(one: Watched) -> None:
        until(lambda: one.knows(word), 8, f"{one.name} says so", pause=PAUSE)
        assert word in summarize(one.operator.status())

    with RedisServer() as server, running(server, tmp_path) as sidecars:
        sidecars.each(Watched.check)
        sidecars.each(lambda one: one.disk.begin())
        sidecars.each(lambda one: reported(one) if one.disk.spoiled else None)
        sidecars.each(Watched.check)
        sidecars.each(lambda one: reported(one) if one.disk.spoiled else None)
