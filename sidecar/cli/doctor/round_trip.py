"""The check called probe: it appends an event as the sidecar does, beside the queue, and removes it again.

Script, encoding and WAIT are the sidecar's. Only the keys differ: they are below the prefix of the dedup keys, so
that the user's rights suffice and no consumer sees the event:

    {<q>}:seen:doctor-<uuid>:events      stands for the stream
    {<q>}:seen:doctor-<uuid>:list        for the mirror lists, where there are any
    {<q>}:seen:doctor-<uuid>:seen:<id>   is the event's dedup key

Without the right to DEL, each key is overwritten by a string that expires after a millisecond.
"""

from __future__ import annotations

import time
from dataclasses import replace
from uuid import uuid4

from modelready.ids import uuid7
from modelready.keys import Keys
from modelready.v1.event_pb2 import Artifact, ModelReadyToDeploy, ModelVersion
from sidecar.cli.doctor.report import Report
from sidecar.errors import QueueError, SetupFault
from sidecar.publishing.interfaces import Event
from sidecar.redisstream.connection import RedisConnection
from sidecar.redisstream.queue import RedisQueue
from sidecar.settings import Settings

_MINUTE_MS = 60_000


class _OwnKeys(Keys):
    """Keys in the queue's slot that no consumer reads."""

    name: str

    @property
    def events(self) -> str:
        return f"{self.tag}:seen:{self.name}:events"

    @property
    def mirror(self) -> str:
        return f"{self.tag}:seen:{self.name}:list"

    @property
    def seen_prefix(self) -> str:
        return f"{self.tag}:seen:{self.name}:seen:"


async def check_round_trip(report: Report, settings: Settings, connection: RedisConnection) -> None:
    """Append, read back, append again, remove. A failure becomes a finding."""
    keys = _OwnKeys(settings.queue.name)
    keys.name = f"doctor-{uuid4()}"
    event = _event()
    try:
        try:
            await _send(report, settings, connection, keys, event)
        finally:
            await _remove(connection, keys, event)
    except QueueError as error:
        report.add("probe-refused", f"the probe event in {keys.events} failed: {error.reason}: {error}")


async def _send(report: Report, settings: Settings, connection: RedisConnection, keys: _OwnKeys, event: Event) -> None:
    mirror = keys.mirror if settings.queue.lists else ""
    queue = RedisQueue(connection, replace(settings.queue, list_names=mirror, list_labels=""), keys)
    wanted = settings.publish.durability == "replicated" and not report.failed("replicas")
    replicas = settings.redis.min_replicas if wanted else 0
    began = time.monotonic()
    (first,), confirmed = await queue.append([event], replicas=replicas)
    took = (time.monotonic() - began) * 1000
    now = int(time.time() * 1000)
    found = await queue.find([event.id], now - _MINUTE_MS, now + _MINUTE_MS)
    (second,), _ = await queue.append([event])
    said = f"an event was appended to {keys.events} in {took:.1f} ms"
    if confirmed < replicas:
        report.add("probe-unconfirmed", f"{said}, but {confirmed} of {replicas} replicas confirmed it; it is removed")
    elif found != {event.id: first.entry_id} or second != (first.entry_id, True):
        raise SetupFault(f"it was {first}, then {second}, and the stream has {found}")
    else:
        waited = f", confirmed by {confirmed} replicas" if replicas else ""
        report.ok("probe", f"{said}{waited}, read back, known when it came again, and removed; no consumer reads there")


async def _remove(connection: RedisConnection, keys: _OwnKeys, event: Event) -> None:
    written = (keys.events, keys.mirror, keys.seen(event.id))
    try:
        await connection.execute("DEL", *written)
    except SetupFault:
        await connection.pipeline([("SET", key, "", "PX", "1") for key in written])


def _event() -> Event:
    message = ModelReadyToDeploy(
        event_id=uuid7(),
        source="//modelready-sidecar/doctor",
        model=ModelVersion(name="doctor", version="0"),
        artifact=Artifact(uri="probe:doctor"),
    )
    message.correlation_id = message.event_id
    message.occurred_at.GetCurrentTime()
    return Event(message.event_id, message, message.SerializeToString())
