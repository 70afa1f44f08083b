"""An event that Redis can never take: it becomes a dead letter, alone, and holds up nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelready.entry import decode
from sidecar.publishing.interfaces import Attempts, Event
from tests.harness.redis_server import RedisServer, available_binaries
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until
from tests.integration.calls import (
    KEYS,
    STORED,
    as_spooled,
    calling,
    entries,
    model_event,
    put_into_spool,
    queued_ids,
    to_redis,
)

MEBIBYTE = 1 << 20
BINARIES = [pytest.param(binary, id=name) for name, binary in available_binaries().items()]


def complete(version: int, size: int = 0) -> Event:
    """As accepted; with an unknown field of `size` bytes, which no rule of the contract lets in today."""
    event = model_event(version)
    event.source, event.correlation_id = "//registry", f"correlation-{version}"
    event.occurred_at.GetCurrentTime()
    spooled = as_spooled(event)
    if not size:
        return spooled
    grown = spooled.data + b"\xfa\x7f" + varint(size) + b"x" * size
    return spooled._replace(data=grown)


def varint(number: int) -> bytes:
    low = [number >> shift & 0x7F for shift in range(0, number.bit_length(), 7)]
    return bytes(part | 0x80 for part in low[:-1]) + bytes(low[-1:])


@pytest.mark.parametrize("binary", BINARIES)
@pytest.mark.parametrize("size", [MEBIBYTE + 1, 8 * MEBIBYTE], ids=["just too large", "far too large"])
def test_an_event_larger_than_redis_takes_is_a_dead_letter_alone(binary: str, size: int) -> None:
    """Far too large, the server ends the connection before it has read all: that looks like an outage, and is none."""
    events = [complete(1), complete(2), complete(3, size), complete(4)]
    with RedisServer(binary=binary, config={"proto-max-bulk-len": "1mb"}) as server:
        sidecar = SidecarProcess(to_redis(server))
        put_into_spool(sidecar, events, Attempts())
        with sidecar, calling(sidecar) as caller:
            until(lambda: sidecar.metrics()["modelready_spool_events"] == 0, 10, "the spool is empty")
            assert caller.publish(model_event(5)).outcome == STORED
            assert sidecar.metrics()['modelready_dead_letters_total{reason="REDIS_REFUSED"}'] == 1
        assert queued_ids(server)[:3] == [events[0].id, events[1].id, events[3].id]
        (letter,) = entries(server, KEYS.dead_letters)
        assert letter[b"ce_id"].decode() == events[2].id
        assert letter[b"dl_reason"] == b"REDIS_REFUSED"
        assert b"bytes of data left out" in letter[b"dl_detail"]
        assert int(letter[b"dl_attempts"]) >= 1


def test_large_events_leave_the_spool_in_calls_of_a_bounded_size() -> None:
    """60 MiB in one call would not be through before the call's time is up, ever."""
    events = [complete(number, 200_000) for number in range(300)]
    with RedisServer() as server:
        sidecar = SidecarProcess(to_redis(server))
        put_into_spool(sidecar, events, Attempts())
        with sidecar:
            until(lambda: sidecar.metrics()["modelready_spool_events"] == 0, 20, "the spool is empty")
            peak = int((Path("/proc") / str(sidecar.pid) / "status").read_text().split("VmHWM:")[1].split()[0]) / 1024
            assert peak < 200, f"{peak:.0f} MiB"
        calls = server.info("commandstats")
        assert calls["cmdstat_evalsha"]["calls"] > 60 / 4
        assert queued_ids(server) == [event.id for event in events]


def test_data_that_is_no_event_is_a_dead_letter_with_what_is_left_of_it() -> None:
    whole = complete(1)
    with RedisServer() as server:
        sidecar = SidecarProcess(to_redis(server))
        put_into_spool(sidecar, [Event("broken", whole.message, b"\xff\xffno event"), whole], Attempts())
        with sidecar:
            until(lambda: sidecar.metrics()["modelready_spool_events"] == 0, 5, "the spool is empty")
        (letter,) = entries(server, KEYS.dead_letters)
        assert letter[b"ce_id"] == b"broken"
        assert letter[b"dl_reason"] == b"UNDECODABLE"
        assert letter[b"data"] == b"\xff\xffno event"
        assert [decode(fields) for fields in entries(server)] == [whole.message]
