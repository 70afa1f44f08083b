"""Holds what the writers were promised against what stands in the stream."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import redis

from modelready.keys import Keys
from modelready.v1 import publisher_service_pb2 as pb
from modelready.v1.event_pb2 import ModelReadyToDeploy
from tests.chaos.load import Ack, History
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until

QUEUE = Keys("model-ready")
_PAGE = 2000


class Entry(NamedTuple):
    """An entry of the stream: its id, and the id and the subject (model/version) of its event."""

    id: str
    event_id: str
    subject: str


@dataclass
class Findings:
    """What is wrong."""

    lost: list[str] = field(default_factory=list)
    """Acknowledged, and not in the stream."""
    doubled: list[str] = field(default_factory=list)
    """In the stream more than once, acknowledged or not."""
    swapped: list[str] = field(default_factory=list)
    """Before the event of its model that was acknowledged before it was sent."""
    misplaced: list[str] = field(default_factory=list)
    """The receipt names another entry, or none where it should, or one where it should not."""
    unknown: list[str] = field(default_factory=list)
    """In the stream, and never sent."""
    damaged: list[str] = field(default_factory=list)
    """In the stream as something else than was sent, or among the dead letters."""
    defects: list[str] = field(default_factory=list)
    """What the writers saw, and should never see."""

    @property
    def sound(self) -> bool:
        return not any(asdict(self).values())

    def __str__(self) -> str:
        found = {name: (len(ids), ids[:5]) for name, ids in asdict(self).items() if ids}
        return f"wrong: {found}" if found else "sound"


def examine(entries: Sequence[Entry], history: History) -> Findings:
    """Compare the whole stream with a whole history."""
    findings = Findings(defects=list(history.defects))
    positions: dict[str, int] = {}
    for position, entry in enumerate(entries):
        if entry.event_id in positions:
            findings.doubled.append(entry.event_id)
            continue
        positions[entry.event_id] = position
        if entry.event_id not in history.attempted:
            findings.unknown.append(entry.event_id)
        elif history.attempted[entry.event_id] != entry.subject:
            findings.damaged.append(entry.event_id)
    last: dict[str, int] = defaultdict(lambda: -1)
    for ack in history.acks:
        at = positions.get(ack.event_id)
        if at is None:
            findings.lost.append(ack.event_id)
        elif at < last[ack.model]:
            findings.swapped.append(ack.event_id)
        else:
            last[ack.model] = at
        if not _names_its_entry(ack, None if at is None else entries[at].id):
            findings.misplaced.append(ack.event_id)
    return findings


def _names_its_entry(ack: Ack, entry_id: str | None) -> bool:
    if ack.outcome == pb.OUTCOME_SPOOLED:
        return not ack.entry_id
    return bool(ack.entry_id) and entry_id in {None, ack.entry_id}  # None: it is lost, which is another matter


def read_stream(client: redis.Redis, key: str = QUEUE.events) -> list[Entry]:
    """All of it."""
    entries: list[Entry] = []
    start = "-"
    while True:
        page = client.execute_command("XRANGE", key, start, "+", "COUNT", _PAGE)  # type: ignore[no-untyped-call]
        for entry_id, fields in page:
            message = ModelReadyToDeploy.FromString(fields[b"data"])
            subject = fields[b"ce_subject"].decode()
            if (
                message.event_id != fields[b"ce_id"].decode()
                or f"{message.model.name}/{message.model.version}" != subject
            ):
                subject = f"{subject} with the data of {message.event_id}"
            entries.append(Entry(entry_id.decode(), fields[b"ce_id"].decode(), subject))
        if len(page) < _PAGE:
            return entries
        start = f"({entries[-1].id}"


def compare(server: RedisServer, history: History) -> Findings:
    """Examine what this server has; no dead letter may be there."""
    with server.client(socket_timeout=20) as client:
        findings = examine(read_stream(client), history)
        findings.damaged += [entry.event_id for entry in read_stream(client, QUEUE.dead_letters)]
    return findings


def verify(server: RedisServer, history: History) -> None:
    """AssertionError unless every promise was kept, and there were some."""
    assert history.acks, "nothing was ever acknowledged"
    findings = compare(server, history)
    assert findings.sound, f"{findings}; {figures(history)}"


def figures(history: History) -> str:
    """A line for a report."""
    return (
        f"{len(history.acks)} acknowledged {dict(history.outcomes())}, {len(history.calls)} calls"
        f" {dict(history.codes())} {dict(history.reasons())}, slowest {history.slowest():.0%} of its deadline"
    )


def depth(sidecar: SidecarProcess) -> int:
    """Events in its spool."""
    return int(sidecar.metrics()["modelready_spool_events"])


def wait_drained(sidecar: SidecarProcess, seconds: float = 20) -> None:
    """Until its spool is empty."""
    until(lambda: depth(sidecar) == 0, seconds, "the spool is empty")
