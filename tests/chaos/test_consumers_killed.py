"""Four consumers of a group are killed again and again under load."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count, pairwise
from pathlib import Path
from typing import NamedTuple, Self

import pytest

from modelready import model_ready
from modelready.entry import encode
from modelready.keys import Keys
from tests.harness.child import Child
from tests.harness.redis_server import RedisServer
from tests.harness.waiting import until

pytestmark = pytest.mark.chaos

KEYS = Keys("model-ready")
GROUP = "deployer"


class Attempt(NamedTuple):
    """One handling of an event; `end` is the time of the kill where it was not finished."""

    event_id: str
    model: str
    version: int
    begin: float
    end: float
    finished: bool


class Fleet:
    """Consumers in processes of their own, each with a file of what it did."""

    def __init__(self, directory: Path, server: RedisServer, size: int = 4, **env: object) -> None:
        self._directory = directory
        self._env = {
            "REDIS_HOST": server.host,
            "REDIS_PORT": str(server.port),
            "CONCURRENCY": "1",
            "BATCH": "10",
            "HANDLER_SECONDS": "0.004",
            **{name: str(value) for name, value in env.items()},
        }
        self._killed_at: dict[Path, float] = {}
        self.members = [self._start() for _ in range(size)]

    def kill(self, index: int) -> None:
        """kill -9, and another in its place."""
        child, path = self.members[index]
        child.kill()
        self._killed_at[path] = time.monotonic()
        self.members[index] = self._start()

    def attempts(self) -> list[Attempt]:
        """All that was begun so far, in the order of its beginning."""
        found = []
        for path in self._directory.glob("*.handled"):
            begun: dict[str, tuple[str, int, float]] = {}
            for line in path.read_text().splitlines():
                word, at, event_id, model, version = line.split()
                if word == "begin":
                    assert event_id not in begun
                    begun[event_id] = (model, int(version), float(at))
                else:
                    name, number, begin = begun.pop(event_id)
                    found.append(Attempt(event_id, name, number, begin, float(at), True))
            cut = self._killed_at.get(path, float("inf"))
            found += [Attempt(event_id, *what, cut, False) for event_id, what in begun.items()]
        return sorted(found, key=lambda attempt: attempt.begin)

    def wait_for_work(self, count: int) -> None:
        """Until that many more were begun."""
        before = len(self.attempts())
        until(lambda: len(self.attempts()) > before + count, 20, "they are at work")

    def close(self) -> None:
        for child, _ in self.members:
            child.kill()

    def _start(self) -> tuple[Child, Path]:
        name = f"{time.monotonic_ns()}"
        path = self._directory / f"{name}.handled"
        command = [sys.executable, "-m", "tests.chaos.consumer_process", str(path)]
        child = Child(command, self._directory / f"{name}.log", self._env)
        child.start()
        return child, path


@contextmanager
def fleet(directory: Path, server: RedisServer, **options: object) -> Iterator[Fleet]:
    made = Fleet(directory, server, **options)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.close()


class Load:
    """Publishes to the stream, each model's versions in order, until it is stopped."""

    def __init__(self, server: RedisServer, models: int, per_second: float) -> None:
        self.published: list[str] = []
        self._server = server
        self._models = models
        self._pause = 10 / per_second
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        with self._server.client() as client:
            for number in count():
                with client.pipeline(transaction=False) as pipeline:
                    for offset in range(10):
                        version, model = divmod(number * 10 + offset, self._models)
                        event = model_ready(name=f"team/{model}", version=version, uri="s3://models/")
                        self.published.append(event.event_id)
                        pipeline.xadd(KEYS.events, encode(event))
                    pipeline.execute()
                if self._ending.wait(self._pause):
                    return


def check(attempts: Sequence[Attempt], published: Sequence[str]) -> None:
    """Raise AssertionError where a promise is broken."""
    by_event: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        by_event[attempt.event_id].append(attempt)
    unhandled = [event_id for event_id in published if not any(each.finished for each in by_event[event_id])]
    assert not unhandled, f"{len(unhandled)} of {len(published)} were not handled"
    twice = [pair for each in by_event.values() for pair in pairwise(each) if pair[1].begin < pair[0].end]
    assert not twice, f"handled twice at the same time: {twice[:3]}"
    by_model: dict[str, dict[int, list[Attempt]]] = defaultdict(dict)
    for attempt in attempts:
        by_model[attempt.model].setdefault(attempt.version, []).append(attempt)
    for model, versions in by_model.items():
        for earlier, later in pairwise(sorted(versions)):
            first_end = min(each.end for each in versions[earlier] if each.finished)
            assert versions[later][0].begin >= first_end, f"{model}: {later} began before {earlier} had ended"


def pending(server: RedisServer) -> int:
    with server.client() as client:
        return int(client.xpending(KEYS.events, GROUP)["pending"])


@pytest.mark.parametrize(
    ("kills", "concurrency"),
    [(8, 1), pytest.param(40, 1, marks=pytest.mark.soak), pytest.param(20, 4, marks=pytest.mark.soak)],
)
def test_consumers_are_killed_again_and_again(tmp_path: Path, kills: int, concurrency: int) -> None:
    with (
        RedisServer() as server,
        fleet(tmp_path, server, CLAIM_SECONDS=1, CONCURRENCY=concurrency, HANDLER_SECONDS=0.02) as consumers,
    ):
        with Load(server, models=40, per_second=300) as load:
            for number in range(kills):
                consumers.wait_for_work(50)
                consumers.kill(number % 4 if number < 4 else random.randrange(4))
        until(lambda: len({each.event_id for each in consumers.attempts()}) == len(load.published), 30, "all begun")
        until(lambda: pending(server) == 0, 30, "all are acknowledged")
        attempts = consumers.attempts()
        assert server.execute("XLEN", KEYS.dead_letters) == 0
    check(attempts, load.published)
    assert any(not each.finished for each in attempts), "no kill met a handler at work: this shows nothing"


def test_the_check_finds_what_it_looks_for() -> None:
    def attempt(event_id: str, version: int, begin: float, end: float) -> Attempt:
        return Attempt(event_id, "m", version, begin, end, True)

    good = [attempt("a", 1, 1, 2), attempt("b", 2, 3, 4)]
    check(good, ["a", "b"])
    with pytest.raises(AssertionError, match="were not handled"):
        check(good, ["a", "b", "c"])
    with pytest.raises(AssertionError, match="at the same time"):
        check([attempt("a", 1, 1, 3), attempt("a", 1, 2, 4)], ["a"])
    with pytest.raises(AssertionError, match="2 began before 1"):
        check([attempt("a", 1, 1, 3), attempt("b", 2, 2, 4)], ["a", "b"])


def test_a_consumer_that_is_frozen_for_longer_than_its_claim(tmp_path: Path) -> None:
    """The one exception: the event in flight at that moment is handled by two, and nothing else is."""
    with RedisServer() as server, fleet(tmp_path, server, size=2, CLAIM_SECONDS=1, HANDLER_SECONDS=0.1) as consumers:
        with Load(server, models=10, per_second=40) as load:
            until(lambda: len(consumers.attempts()) > 40, 20, "they are at work")
            (frozen, path), _ = consumers.members
            frozen.freeze()
            begun = len(path.read_text().splitlines())
            until(lambda: not _has_pending(server, frozen.pid), 10, "what it had was taken over")
        until(lambda: len({each.event_id for each in consumers.attempts()}) == len(load.published), 30, "all are begun")
        frozen.thaw()
        until(lambda: pending(server) == 0, 10, "all are acknowledged")
        until(lambda: len(path.read_text().splitlines()) >= begun, 5, "it ends what it had begun")
        attempts = consumers.attempts()
    by_event: dict[str, list[Attempt]] = defaultdict(list)
    for each in attempts:
        by_event[each.event_id].append(each)
    assert {each.event_id for each in attempts if each.finished} >= set(load.published)
    twice = [each for each in by_event.values() if len(each) > 1]
    assert len(twice) <= 1, twice
    # What it had read and not begun, it did not begin when it came back: others had it.
    assert all(len(each) == 1 for each in by_event.values() if each not in twice)


def _has_pending(server: RedisServer, pid: int) -> bool:
    """Whether the consumer in this process has something in flight, as Redis has it."""
    with server.client() as client:
        return any(f"-{pid}-".encode() in each["name"] for each in client.xpending(KEYS.events, GROUP)["consumers"])
