"""The composition root: builds the parts, starts them in order and stops them in reverse.

`running` is used by `serve` and by tests alike. The order of a stop: health NOT_SERVING and every Watch and stream
ended; no new calls, those in flight answered; the last group committed; the forwarder; Redis; the spool. So whatever a
part still needs is there until it is done. A background task that dies ends the process: a new one starts from the
spool, which is better than half a sidecar.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, NamedTuple

from sidecar.api import server as grpc_server
from sidecar.api.health import HealthService
from sidecar.api.http import HttpServer, health_page, metrics_page
from sidecar.api.publisher_service import PublisherService
from sidecar.api.queue_service import QueueService
from sidecar.credentials import CredentialSource, StaticCredentials
from sidecar.errors import SettingsError
from sidecar.metrics import Metrics
from sidecar.publishing.backoff import Backoff
from sidecar.publishing.forwarder import Forwarder
from sidecar.publishing.interfaces import Spool
from sidecar.publishing.publisher import Publisher
from sidecar.publishing.readiness import Readiness
from sidecar.publishing.survey import Survey
from sidecar.publishing.validation import Acceptance
from sidecar.settings import RedisSettings, Settings
from sidecar.storage.redis_connection import RedisConnection
from sidecar.storage.redis_inspector import RedisInspector
from sidecar.storage.redis_queue import RedisQueue
from sidecar.storage.sqlite_spool import SqliteSpool

log = logging.getLogger(__name__)

_FIRST_LOOK_SECONDS = 0.4
_FLUSH_SHARE = 0.6
_TELL_SECONDS = 0.15  # below the delay that callers are asked to wait before they try again


class Running(NamedTuple):
    """A sidecar that serves."""

    addresses: list[str]
    http_port: int
    readiness: Readiness
    failed: asyncio.Future[BaseException | None]
    """Ends when a background task has died."""


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """Start a sidecar, yield once it serves, and stop it within SIDECAR_SHUTDOWN_SECONDS. Raises SettingsError."""
    metrics = Metrics()
    failed: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
    async with AsyncExitStack() as stack:
        spool = await SqliteSpool.open(settings.spool.directory, max_bytes=settings.spool.max_bytes)
        stack.push_async_callback(spool.close)
        _watch_spool(metrics, spool)

        credentials = _credentials(settings.redis)
        queue_key = f"{{{settings.queue.name}}}"
        connection = RedisConnection(settings.redis, credentials, metrics, queue_key)
        stack.push_async_callback(connection.close)
        queue = RedisQueue(connection, settings.queue)
        publisher = Publisher(queue, spool, settings.publish, metrics, min_replicas=settings.redis.min_replicas)
        metrics.watch(metrics.pending, lambda: publisher.pending)
        health = HealthService()
        readiness = Readiness(queue, spool, publisher, metrics, health.update)
        forwarder = Forwarder(
            queue,
            spool,
            publisher,
            metrics,
            backoff=Backoff(settings.publish.retry_base, settings.publish.retry_max),
            dedup_seconds=settings.queue.dedup_seconds,
            max_age=settings.spool.max_age,
            timeout=settings.redis.timeout,
        )

        draining = asyncio.Event()
        service = PublisherService(publisher, Acceptance(settings.publish.source), metrics, queue.stream, draining)
        inspector = RedisInspector(connection, settings.queue)
        server, addresses = grpc_server.build(
            settings.server, settings.publish.max_pending, health, service, QueueService(inspector, spool)
        )
        http = HttpServer(
            settings.server.http_listen,
            {
                "/metrics": metrics_page(metrics.render),
                "/healthz": health_page(lambda: not draining.is_set(), lambda: {"draining": draining.is_set()}),
                "/readyz": health_page(
                    lambda: readiness.state.accepting and not draining.is_set(),
                    lambda: {**readiness.state._asdict(), "draining": draining.is_set(), "spooled": spool.depth},
                ),
            },
        )
        stack.callback(http.stop)

        tasks = _Tasks(failed)
        stack.push_async_callback(tasks.cancel)
        committing = tasks.start("publisher", publisher.run())
        tasks.start("forwarder", forwarder.run())
        tasks.start("credentials", credentials.watch(connection.reauthenticate))
        await _first_look(connection, readiness, tasks)
        tasks.start("readiness", readiness.run())
        tasks.start("survey", Survey(inspector, metrics).run())

        http.start()
        await server.start()
        _give_back_memory()
        log.info("serving", extra={"grpc": addresses, "http_port": http.port, "spooled": spool.depth})
        yield Running(addresses, http.port, readiness, failed)

        deadline = time.monotonic() + settings.server.shutdown
        log.info("stopping", extra={"pending": publisher.pending, "spooled": spool.depth})
        draining.set()
        health.drain()
        await asyncio.sleep(0)
        # Half of what is left of the time goes to the calls in flight, the rest to the last group and the files.
        await publisher.close((deadline - time.monotonic()) * _FLUSH_SHARE)
        # grpc answers calls that it has not handed over yet with CANCELLED: first let all who call hear UNAVAILABLE.
        await asyncio.sleep(_TELL_SECONDS)
        await server.stop((deadline - time.monotonic()) * _FLUSH_SHARE)
        with suppress(TimeoutError):
            async with asyncio.timeout(max(deadline - time.monotonic() - 0.2, 0.1)):
                await asyncio.wait({committing})
    log.info("stopped", extra={"seconds_left": round(deadline - time.monotonic(), 2)})


class _Tasks:
    """The background tasks. One that ends by an error is told through `failed`."""

    def __init__(self, failed: asyncio.Future[BaseException | None]) -> None:
        self._failed = failed
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)
        return task

    async def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.critical("the background task %s died", task.get_name(), exc_info=error)
            if not self._failed.done():
                self._failed.set_result(error)


async def _first_look(connection: RedisConnection, readiness: Readiness, tasks: _Tasks) -> None:
    """Open the connections and see how things are, but do not wait for a Redis that is slow or away."""

    async def look() -> None:
        with suppress(Exception):
            await connection.warm()
        await readiness.look()

    task = tasks.start("first look", look())
    await asyncio.wait({task}, timeout=_FIRST_LOOK_SECONDS)


def _give_back_memory() -> None:
    """Return to the system what the imports took and left: 14 of 81 MB (glibc; elsewhere nothing happens)."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _watch_spool(metrics: Metrics, spool: Spool) -> None:
    metrics.watch(metrics.spool_depth, lambda: spool.depth)
    metrics.watch(metrics.spool_bytes, lambda: spool.bytes)
    metrics.watch(metrics.spool_max_bytes, lambda: spool.max_bytes)
    metrics.watch(metrics.spool_damaged, lambda: spool.damaged)
    metrics.watch(metrics.spool_age, lambda: time.time() - spool.oldest_ms / 1000 if spool.oldest_ms else 0.0)


def _credentials(settings: RedisSettings) -> CredentialSource:
    """The source of the credentials that the settings name; what needs AWS is imported only then."""
    if settings.auth_secret_id:
        from sidecar.aws.secrets_manager import SecretsManagerCredentials

        return SecretsManagerCredentials(
            settings.auth_secret_id,
            key=settings.auth_secret_key,
            username=settings.username or None,
            region=settings.aws_region or None,
            endpoint_url=settings.aws_endpoint_url or None,
        )
    if settings.iam_cluster:
        from sidecar.aws.iam import IamCredentials

        return IamCredentials(
            settings.username,
            settings.iam_cluster,
            serverless=settings.iam_serverless,
            region=settings.aws_region or None,
        )
    if settings.auth_token:
        return StaticCredentials(settings.username or None, settings.auth_token)
    if settings.username:
        raise SettingsError(f"REDIS_USERNAME is {settings.username!r}, but no token is set: REDIS_AUTH_TOKEN is empty")
    return StaticCredentials(None, None)
