"""The stream of dead letters: read, put back into the queue, discarded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelready.entry import encode_list_message, first_try
from modelready.keys import REPLAY_CONSUMER, Keys
from modelready.redis.lists import MirrorList
from modelready.redis.script import Script
from sidecar.errors import InvalidRequest, Violation
from sidecar.operations.interfaces import Replayed, StoredDeadLetter
from sidecar.redisstream.connection import RedisConnection
from sidecar.redisstream.stream_info import read_groups
from sidecar.settings import QueueSettings

_MAX_ATTEMPTS = 2**32 - 1


class DeadLetterStream:
    """See operations.interfaces.DeadLetterStore."""

    def __init__(self, connection: RedisConnection, settings: QueueSettings) -> None:
        self._connection = connection
        self._settings = settings
        self._keys = Keys(settings.name)
        self._replay = Script("sidecar.redisstream", "lua/replay.lua")
        self._replay_to_list = Script("sidecar.redisstream", "lua/list_replay.lua")
        self._discard = Script("sidecar.redisstream", "lua/discard.lua")

    async def read(self, first: str, last: str, count: int) -> Sequence[StoredDeadLetter]:
        """See operations.interfaces.DeadLetterStore.read."""
        page = await self._connection.execute("XRANGE", self._keys.dead_letters, first, last, "COUNT", count)
        return [_letter(*entry) for entry in page]

    async def read_back(self, last: str, first: str, count: int) -> Sequence[StoredDeadLetter]:
        """See operations.interfaces.DeadLetterStore.read_back."""
        page = await self._connection.execute("XREVRANGE", self._keys.dead_letters, last, first, "COUNT", count)
        return [_letter(*entry) for entry in page]

    async def get(self, ids: Sequence[str]) -> Sequence[StoredDeadLetter | None]:
        """See operations.interfaces.DeadLetterStore.get."""
        pages = await self._connection.pipeline([("XRANGE", self._keys.dead_letters, one, one) for one in ids])
        return [_letter(*page[0]) if page else None for page in pages]

    async def last_id(self) -> str | None:
        """See operations.interfaces.DeadLetterStore.last_id."""
        page = await self._connection.execute("XREVRANGE", self._keys.dead_letters, "+", "-", "COUNT", 1)
        return page[0][0].decode() if page else None

    async def groups(self) -> set[bytes]:
        """See operations.interfaces.DeadLetterStore.groups."""
        return {group.name for group in await read_groups(self._connection, self._keys.events)}

    async def check_rights(self) -> None:
        """See operations.interfaces.DeadLetterStore.check_rights. Neither the entry nor the key can exist."""
        await self._connection.pipeline([
            ("XDEL", self._keys.dead_letters, "0-1"),
            ("DEL", self._keys.seen_dead(" ")),
        ])  # fmt: skip

    async def replay(self, letter: StoredDeadLetter, *, everyone: bool) -> Replayed:
        """See operations.interfaces.DeadLetterStore.replay."""
        keys = self._keys
        group = b"" if everyone else letter.group
        messages: dict[str, bytes] = {}
        if not group and (event := letter.event) is not None:
            try:
                messages = {
                    mirror.name: encode_list_message(event, mirror.format, mirror.labels)
                    for mirror in self._settings.lists
                }
            except ValueError:  # a number that JSON does not have; no event that was accepted holds one
                return Replayed.SKIPPED
        names = (
            keys.events,
            keys.dead_letters,
            keys.seen(letter.event_id),
            keys.seen_dead(letter.event_id),
            *messages,
        )
        own = str(int(letter.origin == "sidecar"))
        window = str(self._settings.dedup_seconds * 1000)
        arguments = (letter.id, group, own, window, REPLAY_CONSUMER, *messages.values())
        reply = await self._connection.script(self._replay, names, arguments)
        return Replayed(reply.decode())

    async def given_up(self, list_name: str, count: int) -> tuple[int, Sequence[bytes]]:
        """See operations.interfaces.DeadLetterStore.given_up."""
        key = self._mirror(list_name).dead_letters
        length, page = await self._connection.pipeline([("LLEN", key), ("LRANGE", key, -count, -1)])
        return length, page[::-1]  # the oldest stands last

    async def replay_to_list(self, list_name: str, message: bytes) -> Replayed:
        """See operations.interfaces.DeadLetterStore.replay_to_list."""
        mirror = self._mirror(list_name)
        keys = (mirror.dead_letters, mirror.name)
        reply = await self._connection.script(self._replay_to_list, keys, (message, first_try(message)))
        return Replayed(reply.decode())

    def _mirror(self, list_name: str) -> MirrorList:
        for mirror in self._settings.lists:
            if mirror.name == list_name:
                return mirror
        known = ", ".join(mirror.name for mirror in self._settings.lists) or "none"
        raise InvalidRequest([Violation("list.name", f"must be a mirror list of QUEUE_LIST ({known})")])

    async def discard(self, letters: Sequence[StoredDeadLetter]) -> int:
        """See operations.interfaces.DeadLetterStore.discard."""
        keys = [self._keys.dead_letters, *(self._keys.seen_dead(letter.event_id) for letter in letters)]
        return int(await self._connection.script(self._discard, keys, [letter.id for letter in letters]))


def _letter(raw_id: bytes, flat: Sequence[bytes]) -> StoredDeadLetter:
    """What stands there, also where another program wrote it."""
    fields = dict(zip(flat[::2], flat[1::2], strict=True))

    def text(name: bytes) -> str:
        return fields.get(name, b"").decode(errors="replace")

    letter = StoredDeadLetter(
        id=raw_id.decode(),
        event_id=text(b"ce_id"),
        reason=text(b"dl_reason"),
        detail=text(b"dl_detail"),
        origin=text(b"dl_origin"),
        group=fields.get(b"dl_origin", b"").partition(b"group:")[2],
        attempts=min(_number(fields, b"dl_attempts") or 0, _MAX_ATTEMPTS),
        first_ms=_number(fields, b"dl_first_at"),
        last_ms=_number(fields, b"dl_last_at"),
        entry_id=text(b"dl_entry_id"),
        subject=text(b"ce_subject"),
        correlation_id=text(b"correlationid"),
        content_type=text(b"content-type"),
        data=fields.get(b"data", b""),
    )
    if not letter.event_id and (event := letter.event) is not None:
        return letter._replace(event_id=event.event_id)
    return letter


def _number(fields: Mapping[bytes, Any], name: bytes) -> int | None:
    value = fields.get(name, b"")
    return int(value) if value.isdigit() and len(value) < 15 else None
