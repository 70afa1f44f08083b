"""Twenty minutes of a sidecar's life, in real time: load, a slow group, an outage, dead letters, a wrong token.

What is left in a directory: `sidecar.log`, with the lines for CloudWatch; `prometheus`, the series that a real
Prometheus scraped; and `story.json`, from when to when.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import grpc

from modelready.consumer import Consumer
from modelready.v1.event_pb2 import ModelReadyToDeploy
from tests.harness.prometheus_server import PrometheusServer
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.integration.calls import calling, model_event, to_redis

SCRAPE_SECONDS = 15
_MODELS = ("churn-tree", "fraud-scorecard", "ranker", "support-tokenizer", "pricing", "forecast", "ocr", "embedder")
_GROUPS = ("deployer-eu", "deployer-us", "model-catalogue")
_USER, _TOKEN, _OTHER_TOKEN = "sidecar", "one-token", "another-token"


class Story:
    """What happens at present."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.slow = False
        """The group model-catalogue takes its time."""
        self.broken = False
        """Some artifacts cannot be deployed, and a registry sends events that are none."""

    def publish(self, sidecar: SidecarProcess, seed: int) -> None:
        """A registry: single events, now and then a batch, a repetition, and what is refused."""
        chance, number, last = random.Random(seed), 0, model_event(0)
        with calling(sidecar) as caller:
            while not self.over.wait(chance.expovariate(5 + 2 * math.sin(time.monotonic() / 60 + seed))):
                number += 1
                event = self._event(chance, number)
                try:
                    if number % 60 == 0:
                        caller.batch([self._event(chance, number + n) for n in range(20)])
                    caller.publish(last if number % 25 == 0 else event)
                except grpc.RpcError:
                    continue  # refused; it counts
                last = event

    def _event(self, chance: random.Random, number: int) -> ModelReadyToDeploy:
        event = model_event(number)
        event.model.name = chance.choice(_MODELS)
        event.artifact.uri = f"s3://models/{event.model.name}/{number}/"
        if self.broken and number % 60 == 5:
            event.labels["state"] = "broken"
        if self.broken and number % 20 == 10:
            event.artifact.uri = ""
        return event

    def consume(self, group: str, event: ModelReadyToDeploy) -> None:
        """A deployer's handler."""
        self.over.wait(1.2 if self.slow and group == "model-catalogue" else 0.01)
        if event.labels.get("state") == "broken" and group == "deployer-eu":
            raise PermissionError(event.artifact.uri)


def tell(directory: Path, minutes: float) -> None:
    """Let it happen. What the directory held before is gone."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    story = Story()
    with ExitStack() as stack:
        acl = [f"user {_USER} on >{_TOKEN} ~* &* +@all"]
        config = {"maxmemory": "64mb", "maxmemory-policy": "noeviction"}
        server = stack.enter_context(RedisServer(appendonly=True, acl=acl, config=config))
        settings = to_redis(
            server, METRICS_EMF="true", LOG_FORMAT="json", REDIS_USERNAME=_USER, REDIS_AUTH_TOKEN=_TOKEN,
            SIDECAR_SOURCE="//model-registry", SPOOL_MAX_BYTES=str(8 << 20),
        )  # fmt: skip
        sidecar = stack.enter_context(SidecarProcess(settings))
        stack.enter_context(
            PrometheusServer(sidecar.http, interval_seconds=SCRAPE_SECONDS, data=directory / "prometheus")
        )
        stack.callback(lambda: (directory / "sidecar.log").write_text(sidecar.logs()))
        for group in _GROUPS:
            _consume(stack, story, server, group)
        for seed in range(3):
            _start(stack, partial(story.publish, sidecar, seed))
        stack.callback(story.over.set)
        start = time.time()
        _chapters(story, server, minutes / 22)
        span = {"start": start, "end": time.time()}
        (directory / "story.json").write_text(json.dumps(span))


def _chapters(story: Story, server: RedisServer, scale: float) -> None:
    """At their minutes of twenty-two, scaled."""
    chapters: list[tuple[float, Callable[[], object]]] = [
        (3, lambda: setattr(story, "slow", True)),
        (5.5, lambda: setattr(story, "slow", False)),
        (8, server.kill),
        (11.5, server.start),
        (14, lambda: setattr(story, "broken", True)),
        (15.5, lambda: setattr(story, "broken", False)),
        (17.5, lambda: _change_token(server, _OTHER_TOKEN)),
        (19, lambda: _change_token(server, _TOKEN)),
        (22, lambda: None),
    ]
    begin = time.monotonic()
    for minute, happens in chapters:
        time.sleep(max(begin + minute * 60 * scale - time.monotonic(), 0))
        happens()


def _change_token(server: RedisServer, token: str) -> None:
    server.execute("ACL", "SETUSER", _USER, "resetpass", f">{token}")
    with server.client() as client:
        client.execute_command("CLIENT", "KILL", "USER", _USER)


def _consume(stack: ExitStack, story: Story, server: RedisServer, group: str) -> None:
    consumer = Consumer.from_env(
        group=group, environ=to_redis(server), concurrency=4, max_attempts=3, backoff_base_seconds=0.5
    )
    _start(stack, lambda: consumer.run(lambda event: story.consume(group, event)))
    stack.callback(consumer.stop)


def _start(stack: ExitStack, target: Callable[[], object]) -> None:
    thread = threading.Thread(target=target)
    thread.start()
    stack.callback(thread.join)
