"""The story, and what it checks."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

import grpc

from modelready import ModelReadyToDeploy, Outcome, Publisher, PublishError, model_ready
from modelready.consumer import Consumer
from modelready.v1 import queue_service_pb2 as pb
from modelready.v1.queue_service_pb2_grpc import QueueServiceStub
from sidecar import embedded
from sidecar.cli import status
from sidecar.cli.demo.screen import Screen
from sidecar.errors import SettingsError
from sidecar.settings import GROUPS

T = TypeVar("T")

_MODELS = Path(__file__).with_name("models")
_NAMES = ("fraud-scorecard", "churn-tree", "support-tokenizer")
_GROUP = "deployer"
_PATIENCE_SECONDS = 30.0
_SETTLE_SECONDS = 0.5


class Broken(Exception):
    """Something is not as promised."""


def play(*, plain: bool, demo: Callable[[Screen, Path, ExitStack], Demo] | None = None) -> int:
    """Play the demo and return 0 if all was as promised, else 1; 130 after Ctrl-C. No process outlives it.

    `demo` makes a demo that has more scenes than Demo.
    """
    screen = Screen(plain=plain)
    try:
        with _ended_by_signals(), tempfile.TemporaryDirectory(prefix="modelready-demo-") as place, ExitStack() as stack:
            (demo or Demo)(screen, Path(place), stack).play()
    except (Broken, SettingsError, PublishError, grpc.RpcError) as error:
        screen.failed(str(error))
        return 1
    except BrokenPipeError:  # nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        screen.title("Interrupted; all processes that it started are ended.")
        return 130
    return 0


class Demo:
    """The story. `stack` ends everything that it starts, in reverse."""

    def __init__(self, screen: Screen, place: Path, stack: ExitStack) -> None:
        self._screen = screen
        self._place = place
        self._stack = stack
        self._redis_directory = place / "embedded"
        self._published: list[str] = []
        self._deployed: list[str] = []
        self._deploying: Future[None] | None = None

    def play(self) -> None:
        """Raises Broken where anything is not as promised."""
        screen = self._screen
        screen.scene("A sidecar starts, with a Redis of its own; a deployer waits for events")
        self._address = self._start_sidecar()
        self._channel = self._stack.enter_context(grpc.insecure_channel(self._address))
        publisher = self._stack.enter_context(Publisher(self._address, source="//registry.demo"))
        consumer = self._start_deployer()

        screen.scene("The registry registers three model versions and publishes each")
        first = [_register(name, 1) for name in _NAMES]
        self._publish(publisher, first, Outcome.STORED)
        self._expect_deployed("the deployer gets them")

        screen.scene("Redis is killed (SIGKILL), and the registry keeps publishing")
        self._kill_redis()
        second = [_register(name, 2) for name in _NAMES]
        self._publish(publisher, second, Outcome.SPOOLED)
        spool = self._status().spool
        self._check(spool.depth == len(second), f"the spool holds {spool.depth} events, not {len(second)}")
        screen.line("sidecar", f"keeps {spool.depth} events on its disk, {spool.bytes:,} bytes, and acknowledged them")

        screen.scene("Redis comes back, and the same events arrive")
        self._start_redis()
        self._expect_deployed("the spooled events arrive")

        self._play_more()

        screen.scene("The registry is not sure, and publishes its events again with the same ids")
        self._publish(publisher, [*first, *second], Outcome.DUPLICATE)
        time.sleep(_SETTLE_SECONDS)  # a second copy would arrive now
        consumer.stop()
        self._until(self._deploying_is_over, "the deployer stops")
        self._verify()

        screen.scene("What `modelready-sidecar status` says")
        screen.block(status.table(self._status()))
        screen.done()

    def _play_more(self) -> None:
        """More scenes, where a demo has them; Redis is up before and after."""

    # -- the cast

    def _start_sidecar(self) -> str:
        """Start the process and return the address that it serves on, which the system chose."""
        log = self._place / "sidecar.log"
        environ = {
            **other_variables(),
            "SPOOL_DIR": str(self._place),
            "SIDECAR_LISTEN": "127.0.0.1:0",
            "SIDECAR_HTTP_LISTEN": "127.0.0.1:0",
            "LOG_FORMAT": "json",
        }
        self._stack.callback(self._end_redis)
        with log.open("wb") as output:
            sidecar = subprocess.Popen(
                [sys.executable, "-m", "sidecar", "serve", "--embedded"],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C goes to the demo, which stops it in order
            )
        self._stack.callback(end, sidecar)

        def serving() -> dict[str, Any] | None:
            text = log.read_text(errors="replace")
            self._check(sidecar.poll() is None, f"the sidecar ended with {sidecar.returncode}:\n{text[-2000:]}")
            records = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("}\n")]
            return next((record for record in records if record["message"] == "serving"), None)

        address = str(self._until(serving, "the sidecar starts")["grpc"][0])
        self._screen.line("sidecar", f"serves gRPC on {address}, pid {sidecar.pid}")
        redis = self._redis()
        self._screen.line(
            "redis", f"a Valkey server on 127.0.0.1:{redis.port}, with password and fsync, pid {redis.pid}"
        )
        return address

    def _start_deployer(self) -> Consumer:
        """A consumer group's one consumer, in a thread. It checks each model file against the event's digest."""
        logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format=f"  {'deployer':<9} %(message)s")
        redis = self._redis()
        environ = {
            "REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(redis.port), "REDIS_AUTH_TOKEN": redis.token,
        }  # fmt: skip
        consumer = Consumer.from_env(group=_GROUP, environ=environ, block_seconds=0.5)
        self._stack.callback(consumer.close)
        thread = self._stack.enter_context(ThreadPoolExecutor(1, "deployer"))
        self._stack.callback(consumer.stop)
        self._deploying = thread.submit(consumer.run, self._deploy)
        self._screen.line("deployer", f"reads the stream as group {_GROUP!r}")
        return consumer

    def _deploy(self, event: ModelReadyToDeploy) -> None:
        content = Path(url2pathname(urlsplit(event.artifact.uri).path)).read_bytes()
        if digest(content) != event.artifact.digest:
            raise Broken(f"{event.artifact.uri} is not the file that was published")
        self._deployed.append(_version(event))
        text = f"got {_version(event)}, {len(content)} bytes, digest right"
        self._screen.line("deployer", text, "36")

    def _publish(self, publisher: Publisher, events: Sequence[ModelReadyToDeploy], expected: Outcome) -> None:
        for event in events:
            began = time.monotonic()
            receipt = publisher.publish_event(event)
            milliseconds = (time.monotonic() - began) * 1000
            where = f"entry {receipt.entry_id}" if receipt.entry_id else "on the sidecar's disk"
            what = _version(event)
            colour = "33" if receipt.outcome is Outcome.SPOOLED else "32"
            self._screen.line(
                "registry", f"{what:<20} {receipt.outcome.name:<10}{where:<26}{milliseconds:6.1f} ms", colour
            )
            self._check(receipt.outcome is expected, f"{what} was {receipt.outcome.name}, not {expected.name}")
            if receipt.outcome is not Outcome.DUPLICATE:
                self._published.append(what)

    # -- Redis

    def _redis(self) -> embedded.EmbeddedServer:
        state = json.loads((self._redis_directory / "server.json").read_text())
        return embedded.EmbeddedServer(self._redis_directory, **state)

    def _kill_redis(self) -> None:
        redis = self._redis()
        os.kill(redis.pid, signal.SIGKILL)
        self._until(lambda: not redis.answers(), "Redis is gone")
        self._screen.line("redis", f"pid {redis.pid} is gone", "31")

    def _start_redis(self) -> None:
        with ThreadPoolExecutor(1) as thread:
            starting = thread.submit(embedded.start, self._redis_directory)
            self._until(starting.done, "Redis starts")
            redis = starting.result()
        self._screen.line("redis", f"is back on 127.0.0.1:{redis.port} with its data, pid {redis.pid}", "32")

    def _end_redis(self) -> None:
        """Stop the server if the sidecar did not start it, or was killed before it stopped it."""
        if (self._redis_directory / "server.json").exists():
            redis = self._redis()
            if redis.answers():
                redis.stop()

    # -- what was promised

    def _expect_deployed(self, what: str) -> None:
        """Wait until the deployer has all that was published and acknowledged it, and the spool is empty."""
        self._until(lambda: len(self._deployed) >= len(self._published), what)
        self._until(lambda: not any(group.pending for group in self._status().groups), "the deployer acknowledges")
        self._until(lambda: self._status().spool.depth == 0, "the spool is emptied")

    def _verify(self) -> None:
        published, deployed = self._published, self._deployed
        missing = [version for version in published if version not in deployed]
        self._check(not missing, f"never arrived: {missing}")
        self._check(len(set(deployed)) == len(deployed), f"arrived twice: {deployed}")
        self._check(deployed == published, f"arrived in another order: {deployed}, published as {published}")
        length = self._status().stream_length
        self._check(length == len(published), f"the stream holds {length} entries, not {len(published)}")
        text = f"{len(published)} events acknowledged, {len(deployed)} arrived: each once, in the order of publication"
        self._screen.line("checked", text, "32")

    def _status(self) -> pb.GetQueueStatusResponse:
        return QueueServiceStub(self._channel).GetQueueStatus(pb.GetQueueStatusRequest(), timeout=_PATIENCE_SECONDS)

    def _deploying_is_over(self) -> bool:
        return self._deploying is None or self._deploying.done()

    def _until(self, condition: Callable[[], T | None], what: str) -> T:
        """Wait for it, and return what it says. Raises Broken when it takes too long or the deployer fails."""
        began = time.monotonic()
        while True:
            value = condition()
            if self._deploying is not None and self._deploying.done():
                self._deploying.result()
            if value:
                return value
            waited = time.monotonic() - began
            self._check(waited < _PATIENCE_SECONDS, f"{what}: not within {_PATIENCE_SECONDS:.0f} s")
            if waited > 1:
                self._screen.waiting(what)
            time.sleep(0.02)

    def _check(self, kept: object, broken: str) -> None:
        if not kept:
            raise Broken(broken)


def _register(name: str, version: int) -> ModelReadyToDeploy:
    """What a registry knows about a version: its file, its metric, and what it replaces."""
    path = _MODELS / f"{name}-{version}.json"
    content = path.read_bytes()
    model, before = json.loads(content), _MODELS / f"{name}-{version - 1}.json"
    return model_ready(
        name=name,
        version=model["version"],
        uri=path.as_uri(),
        digest=digest(content),
        size_bytes=len(content),
        media_type="application/json",
        framework=model["framework"],
        metric_name=model["metric"]["name"],
        current_value=model["metric"]["value"],
        baseline_value=json.loads(before.read_bytes())["metric"]["value"] if before.exists() else None,
        previous_version=version - 1 if before.exists() else "",
        alias="champion",
    )


def _version(event: ModelReadyToDeploy) -> str:
    return f"{event.model.name}/{event.model.version}"


def digest(content: bytes) -> str:
    """As an event has it: sha256: and hexadecimal digits."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def other_variables() -> dict[str, str]:
    """The environment without the sidecar's variables: they are for another sidecar."""
    ours = {setting.metadata["name"] for group in GROUPS for setting in fields(group)}
    return {name: value for name, value in os.environ.items() if name not in ours}


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL."""
    process.terminate()
    try:
        process.wait(_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demo as Ctrl-C does, so that no child is left behind."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
