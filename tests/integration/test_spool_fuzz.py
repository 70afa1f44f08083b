"""Every bit of a spooled event flipped: the sidecar lives, its neighbours are delivered, and what is left is kept."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from modelready.v1.event_pb2 import ModelReadyToDeploy
from sidecar.publishing.interfaces import Attempts, Event
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until
from tests.integration.calls import KEYS, STORED, as_spooled, calling, entries, model_event, put_into_spool, to_redis
from tests.integration.operators import operating
from tests.integration.spool_on_disk import everything, in_thread, opened

SETTINGS = {
    "protobuf": {},
    "json": {"QUEUE_ENCODING": "json"},
    "protobuf with a list": {"QUEUE_LIST": "deployments"},
    "json with a list": {"QUEUE_ENCODING": "json", "QUEUE_LIST": "deployments", "QUEUE_LIST_FORMAT": "payload"},
}


def complete(event_id: str) -> ModelReadyToDeploy:
    """As accepted, with a value in each kind of field."""
    event = model_event(event_id=event_id, source="//registry", correlation_id="c", labels={"team": "fraud"})
    event.occurred_at.FromMilliseconds(1_700_000_000_123)
    event.evaluation.baseline_value, event.evaluation.current_value = 0.5, 0.75
    event.metrics["auc"] = 0.9
    event.artifact.size_bytes = 1 << 40
    return event


def flipped(content: bytes, bit: int) -> bytes:
    at, mask = bit // 8, 1 << bit % 8
    return content[:at] + bytes([content[at] ^ mask]) + content[at + 1 :]


def drained(sidecar: SidecarProcess, server: RedisServer) -> tuple[list[bytes], list[dict[bytes, bytes]]]:
    """Start it and see that it lives, answers and empties its spool: the ids in the queue, and the dead letters."""
    sidecar.start("listening")
    with sidecar, calling(sidecar) as caller, operating(sidecar) as operator:
        assert operator.status().spool.depth >= 0
        until(lambda: sidecar.metrics()["modelready_spool_events"] == 0, 60, "the spool is empty")
        assert caller.publish().outcome == STORED
        letters = [dict(letter) for letter in entries(server, KEYS.dead_letters)]
        assert len(operator.list(1000)) == len(letters)
        assert sidecar.restart() == 0
        assert caller.publish().outcome == STORED
        assert "Traceback" not in sidecar.logs()
    return [fields[b"ce_id"] for fields in entries(server)][:-2], letters


@pytest.mark.parametrize("env", SETTINGS.values(), ids=SETTINGS)
def test_an_event_that_cannot_be_encoded_is_a_dead_letter_with_its_bytes(
    env: dict[str, str], server: RedisServer
) -> None:
    """Each bit of its data flipped before it was written, so that the checksum holds."""
    server.execute("FLUSHALL")
    message = complete("event")
    data = as_spooled(message).data
    events = [Event(f"bit-{bit}", message, flipped(data, bit)) for bit in range(len(data) * 8)]
    for number, (seconds, nanos) in enumerate([(1 << 62, 0), (-(1 << 62), 0), (0, -1), (0, 1 << 30)]):
        message.occurred_at.seconds, message.occurred_at.nanos = seconds, nanos
        events.append(as_spooled(message)._replace(id=f"time-{number}"))
    whole = [as_spooled(complete(f"whole-{number}")) for number in range(3)]
    sidecar = SidecarProcess(to_redis(server, **env))
    put_into_spool(sidecar, [whole[0], *events[:500], whole[1], *events[500:], whole[2]], Attempts())
    stored, letters = drained(sidecar, server)
    assert [event_id for event_id in stored if event_id.startswith(b"whole-")] == [b"whole-0", b"whole-1", b"whole-2"]
    assert len(stored) + len(letters) == len(events) + len(whole)
    assert {letter[b"dl_reason"] for letter in letters} <= {b"UNDECODABLE", b"UNENCODABLE"}
    known = {event.id.encode(): event.data for event in events}
    raw = [letter for letter in letters if b"content-type" not in letter]
    assert raw
    assert all(letter[b"data"] == known[letter[b"ce_id"]] for letter in raw)
    assert [letter[b"ce_id"] for letter in letters if letter[b"dl_reason"] == b"UNENCODABLE"][-4:] == [
        b"time-0", b"time-1", b"time-2", b"time-3",
    ]  # fmt: skip


def without_remnants(path: Path) -> bytes:
    """The file, holding no bytes of rows that moved to another page."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM")
    return path.read_bytes()


def cell_of(content: bytes, seq: int, data: bytes) -> range:
    """Where a row stands in the file, from its length to the last byte of its data."""
    at = content.index(data)
    for start in range(at - 30, at - 90, -1):
        length, body = varint(content, start)
        number, body = varint(content, body)
        if number == seq and body + length == at + len(data):
            return range(start, at + len(data))
    raise AssertionError(f"row {seq} is not found")


def varint(content: bytes, at: int) -> tuple[int, int]:
    """SQLite's: the number, and where it ends."""
    number = 0
    while True:
        number, at = number << 7 | content[at] & 0x7F, at + 1
        if not content[at - 1] & 0x80:
            return number, at


@pytest.mark.parametrize("env", SETTINGS.values(), ids=SETTINGS)
def test_a_flipped_bit_of_a_row_costs_no_neighbour_and_no_start(env: dict[str, str], server: RedisServer) -> None:
    """Each bit of a row flipped in the file, a row for each bit; between them rows that are whole."""
    server.execute("FLUSHALL")
    sidecar = SidecarProcess(to_redis(server, **env))
    bits = 8 * (len(as_spooled(complete("damaged-0000")).data) + 80)
    damaged = [as_spooled(complete(f"damaged-{bit:04d}")) for bit in range(bits)]
    whole = [as_spooled(complete(f"whole-{number:06d}")) for number in range(bits)]
    put_into_spool(sidecar, [event for pair in zip(damaged, whole, strict=True) for event in pair], Attempts())
    path = sidecar.spool_dir / "spool.db"
    original = without_remnants(path)
    content = bytearray(original)
    for bit, event in enumerate(damaged):
        cell = cell_of(original, 2 * bit + 1, event.data)
        if bit < 8 * len(cell):
            content[cell[bit // 8]] ^= 1 << bit % 8
    path.write_bytes(content)
    stored, letters = drained(sidecar, server)
    assert len(set(stored)) == len(stored)
    # So many on one page are more than the disk's own checksums let through: at most a few take a neighbour with them.
    assert len({event.id.encode() for event in whole} - set(stored)) <= 5
    # TOO_OLD: its time's upper half is outside the checksum.
    assert {letter[b"dl_reason"] for letter in letters} <= {b"SPOOL_CORRUPT", b"TOO_OLD"}
    assert len(letters) > 1000


async def test_a_damaged_row_costs_no_event_but_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each bit of a row's length, number and header, one at a time: also where it reads as another row's number."""
    caplog.set_level("CRITICAL")
    events = [as_spooled(complete(f"event-{number:06d}")) for number in range(40)]
    async with opened(tmp_path / "spool") as spool:
        await spool.put(events, Attempts())
    path = tmp_path / "spool" / "spool.db"
    original = without_remnants(path)
    cell = cell_of(original, 20, events[19].data)
    for bit in range(16 * 8):
        content = bytearray(original)
        content[cell[bit // 8]] ^= 1 << bit % 8
        path.write_bytes(content)
        async with opened(tmp_path / "spool") as spool:
            kept = {row.event_id for row in await everything(spool) if not row.dead}
            await spool._in_thread(spool._drop)
        assert {event.id for event in events} - kept <= {events[19].id}, bit
        (tmp_path / "spool" / "spool.db-wal").unlink(missing_ok=True)


@pytest.mark.parametrize("column", ["spooled_ms", "attempts", "first_ms", "last_ms", "data"])
@pytest.mark.parametrize("value", ["x'ff'", "'text'", "1.5", "-7"])
async def test_a_row_with_damaged_column_types_is_corrupt(tmp_path: Path, column: str, value: str) -> None:
    async with opened(tmp_path) as spool:
        await spool.put([as_spooled(complete("damaged")), as_spooled(complete("whole"))], Attempts(1, 5, 6))
        await in_thread(spool, lambda c: c.execute(f"UPDATE events SET {column} = {value} WHERE seq = 1"))
        damaged, whole = await everything(spool)
        assert damaged.dead is not None
        attempts = Attempts(1, 5, 6) if column == "data" else Attempts()
        assert (damaged.event_id, damaged.dead[0], damaged.attempts) == ("damaged", "SPOOL_CORRUPT", attempts)
        assert (whole.event_id, whole.dead, whole.attempts) == ("whole", None, Attempts(1, 5, 6))
        await spool.advance([damaged.seq, whole.seq], 0)
        assert (spool.depth, spool.bytes) == (0, 0)
