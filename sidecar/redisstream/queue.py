"""The queue in Redis: one script call a group of events, and WAIT behind it where replicas must confirm."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from google.protobuf.message import DecodeError

from modelready.entry import (
    CONTENT_TYPES,
    EVENT_TYPE,
    UnencodableEvent,
    encode,
    encode_data,
    encode_list_message,
    iso,
    subject,
)
from modelready.keys import Keys
from modelready.redis.script import Script
from modelready.v1.event_pb2 import ModelReadyToDeploy
from sidecar.errors import Refused, SetupFault
from sidecar.publishing.interfaces import Appended, DeadLetter, Event
from sidecar.redisstream.connection import RedisConnection
from sidecar.settings import QueueSettings

_CLOCK_SKEW_MS = 300_000
_PAGE = 1000
_APPENDED = "APPENDED "  # append.lua's word: it failed when some events were in the stream already


class RedisQueue:
    """See publishing.interfaces.Queue."""

    def __init__(self, connection: RedisConnection, settings: QueueSettings, keys: Keys | None = None) -> None:
        """`keys`: default: those of QUEUE_NAME."""
        self._connection = connection
        self._settings = settings
        self._keys = keys or Keys(settings.name)
        self._append = Script("sidecar.redisstream", "lua/append.lua")
        self._dead_letter = Script("sidecar.redisstream", "lua/dead_letter.lua")
        self._window = str(settings.dedup_seconds * 1000)
        self._lists = settings.lists
        self._seen_prefix = self._keys.seen_prefix
        # What every call of append.lua begins with.
        self._names = [self._keys.events, *(mirror.name for mirror in self._lists)]
        self._arguments = [self._window, CONTENT_TYPES[settings.encoding], EVENT_TYPE, str(len(self._lists))]

    @property
    def stream(self) -> str:
        """The key of the stream."""
        return self._keys.events

    async def append(self, events: Sequence[Event], *, replicas: int = 0) -> tuple[list[Appended], int]:
        """See publishing.interfaces.Queue.append."""
        names, arguments = [*self._names], [*self._arguments]
        try:
            for event in events:
                names.append(self._seen_prefix + event.id)
                arguments += self._arguments_of(event)
        except UnencodableEvent as error:
            raise Refused(f"the event cannot be encoded: {error}", reason="UNENCODABLE") from error
        try:
            after = [self._connection.wait(replicas)] if replicas else []
            reply, *confirmed = await self._connection.pool.run(self._append, names, arguments, *after)
        except SetupFault as error:
            if _APPENDED in str(error):
                raise SetupFault(str(error), reason=error.reason, ambiguous=True) from error
            raise
        return [
            Appended(entry[1:].decode(), True) if entry[:1] == b"=" else Appended(entry.decode(), False)
            for entry in reply
        ], (confirmed[0] if confirmed else 0)

    def _arguments_of(self, event: Event) -> list[Any]:
        """What append.lua takes of one event. Raises UnencodableEvent."""
        message = event.message
        arguments = [
            event.id,
            message.source,
            iso(message.occurred_at),
            subject(message),
            message.correlation_id,
            message.model.name,
            message.traceparent,
            event.data if self._settings.encoding == "protobuf" else encode_data(message, "json"),
        ]
        arguments += [encode_list_message(message, mirror.format, mirror.labels) for mirror in self._lists]
        return arguments

    async def find(self, event_ids: Sequence[str], since_ms: int, until_ms: int) -> dict[str, str]:
        """See publishing.interfaces.Queue.find."""
        wanted = {event_id.encode() for event_id in event_ids}
        found: dict[str, str] = {}
        start, end = str(max(since_ms - _CLOCK_SKEW_MS, 0)), str(until_ms + _CLOCK_SKEW_MS)
        while True:
            page = await self._connection.execute("XRANGE", self._keys.events, start, end, "COUNT", _PAGE)
            for entry_id, fields in page:
                event_id = dict(zip(fields[::2], fields[1::2], strict=True)).get(b"ce_id", b"")
                if event_id in wanted:
                    found.setdefault(event_id.decode(), entry_id.decode())
            if len(page) < _PAGE:
                return found
            start = f"({page[-1][0].decode()}"

    async def dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        """See publishing.interfaces.Queue.dead_letter."""
        names = [self._keys.dead_letters]
        arguments: list[Any] = [self._window]
        for letter in letters:
            fields = [part for pair in self._dead_letter_fields(letter).items() for part in pair]
            names.append(self._keys.seen_dead(letter.event_id))
            arguments += (str(len(fields)), *fields)
        await self._connection.script(self._dead_letter, names, arguments)

    def _dead_letter_fields(self, letter: DeadLetter) -> dict[str, bytes]:
        # What is left of a damaged event, or of one that was cut.
        fields = {"ce_id": letter.event_id.encode(errors="replace"), "data": letter.data}
        with suppress(DecodeError, UnencodableEvent):
            if letter.data:
                fields = encode(ModelReadyToDeploy.FromString(letter.data), self._settings.encoding)
        return fields | {
            "dl_reason": letter.reason.encode(),
            "dl_detail": letter.detail.encode(),
            "dl_attempts": str(letter.attempts).encode(),
            "dl_first_at": str(letter.first_ms).encode(),
            "dl_last_at": str(letter.last_ms).encode(),
            "dl_origin": b"sidecar",
            "dl_entry_id": b"",
        }

    async def ping(self) -> None:
        """See publishing.interfaces.Queue.ping."""
        await self.append([])

    async def try_write(self) -> None:
        """See publishing.interfaces.Queue.try_write: to a key that is never there, which NOMKSTREAM does not make."""
        await self._connection.execute("XADD", self._keys.seen(""), "NOMKSTREAM", "*", "", "")
