"""A long outage is over: the spool empties although the load goes on."""

import threading
import time
from collections.abc import Callable

import pytest

from modelready.v1 import publisher_service_pb2 as pb
from tests.chaos.check import depth, figures, read_stream, verify, wait_drained
from tests.chaos.frames import Frames
from tests.chaos.load import Load, new_event, publish, sidecar_env
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import patience, until

pytestmark = pytest.mark.chaos
Record = Callable[[str, object], None]
SPOOLED = 10_000
DRAIN_SECONDS = 60


def test_the_spool_empties_under_steady_load(record_property: Record) -> None:
    with RedisServer() as server:
        server.kill()
        with SidecarProcess(sidecar_env(server.port)) as sidecar:
            with Load(sidecar.address, batch=250, pause=0) as load:
                until(lambda: depth(sidecar) >= SPOOLED, DRAIN_SECONDS, f"{SPOOLED} events are in the spool")
                load.batch = 20
                load.wait_acked(100)
                before = depth(sidecar)
                server.start()
                began, acked = time.monotonic(), load.acked
                wait_drained(sidecar, DRAIN_SECONDS)
                drained, meanwhile = time.monotonic() - began, load.acked - acked
                load.wait_acked(200)
                history = load.finish()
            wait_drained(sidecar)
            verify(server, history)
    assert len(history.acks) == len(history.attempted)
    assert history.outcomes()["OUTCOME_STORED"], "steady load leaves the spool"
    assert not history.late(), history.late()
    record_property("figures", f"{before} drained in {drained:.2f} s, {meanwhile} meanwhile; {figures(history)}")


def drain(size: int, callers: int) -> str:
    """Streams of frames of that size spool while Redis is away, and do not rest when it is back. Returns figures."""
    with RedisServer() as server:
        server.kill()
        with SidecarProcess(sidecar_env(server.port)) as sidecar:
            with Frames(sidecar.address, callers=callers, size=size) as load:
                most = min(10_000, 400 * size * callers)
                until(lambda: depth(sidecar) >= most, DRAIN_SECONDS, f"{most} events are in the spool")
                server.start()
                began, served = time.monotonic(), list[float]()
                primary = threading.Thread(target=lambda: served.append(served_after(sidecar, began)))
                primary.start()
                depths = [depth(sidecar)]
                while depths[-1]:
                    time.sleep(0.05)
                    depths.append(depth(sidecar))
                    assert time.monotonic() - began < patience(DRAIN_SECONDS), depths[::10]
                empty = time.monotonic() - began
                primary.join()
                stored = load.outcomes["OUTCOME_STORED"]
                until(lambda: load.outcomes["OUTCOME_STORED"] > stored, 10, "the load goes straight to Redis")
            wait_drained(sidecar)
        with server.client(socket_timeout=30) as client:
            places = [entry.event_id for entry in read_stream(client)]
    positions = {event_id: position for position, event_id in enumerate(places)}
    assert len(positions) == len(places), "doubled"
    for acked in load.acked:
        of_this_stream = [positions[event_id] for event_id in acked]  # KeyError: one is lost
        assert of_this_stream == sorted(of_this_stream), "swapped"
    assert served, "PRIMARY was never served"
    return (
        f"frames of {size} by {callers}: {depths[0]} spooled, at most {max(depths)}, empty after {empty:.1f} s,"
        f" PRIMARY served after {served[0]:.1f} s, {sum(map(len, load.acked))} acknowledged"
    )


def served_after(sidecar: SidecarProcess, began: float) -> float:
    """Seconds until a PRIMARY call is acknowledged."""

    def stored() -> bool:
        answer = publish(sidecar.address, new_event("primary", 1), pb.DURABILITY_PRIMARY, timeout=5)
        return isinstance(answer, pb.Receipt)

    until(stored, DRAIN_SECONDS, "PRIMARY is served")
    return time.monotonic() - began


@pytest.mark.parametrize(("size", "callers"), [(1, 8), (500, 8), (1000, 2)])
def test_the_spool_empties_whatever_the_frames(size: int, callers: int, record_property: Record) -> None:
    record_property("figures", drain(size, callers))


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("callers", [1, 4, 16, 64])
@pytest.mark.parametrize("size", [1, 100, 500, 1000])
def test_the_spool_empties_for_every_size_and_number(size: int, callers: int, record_property: Record) -> None:
    record_property("figures", drain(size, callers))
