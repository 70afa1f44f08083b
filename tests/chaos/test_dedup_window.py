"""An event whose outcome is not known is in the stream, and waits in the spool for longer than its id is remembered."""

import sqlite3
import time
from pathlib import Path

import pytest

from modelready.v1 import publisher_service_pb2 as pb
from tests.chaos.check import QUEUE, read_stream, wait_drained
from tests.chaos.load import new_event, publish, sidecar_env
from tests.harness.redis_server import RedisServer
from tests.harness.relay import Relay
from tests.harness.sidecar_process import SidecarProcess

pytestmark = pytest.mark.chaos
WINDOW = 3600
AGE_MS = 2 * WINDOW * 1000
CROWD = 2500


def age_stream(server: RedisServer) -> None:
    """Let all entries be as old as if they had been written two windows ago, among many others; forget all ids."""
    with server.client() as client:
        entries = client.execute_command("XRANGE", QUEUE.events, "-", "+")
        client.delete(QUEUE.events)
        first = int(entries[0][0].partition(b"-")[0]) - AGE_MS
        for number in range(CROWD):
            client.xadd(QUEUE.events, {"ce_id": f"before-{number}"}, id=f"{first - 1000}-{number}")
        for entry_id, fields in entries:
            moment, _, sequence = entry_id.decode().partition("-")
            client.xadd(QUEUE.events, fields, id=f"{int(moment) - AGE_MS}-{sequence}")
        for key in client.keys(f"{QUEUE.seen_prefix}*"):
            client.delete(key)


def age_spool(directory: Path) -> int:
    with sqlite3.connect(directory / "spool.db") as spool:
        changed = spool.execute(
            "UPDATE events SET first_ms = first_ms - ?1, last_ms = last_ms - ?1 WHERE attempts > 0", (AGE_MS,)
        ).rowcount
    spool.close()
    return changed


@pytest.mark.parametrize("window_over", [True, False], ids=["id-forgotten", "id-known"])
def test_it_is_found_and_not_appended_again(tmp_path: Path, window_over: bool) -> None:
    there, missing = new_event("aged", 1), new_event("aged", 2)
    with RedisServer() as server, Relay(server.port) as relay:
        env = sidecar_env(
            relay.port, SPOOL_DIR=str(tmp_path), REDIS_TIMEOUT_SECONDS="0.5", QUEUE_DEDUP_SECONDS=str(WINDOW)
        )
        with SidecarProcess(env) as sidecar:
            relay.swallow_replies()
            receipt = publish(sidecar.address, there)
            assert isinstance(receipt, pb.Receipt)
            assert receipt.outcome == pb.OUTCOME_SPOOLED
            with server.client() as client:
                assert [entry.event_id for entry in read_stream(client)] == [there.event_id]
            relay.stall()  # nothing reaches Redis any more
            relay.cut()
            last = publish(sidecar.address, missing)
            assert isinstance(last, pb.Receipt)
            time.sleep(1.2)  # attempted, perhaps
            sidecar.kill()
            relay.cut()
            relay.pass_replies()
            relay.resume()
            if window_over:
                age_stream(server)
                assert age_spool(tmp_path) >= 1
            sidecar.start()
            wait_drained(sidecar)
            with server.client() as client:
                stream = client.execute_command("XRANGE", QUEUE.events, "-", "+")
                dead = client.xlen(QUEUE.dead_letters)
        found = [fields[b"ce_id"].decode() for _, fields in stream if not fields[b"ce_id"].startswith(b"before-")]
        assert found == [there.event_id, missing.event_id]
        assert dead == 0
