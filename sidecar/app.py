"""The composition root: builds the parts, starts them in order and stops them in reverse.

`running` is used by `serve` and by tests alike. The order of a stop: health NOT_SERVING and every Watch and stream
ended; no new calls, those in flight answered; the last group committed, and its spans sent; the forwarder; Redis; the
spool. So whatever a part still needs is there until it is done. A background task that dies ends the process: a new one
starts from the spool, which is better than half a sidecar.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from modelready.credentials import CredentialSource, credential_source
from modelready.redis.certificates import CertificateFiles, watch
from sidecar import __version__, logs
from sidecar.errors import RequestError, SettingsError
from sidecar.metrics import Metrics
from sidecar.operations.dead_letters import DeadLetters
from sidecar.operations.groups import Groups
from sidecar.operations.interfaces import QueueInspector, QueueObserver, StreamTrimmer
from sidecar.operations.queue_metrics import QueueMetrics
from sidecar.operations.trimmer import Trimmer
from sidecar.publishing.acceptance import Acceptance
from sidecar.publishing.backoff import Backoff
from sidecar.publishing.depth_limit import BoundedQueue, DepthLimit
from sidecar.publishing.event_log import EventObserver
from sidecar.publishing.forwarder import Forwarder
from sidecar.publishing.interfaces import DepthObserver, Queue, Spool
from sidecar.publishing.publisher import Publisher
from sidecar.publishing.readiness import Readiness
from sidecar.publishing.spool_gate import SpoolGate
from sidecar.redisstream.connection import RedisConnection
from sidecar.redisstream.dead_letters import DeadLetterStream
from sidecar.redisstream.groups import RedisGroups
from sidecar.redisstream.inspector import RedisInspector
from sidecar.redisstream.queue import RedisQueue
from sidecar.redisstream.reader import RedisStreamReader
from sidecar.redisstream.shared_inspector import SharedInspector
from sidecar.redisstream.trimmer import RedisTrimmer
from sidecar.rpc import server as grpc_server
from sidecar.rpc.groups import GroupCalls
from sidecar.rpc.health import HealthService
from sidecar.rpc.publisher_service import PublisherService
from sidecar.rpc.queue_service import QueueService
from sidecar.settings import QueueSettings, Settings
from sidecar.spool.spool import SqliteSpool
from sidecar.summary import runbooks, summarize
from sidecar.tasks import Tasks
from sidecar.web import app as web
from sidecar.web.app import Probe
from sidecar.web.calls import SidecarCalls
from sidecar.web.console import About, Console
from sidecar.web.history import History
from sidecar.web.server import HttpServer

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from sidecar.outbox.relay import Outbox
    from sidecar.telemetry.tracing import EventTracing

log = logging.getLogger(__name__)

_FIRST_LOOK_SECONDS = 0.4
_FAULT_SECONDS = 10.0
_FLUSH_SHARE = 0.6
_DELETE_SECONDS = 2.0  # what the outbox's database does not delete by then is sent again, and stored once
_ANSWER_SECONDS = 0.15  # below the delay that callers are asked to wait before they try again


class Running(NamedTuple):
    """A sidecar that serves."""

    addresses: list[str]
    http_port: int
    readiness: Readiness
    failed: asyncio.Future[BaseException | None]
    """Ends when a background task has died."""


@asynccontextmanager
async def running(settings: Settings, spans_to: TracerProvider | None = None) -> AsyncIterator[Running]:
    """Start a sidecar, yield once it serves, and stop it within SIDECAR_SHUTDOWN_SECONDS. Raises SettingsError.

    `spans_to`: instead of what the environment says, and the caller's to close.
    """
    metrics, draining = Metrics(), asyncio.Event()
    failed: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
    async with AsyncExitStack() as stack:
        spool = await _open_spool(settings)
        stack.push_async_callback(spool.close)

        credentials = credential_source(settings.redis)
        connection = RedisConnection(settings.redis, credentials, metrics, key=f"{{{settings.queue.name}}}")
        stack.push_async_callback(connection.close)
        queue = RedisQueue(connection, settings.queue)
        inspector = RedisInspector(connection, settings.queue)
        observer = SharedInspector(inspector, connection, settings.queue.name)
        bounded, limit = _bounded(queue, observer, settings.queue.max_depth)
        tracing = _tracing(settings, queue.stream, spans_to)
        gate, event_observer = SpoolGate(spool), EventObserver(metrics, tracing)
        publisher = Publisher(
            bounded,
            gate,
            settings.publish,
            metrics,
            event_observer,
            min_replicas=settings.redis.min_replicas,
        )
        _watch(metrics, spool, publisher)
        health = HealthService()
        forwarder = Forwarder(
            bounded,
            spool,
            gate,
            metrics,
            event_observer,
            backoff=Backoff(settings.publish.retry_base, settings.publish.retry_max),
            dedup_seconds=settings.queue.dedup_seconds,
            max_age=settings.spool.max_age,
        )
        readiness = Readiness(
            queue,
            spool,
            metrics,
            health.update,
            durability=settings.publish.durability,
            replicas=settings.redis.min_replicas,
            met=lambda: met(limit, publisher, spool, gate),
        )

        acceptance = Acceptance(settings.publish.source, tracing)
        outbox = _outbox(settings, publisher, acceptance, event_observer, stream=queue.stream)
        dead_letters = DeadLetters(DeadLetterStream(connection, settings.queue), draining)
        groups = Groups(inspector, RedisGroups(connection, settings.queue))
        operators = QueueService(
            inspector,
            spool,
            dead_letters,
            RedisStreamReader(connection, settings.queue),
            queue=settings.queue,
            readiness=readiness,
            pending=lambda: publisher.pending,
            draining=draining,
            outbox=None if outbox is None else lambda: outbox.state,
        )
        server, addresses, tls = grpc_server.build(
            settings.server,
            settings.publish.max_pending,
            health,
            PublisherService(
                publisher,
                acceptance,
                event_observer,
                metrics,
                stream=queue.stream,
                draining=draining,
            ),
            operators,
            groups=GroupCalls(groups),
        )
        tasks, history = Tasks(failed), History(observer, spool, metrics)
        stack.push_async_callback(tasks.cancel)
        http = HttpServer(
            settings.server.http_listen,
            web.build(
                metrics.render,
                *_probes(readiness, health, operators, listen=settings.server.listen, alive=lambda: tasks.alive),
                Console(
                    SidecarCalls(asyncio.get_running_loop(), operators.status),
                    dead_letters,
                    groups,
                    history,
                    settings=settings.server,
                    about=_about(settings),
                ).app(),
                settings.server.http_listen,
            ),
        )
        stack.push_async_callback(http.stop)

        committing = tasks.start("publisher", publisher.run())
        tasks.start("forwarder", forwarder.run())
        _watch_secrets(tasks, credentials, connection, tls)
        await _check_readiness(connection, readiness, tasks)
        _watch_queue(
            tasks,
            inspector,
            observer,
            RedisTrimmer(connection, settings.queue),
            groups,
            limit=limit,
            history=history,
            metrics=metrics,
            settings=settings.queue,
        )

        _start_outbox(outbox, tasks, metrics, draining)
        await server.start()
        http.start()
        _report_to_cloudwatch(stack, tasks, metrics, inspector, observer=observer, settings=settings)
        _give_back_memory()
        log.info("serving", extra={"grpc": addresses, "http_port": http.port, "spooled": spool.depth})
        yield Running(addresses, http.port, readiness, failed)

        deadline = time.monotonic() + settings.server.shutdown
        log.info("stopping", extra={"pending": publisher.pending, "spooled": spool.depth})
        draining.set()
        health.drain()
        await asyncio.sleep(0)
        await _end_calls(publisher, server, deadline)
        await _finish(committing, tracing, outbox, deadline)
    log.info("stopped", extra={"seconds_left": round(deadline - time.monotonic(), 2)})


def _probes(
    readiness: Readiness,
    health: HealthService,
    operators: QueueService,
    *,
    listen: Sequence[str],
    alive: Callable[[], bool],
) -> tuple[Probe, Probe]:
    """What /healthz and /readyz say. Called in the HTTP thread, also while the event loop is busy or hangs."""

    def healthz() -> tuple[bool, dict[str, object]]:
        hanging, draining = not alive(), health.draining
        details = {"draining": draining, "hanging": hanging, "listen": listen, "statuses": health.statuses}
        return not (hanging or draining), details

    def readyz() -> tuple[bool, dict[str, object]]:
        state, known, draining = readiness.state, operators.known(), health.draining
        more = {
            "state": summarize(known),
            "runbooks": runbooks(known),
            "draining": draining,
            "spooled": known.spool.depth,
        }
        return alive() and state.accepting and not draining, {**state._asdict(), **more}

    return healthz, readyz


def _about(settings: Settings) -> About:
    name = f"{settings.publish.source} on {socket.gethostname()}"
    return About(settings.queue.name.strip("{}"), name, __version__, f"{settings.redis.host}:{settings.redis.port}")


async def _check_readiness(connection: RedisConnection, readiness: Readiness, tasks: Tasks) -> None:
    """Open the connections and check readiness, from now on, but do not wait for a Redis that is slow or away."""

    async def look() -> None:
        with suppress(Exception):
            await connection.warm()
        await readiness.refresh()

    task = tasks.start("first look", look())
    await asyncio.wait({task}, timeout=_FIRST_LOOK_SECONDS)
    tasks.start("readiness", readiness.run())


async def _end_calls(publisher: Publisher, server: grpc.aio.Server, deadline: float) -> None:
    # Half of what is left of the time goes to the calls in flight, the rest to the last group and the files.
    await publisher.close((deadline - time.monotonic()) * _FLUSH_SHARE)
    # grpc answers calls that it has not passed on yet with CANCELLED: first let all callers get UNAVAILABLE.
    await asyncio.sleep(_ANSWER_SECONDS)
    await server.stop((deadline - time.monotonic()) * _FLUSH_SHARE)


async def _finish(
    committing: asyncio.Task[None], tracing: EventTracing | None, outbox: Outbox | None, deadline: float
) -> None:
    """Wait for the last group, send its spans, and let the outbox delete its rows."""
    with suppress(TimeoutError):
        async with asyncio.timeout(max(deadline - time.monotonic() - 0.2, 0.1)):
            await asyncio.wait({committing})
    if tracing is not None:
        await tracing.close(max(deadline - time.monotonic() - 0.2, 0.1))
    if outbox is not None:
        await outbox.closed(min(max(deadline - time.monotonic() - 0.2, 0.1), _DELETE_SECONDS))


def _give_back_memory() -> None:
    """Return to the system what the imports took and left: 14 of 81 MB (glibc; elsewhere nothing happens).

    What is there is taken out of the garbage collector's sight: a full collection of it would take 27 ms and find next
    to nothing. The command `serve` has kept the collector off until now.
    """
    gc.freeze()
    gc.enable()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _bounded(queue: Queue, observer: DepthObserver, max_depth: int) -> tuple[Queue, DepthLimit | None]:
    """The queue to append to, and what knows whether it is full; None where it never is."""
    if not max_depth:
        return queue, None
    limit = DepthLimit(observer, max_depth)
    return BoundedQueue(queue, limit), limit


async def _open_spool(settings: Settings) -> SqliteSpool:
    """Also warns where an event may be trimmed, and its id forgotten, before its copy in the spool is forwarded."""
    queue, longest = settings.queue, settings.spool.max_age
    if 0 < queue.retention_seconds < longest and queue.dedup_seconds < longest:
        log.warning(
            "QUEUE_RETENTION_SECONDS (%g) is below SPOOL_MAX_AGE_SECONDS (%g): an event that was appended without an "
            "answer and is forwarded after that time may be delivered twice",
            queue.retention_seconds,
            longest,
        )
    return await SqliteSpool.open(settings.spool.directory, max_bytes=settings.spool.max_bytes)


def _watch_secrets(
    tasks: Tasks, credentials: CredentialSource, connection: RedisConnection, tls: CertificateFiles[Any] | None
) -> None:
    """Follow what may be changed from outside at any time."""
    tasks.start("credentials", credentials.watch(connection.reauthenticate))
    tasks.start("certificate files", watch(tls, connection.tls))


def _watch_queue(
    tasks: Tasks,
    inspector: QueueInspector,
    observer: QueueObserver,
    stream: StreamTrimmer,
    groups: Groups,
    *,
    limit: DepthLimit | None,
    history: History,
    metrics: Metrics,
    settings: QueueSettings,
) -> None:
    tasks.start("history", history.run())
    tasks.start("queue metrics", QueueMetrics(inspector, observer, metrics, settings.retention_seconds).run())
    tasks.start("trimmer", Trimmer(stream, settings.retention_seconds, metrics).run())
    tasks.start("dead consumers", groups.run())
    if limit is not None:
        tasks.start("depth limit", limit.run())


def _report_to_cloudwatch(
    stack: AsyncExitStack,
    tasks: Tasks,
    metrics: Metrics,
    inspector: QueueInspector,
    *,
    observer: QueueObserver,
    settings: Settings,
) -> None:
    """On standard output, from now until the stop, where METRICS_EMF is set."""
    if not settings.metrics.emf:
        return
    from sidecar.telemetry.emf import EmbeddedMetrics

    emf = EmbeddedMetrics(
        metrics, inspector, observer, service=settings.publish.source, outbox=bool(settings.outbox.url)
    )
    stack.callback(emf.close)
    tasks.start("embedded metrics", emf.run())


def _outbox(
    settings: Settings, publisher: Publisher, acceptance: Acceptance, observer: EventObserver, *, stream: str
) -> Outbox | None:
    """The relay of OUTBOX_URL, if it is set. Raises SettingsError."""
    if not settings.outbox.url:
        return None
    try:
        from sidecar.outbox.relay import Outbox, OwnPublisher
    except ImportError as error:
        raise SettingsError(f"OUTBOX_URL needs the extra modelready-sidecar[outbox]: {error}") from error
    return Outbox(OwnPublisher(publisher, acceptance, observer, stream), settings.outbox, settings.redis)


def _tracing(settings: Settings, stream: str, spans_to: TracerProvider | None) -> EventTracing | None:
    """None where it is off. What is wrong with it is logged, and keeps no event from being published."""
    if spans_to is None and not settings.tracing.on:
        return None
    try:
        from sidecar.telemetry.tracing import EventTracing, from_env

        return from_env(settings.tracing, stream) if spans_to is None else EventTracing(spans_to, stream)
    except ImportError as error:
        log.warning("tracing is off: %s; it needs the extra modelready-sidecar[otel]", error)
    except Exception as error:  # noqa: BLE001 - the SDK raises several kinds for what it cannot read
        log.warning("tracing is off: %s", error)
    return None


def met(limit: DepthLimit | None, publisher: Publisher, spool: Spool, gate: SpoolGate) -> RequestError | None:
    """What an attempt to append met lately, or would meet."""
    if limit is not None and limit.full:
        return limit.error
    fault = publisher.fault
    if fault is not None and time.monotonic() - fault[1] < _FAULT_SECONDS:
        return fault[0]
    return gate.last_error if spool.depth else None


def _start_outbox(outbox: Outbox | None, tasks: Tasks, metrics: Metrics, draining: asyncio.Event) -> None:
    if outbox is None:
        return
    tasks.start("outbox", outbox.run(draining))
    metrics.watch(metrics.outbox_waiting, lambda: outbox.state.waiting)
    metrics.watch(metrics.outbox_age, lambda: outbox.state.oldest_seconds)
    metrics.watch(metrics.outbox_refused, lambda: outbox.state.refused)
    metrics.watch(metrics.outbox_failing, lambda: bool(outbox.state.error))


def _watch(metrics: Metrics, spool: Spool, publisher: Publisher) -> None:
    logs.count_left_out(metrics.log_lines_left_out)
    metrics.watch(metrics.pending, lambda: publisher.pending)
    metrics.watch(metrics.spool_depth, lambda: spool.depth)
    metrics.watch(metrics.spool_bytes, lambda: spool.bytes)
    metrics.watch(metrics.spool_max_bytes, lambda: spool.max_bytes)
    metrics.watch(metrics.spool_free_bytes, lambda: spool.free_bytes)
    metrics.watch(metrics.spool_damaged, lambda: spool.damaged)
    metrics.watch(metrics.spool_age, lambda: max(time.time() - spool.oldest_ms / 1000, 0.0) if spool.oldest_ms else 0.0)
