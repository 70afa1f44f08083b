"""The spool when its room, its disk or its file gives out: nothing that was acknowledged is lost, and callers know."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from modelready.entry import decode
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until
from tests.integration.calls import (
    DEFAULT,
    DUPLICATE,
    KEYS,
    PRIMARY,
    STORED,
    TO_DISK,
    Caller,
    Code,
    Refusal,
    calling,
    entries,
    health,
    model_event,
    queued_ids,
    read_status,
    to_redis,
)

LARGE = "x" * 30_000


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """Not started: Redis is away."""
    server = RedisServer()
    yield server
    server.close()


@contextmanager
def without_redis(env: dict[str, str]) -> Iterator[tuple[SidecarProcess, Caller]]:
    sidecar = SidecarProcess(env)
    sidecar.start("listening")
    with sidecar, calling(sidecar) as caller:
        yield sidecar, caller


def fill(caller: Caller, most: int = 2000) -> tuple[list[str], Refusal]:
    """Publish large events until one is refused: the ids of those acknowledged, and the refusal."""
    acked: list[str] = []
    for number in range(most):
        event = model_event(number)
        event.runtime.signature = LARGE
        answer = caller.batch([event])[0]
        if answer.HasField("error"):
            return acked, read_status(answer.error)
        assert answer.receipt.outcome == TO_DISK
        acked.append(event.event_id)
    raise AssertionError(f"{most} events were taken")


def test_a_full_spool_refuses_and_keeps_what_it_acknowledged(server: RedisServer) -> None:
    with without_redis(to_redis(server, SPOOL_MAX_BYTES=str(400_000))) as (sidecar, caller):
        acked, refusal = fill(caller)
        assert len(acked) >= 10
        assert (refusal.code, refusal.reason, refusal.retry) == (Code.RESOURCE_EXHAUSTED, "SPOOL_FULL", True)
        until(lambda: health(sidecar) == (True, False, False), 3, "the health names say so")
        assert "the spool is full" in sidecar.get("/readyz")[1]
        assert sidecar.metrics()["modelready_spool_bytes"] <= 400_000
        small = caller.publish(timeout=3).event_id  # there is room for a small one
        server.start()
        until(lambda: queued_ids(server) == [*acked, small], 10, "all that was acknowledged is there, in order")
        until(lambda: health(sidecar) == (True, True, True), 3, "it serves")
        assert caller.publish(durability=PRIMARY).outcome == STORED


def test_a_full_disk_refuses_and_keeps_what_it_acknowledged(server: RedisServer, tmp_path: Path) -> None:
    """A disk of 24 MiB; what is acknowledged from it is delivered even though it stays full."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], check=False)
    if os.geteuid() or mounted.returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        with without_redis(to_redis(server, SPOOL_DIR=str(disk / "spool"))) as (sidecar, caller):
            acked, refusal = fill(caller)
            assert len(acked) > 50
            assert (refusal.code, refusal.reason, refusal.retry) == (Code.UNAVAILABLE, "SPOOL_UNAVAILABLE", True)
            assert health(sidecar)[0]
            (disk / "filler").write_bytes(bytes(max(os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize - 4096, 0)))
            server.start()
            until(lambda: set(acked) <= set(queued_ids(server)), 15, "all that was acknowledged is there")
            assert [event_id for event_id in queued_ids(server) if event_id in acked] == acked
            assert len(queued_ids(server)) == len(set(queued_ids(server)))
            until(lambda: sidecar.metrics()["modelready_spool_events"] == 0, 5, "the spool is empty")
            assert caller.publish(durability=DEFAULT).outcome == STORED
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_limit_on_files_is_like_a_full_disk_and_passes(server: RedisServer) -> None:
    """RLIMIT_FSIZE: what a write then meets is EFBIG."""
    with without_redis(to_redis(server)) as (sidecar, caller):
        first = caller.publish().event_id
        resource.prlimit(sidecar.pid, resource.RLIMIT_FSIZE, (65536, resource.RLIM_INFINITY))
        acked, refusal = fill(caller)
        assert (refusal.code, refusal.reason, refusal.retry) == (Code.UNAVAILABLE, "SPOOL_UNAVAILABLE", True)
        resource.prlimit(sidecar.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        last = until(lambda: caller.publish().event_id, 5, "it takes events again")
        server.start()
        until(lambda: sidecar.metrics()["modelready_spool_events"] == 0, 10, "the spool is empty")
        stored = queued_ids(server)
        assert len(stored) == len(set(stored))
        assert [event_id for event_id in stored if event_id in {first, last, *acked}] == [first, *acked, last]


@pytest.mark.parametrize("damage", ["header", "middle", "empty", "no database"])
def test_a_damaged_file_is_set_aside_and_said_aloud(damage: str, server: RedisServer) -> None:
    with without_redis(to_redis(server)) as (sidecar, caller):
        acked = [caller.publish(model_event(number)).event_id for number in range(50)]
        assert sidecar.terminate() == 0
        file = sidecar.spool_dir / "spool.db"
        content = bytearray(file.read_bytes())
        match damage:
            case "header":
                content[0:100] = os.urandom(100)
            case "middle":
                content[4096 * 4 : 4096 * 4 + 2048] = os.urandom(2048)
            case "empty":
                content.clear()
                (sidecar.spool_dir / "spool.db-wal").write_bytes(b"left behind")
            case "no database":
                content = bytearray(b"somebody's notes\n" * 100)
        file.write_bytes(content)
        sidecar.start("listening")
        assert sidecar.metrics()["modelready_spool_damaged_files"] == 1
        aside = list(sidecar.spool_dir.glob("spool.db.damaged-*"))
        assert [path.read_bytes() for path in aside if not path.name.endswith("-wal")] == [bytes(content)]
        assert '"level": "error"' in sidecar.logs()
        assert "is damaged" in sidecar.logs()
        assert caller.publish().outcome == TO_DISK
        server.start()
        until(lambda: sidecar.metrics()["modelready_spool_events"] == 0, 10, "the spool is empty")
        assert caller.publish(durability=PRIMARY).outcome == STORED
        stored, letters = queued_ids(server), entries(server, KEYS.dead_letters)
        assert len(stored) == len(set(stored))
        if damage in {"header", "middle"}:
            found = set(stored) | {letter[b"ce_id"].decode() for letter in letters}
            assert len(found & set(acked)) >= 20  # what can still be read is
        assert {letter[b"dl_reason"] for letter in letters} <= {b"SPOOL_CORRUPT"}


def test_an_event_that_grew_too_old_is_a_dead_letter_once(server: RedisServer) -> None:
    env = to_redis(server, SPOOL_MAX_AGE_SECONDS="1")
    with without_redis(env) as (sidecar, caller):
        event = model_event(labels={"team": "fraud"})
        assert caller.publish(event).outcome == TO_DISK
        until(lambda: sidecar.metrics()["modelready_spool_oldest_age_seconds"] > 1.2, 5, "it grows old")
        server.start()
        until(lambda: sidecar.metrics()["modelready_spool_events"] == 0, 10, "the spool is empty")
        assert 'modelready_dead_letters_total{reason="TOO_OLD"}' in sidecar.metrics()
        assert "dead letter" in sidecar.logs()
        assert sidecar.restart() == 0
        assert caller.status().dead_letters == 1
    assert queued_ids(server) == []
    (letter,) = entries(server, KEYS.dead_letters)
    assert decode(letter).labels == event.labels
    assert letter[b"ce_id"].decode() == event.event_id
    fields = {name.decode(): value.decode() for name, value in letter.items() if name.startswith(b"dl_")}
    assert fields.keys() == {
        "dl_reason", "dl_detail", "dl_attempts", "dl_first_at", "dl_last_at", "dl_origin", "dl_entry_id",
    }  # fmt: skip
    assert (fields["dl_reason"], fields["dl_origin"], fields["dl_entry_id"]) == ("TOO_OLD", "sidecar", "")
    assert 0 < int(fields["dl_first_at"]) <= int(fields["dl_last_at"])
    assert int(fields["dl_attempts"]) >= 0
    assert fields["dl_detail"]


def test_an_event_that_is_in_the_queue_already_is_no_dead_letter_however_old(server: RedisServer) -> None:
    """It was appended, the reply was lost, and the dedup window has gone: the stream itself is asked."""
    with without_redis(to_redis(server, SPOOL_MAX_AGE_SECONDS="1")) as (sidecar, caller):
        event = model_event()
        server.start()
        until(lambda: health(sidecar) == (True, True, True), 5, "it serves")
        assert caller.publish(event).outcome == STORED
        server.freeze()
        assert caller.publish(event, timeout=2).outcome == TO_DISK  # sent, and not answered in time
        until(lambda: sidecar.metrics()["modelready_spool_oldest_age_seconds"] > 1.2, 5, "it grows old")
        server.thaw()
        until(lambda: sidecar.metrics()["modelready_spool_events"] == 0, 10, "the spool is empty")
        assert caller.publish(event).outcome == DUPLICATE
    assert queued_ids(server) == [event.event_id]
    assert entries(server, KEYS.dead_letters) == []
