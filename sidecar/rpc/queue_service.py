"""QueueService: the state of the queue, the spool and the dead letters, and what operators do with dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from google.protobuf.duration_pb2 import Duration

from modelready.v1 import queue_service_pb2 as pb
from sidecar.errors import InvalidRequest, QueueError, TooManyTails, Violation
from sidecar.operations.dead_letters import DeadLetters, Filter
from sidecar.operations.interfaces import QueueInspector, QueueState, RedisState, StoredDeadLetter, StreamReader
from sidecar.operations.outbox import OutboxState
from sidecar.operations.tail import Tail
from sidecar.operations.trimmer import held_back
from sidecar.publishing.interfaces import Spool
from sidecar.publishing.readiness import Readiness
from sidecar.rpc.auth import Context, parse
from sidecar.rpc.groups import fill_group, set_seconds, set_time
from sidecar.settings import QueueSettings

NAME = "modelready.v1.QueueService"
_MAX_TAILS = 8  # each reads from Redis four times a second


class QueueService:
    """The handlers."""

    def __init__(
        self,
        inspector: QueueInspector,
        spool: Spool,
        dead_letters: DeadLetters,
        reader: StreamReader,
        *,
        queue: QueueSettings,
        readiness: Readiness,
        pending: Callable[[], int],
        draining: asyncio.Event,
        outbox: Callable[[], OutboxState] | None = None,
    ) -> None:
        """`pending`: events that wait in memory. `outbox`: None without OUTBOX_URL.

        `draining`: set when the sidecar stops; calls that follow the queue end then.
        """
        self._inspector = inspector
        self._spool = spool
        self._dead_letters = dead_letters
        self._reader = reader
        self._queue = queue
        self._readiness = readiness
        self._pending = pending
        self._draining = draining
        self._outbox = outbox
        self._tails = 0

    async def get_queue_status(self, raw: bytes, _context: Context) -> bytes:
        """The status, also while Redis is away."""
        parse(pb.GetQueueStatusRequest, raw)
        return (await self.status()).SerializeToString()

    def known(self) -> pb.GetQueueStatusResponse:
        """What is known of the status without a question to Redis."""
        spool = pb.SpoolStatus(depth=self._spool.depth, bytes=self._spool.bytes, max_bytes=self._spool.max_bytes)
        set_time(spool.oldest_at, self._spool.oldest_ms)
        response = pb.GetQueueStatusResponse(queue=self._inspector.name, stream=self._inspector.stream)
        spool.free_bytes, spool.error = self._spool.free_bytes, self._readiness.spool_error
        state = self._readiness.state
        promise = pb.PromiseStatus(summary=state.summary, accepting=state.accepting, spooling=state.spooling)
        promise.pending, promise.reason = self._pending(), state.reason
        response.spool.CopyFrom(spool)
        response.promise.CopyFrom(promise)
        response.redis_up = state.redis_up
        if self._outbox is not None:
            outbox = self._outbox()
            response.outbox.CopyFrom(pb.OutboxStatus(depth=outbox.waiting, refused=outbox.refused, error=outbox.error))
            set_seconds(response.outbox.oldest_age, outbox.oldest_seconds)
        return response

    async def status(self, timeout: float | None = None) -> pb.GetQueueStatusResponse:
        """The status as an object; what Redis has not said after `timeout` seconds is left out."""
        response = self.known()
        response.redis_up = False
        try:
            async with asyncio.timeout(timeout):
                await self._look(response)
        except QueueError as error:
            response.redis_error = str(error)
        except TimeoutError:
            response.redis_error = f"Redis did not answer within {timeout:g} s"
        else:
            response.redis_up = True
        return response

    async def _look(self, response: pb.GetQueueStatusResponse) -> None:
        """What Redis knows. Raises QueueErrors; what was learned until then stands in the response."""
        state = await self._inspector.inspect()
        _fill(response, state)
        set_seconds(response.trim.retention, self._queue.retention_seconds)
        set_time(response.trim.oldest_entry_at, state.oldest_ms)
        response.trim.max_depth = self._queue.max_depth
        late = held_back(state.groups, self._queue.retention_seconds)
        response.trim.held_back_by = late.name if late else ""
        dead = await self._inspector.dead_letter_counts()
        for reason, count in dead.reasons:
            response.dead_letter_reasons.add(reason=reason, count=count)
        set_time(response.oldest_dead_letter_at, dead.oldest_ms)
        response.dedup_keys = await self._inspector.dedup_keys()
        _fill_redis(response.redis, await self._inspector.redis())

    async def list_dead_letters(self, raw: bytes, _context: Context) -> bytes:
        """One page."""
        request = parse(pb.ListDeadLettersRequest, raw)
        page = await self._dead_letters.list(_filter(request.filter), request.page_size, request.page_token)
        response = pb.ListDeadLettersResponse(next_page_token=page.next_token)
        for letter in page.letters:
            _fill_letter(response.dead_letters.add(), letter)
        return response.SerializeToString()

    async def get_dead_letter(self, raw: bytes, _context: Context) -> bytes:
        """One, whole."""
        request = parse(pb.GetDeadLetterRequest, raw)
        letter = await self._dead_letters.get(request.id)
        response = pb.GetDeadLetterResponse()
        _fill_letter(response.dead_letter, letter)
        response.dead_letter.data = letter.data
        if letter.event is not None:
            response.dead_letter.event.CopyFrom(letter.event)
        return response.SerializeToString()

    async def replay_dead_letters(self, raw: bytes, _context: Context) -> bytes:
        """Put back those that are selected; a caller that is gone stops it between two."""
        request = parse(pb.ReplayDeadLettersRequest, raw)
        if request.target not in pb.ReplayTarget.values():
            raise InvalidRequest([Violation("target", f"{request.target} is not known")])
        dry_run, rate = request.dry_run, request.max_per_second
        if request.WhichOneof("selection") == "list":
            name, limit = request.list.name, request.list.limit
            done = await self._dead_letters.replay_list(name, limit, dry_run=dry_run, max_per_second=rate)
        else:
            chosen, everyone = _selection(request), request.target == pb.REPLAY_TARGET_ALL
            done = await self._dead_letters.replay(chosen, everyone=everyone, dry_run=dry_run, max_per_second=rate)
        response = pb.ReplayDeadLettersResponse(replayed=done.done, missing=done.missing, skipped=done.skipped)
        return response.SerializeToString()

    async def discard_dead_letters(self, raw: bytes, _context: Context) -> bytes:
        """Remove those that are selected."""
        request = parse(pb.DiscardDeadLettersRequest, raw)
        done = await self._dead_letters.discard(_selection(request), dry_run=request.dry_run)
        return pb.DiscardDeadLettersResponse(discarded=done.done, missing=done.missing).SerializeToString()

    async def tail_events(self, raw: bytes, context: Context) -> AsyncIterator[bytes]:
        """Entries as they come, until the caller has enough or the sidecar stops."""
        request = parse(pb.TailEventsRequest, raw)
        tail = Tail(self._reader, self._draining, last=request.last, group=request.group)
        if self._tails >= _MAX_TAILS:
            raise TooManyTails(f"{self._tails} calls follow the queue already")
        self._tails += 1
        # Also where the caller went while an answer was being written, which ends no generator.
        context.add_done_callback(self._tail_ended)  # type: ignore[arg-type] # the stub has a class for the callable
        async for entry in tail.entries():
            response = pb.TailEventsResponse(entry_id=entry.id)
            if entry.event is not None:
                response.event.CopyFrom(entry.event)
            yield response.SerializeToString()

    def _tail_ended(self, _context: object) -> None:
        self._tails -= 1


def _selection(request: pb.ReplayDeadLettersRequest | pb.DiscardDeadLettersRequest) -> list[str] | Filter:
    chosen = request.WhichOneof("selection")
    if chosen is None:
        raise InvalidRequest([Violation("selection", "is required")])
    return list(request.ids.ids) if chosen == "ids" else _filter(request.filter)


def _filter(sent: pb.DeadLetterFilter) -> Filter:
    ages: dict[str, float] = {}
    for name in ("older_than", "newer_than"):
        if sent.HasField(name):
            age: Duration = getattr(sent, name)
            ages[name] = age.seconds + age.nanos / 1e9
            if ages[name] < 0:
                raise InvalidRequest([Violation(f"filter.{name}", "must not be negative")])
    return Filter(sent.reason, sent.model, sent.origin, ages.get("older_than"), ages.get("newer_than"))


def _fill_letter(into: pb.DeadLetter, letter: StoredDeadLetter) -> None:
    """All but the event and the data."""
    into.id, into.event_id, into.entry_id = letter.id, letter.event_id, letter.entry_id
    into.reason, into.detail, into.origin, into.attempts = letter.reason, letter.detail, letter.origin, letter.attempts
    into.subject, into.correlation_id, into.content_type = letter.subject, letter.correlation_id, letter.content_type
    set_time(into.first_at, letter.first_ms)
    set_time(into.last_at, letter.last_ms)
    set_time(into.dead_at, letter.dead_ms)


def _fill(response: pb.GetQueueStatusResponse, state: QueueState) -> None:
    response.stream_length = state.length
    response.dead_letters = state.dead_letters
    for group in state.groups:
        fill_group(response.groups.add(), group)
    for one in state.lists:
        response.lists.add(
            name=one.mirror.name,
            depth=one.depth,
            processing=one.processing,
            dead_letters=one.dead_letters,
            processing_key=one.mirror.processing,
            dead_letters_key=one.mirror.dead_letters,
        )
    if state.lists:
        response.list.CopyFrom(response.lists[0])


def _fill_redis(into: pb.RedisStatus, state: RedisState) -> None:
    into.CopyFrom(
        pb.RedisStatus(
            engine=state.engine,
            version=state.version,
            role=state.role,
            used_memory_bytes=state.used_memory,
            max_memory_bytes=state.max_memory,
            eviction_policy=state.eviction_policy,
            replicas=state.replicas,
            cluster=state.cluster,
        )
    )
    set_seconds(into.latency, state.latency)
