"""The way to Redis swallows replies, is cut within a command, hangs: one entry an event, and an answer in time."""

import random
import time
from collections.abc import Callable

import pytest

from modelready.v1 import publisher_service_pb2 as pb
from tests.chaos.check import figures, read_stream, verify, wait_drained
from tests.chaos.load import History, Load, new_event, publish, sidecar_env
from tests.harness.redis_server import RedisServer
from tests.harness.relay import Relay
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import patience

pytestmark = pytest.mark.chaos
Record = Callable[[str, object], None]
Fault = Callable[[RedisServer, Relay, random.Random], None]
BOTH = pytest.mark.parametrize("durability", [pb.DURABILITY_SPOOLED, pb.DURABILITY_PRIMARY], ids=["spooled", "primary"])


def swallow(server: RedisServer, relay: Relay, rng: random.Random) -> None:
    relay.swallow_replies()
    time.sleep(rng.uniform(0.02, 1.2))
    relay.pass_replies()


def cut(server: RedisServer, relay: Relay, rng: random.Random) -> None:
    for _ in range(6):
        relay.cut_after(rng.randint(1, 6000))
        time.sleep(rng.uniform(0.02, 0.2))


def freeze(server: RedisServer, relay: Relay, rng: random.Random) -> None:
    """For longer than any timeout: what was sent meanwhile is all done afterwards."""
    server.freeze()
    time.sleep(rng.uniform(2.2, 2.8))
    server.thaw()


def stall(server: RedisServer, relay: Relay, rng: random.Random) -> None:
    relay.stall()
    time.sleep(rng.uniform(0.3, 1.5))
    relay.resume()


def run_with(faults: list[Fault], durability: pb.Durability, seed: int) -> History:
    rng = random.Random(seed)
    with RedisServer() as server, Relay(server.port) as relay:
        env = sidecar_env(relay.port, REDIS_TIMEOUT_SECONDS="0.5")
        with SidecarProcess(env) as sidecar:
            with Load(sidecar.address, durability=durability, timeout=2) as load:
                for one in faults:
                    load.wait_acked(30)
                    one(server, relay, rng)
                    load.wait_all_acked_since(time.monotonic())
                history = load.finish()
            wait_drained(sidecar)
        verify(server, history)
    assert len(history.acks) == len(history.attempted)
    assert not history.late(), history.late()
    return history


@BOTH
def test_replies_are_swallowed(durability: pb.Durability, record_property: Record) -> None:
    history = run_with([swallow] * 3, durability, 1)
    record_property("figures", figures(history))


@BOTH
def test_connections_are_cut_within_a_command(durability: pb.Durability, record_property: Record) -> None:
    history = run_with([cut] * 3, durability, 2)
    record_property("figures", figures(history))


@BOTH
def test_redis_hangs(durability: pb.Durability, record_property: Record) -> None:
    history = run_with([stall, freeze], durability, 3)
    if durability == pb.DURABILITY_PRIMARY:
        assert history.reasons()["OUTCOME_UNKNOWN"], "a caller learns that its event may be there"
    record_property("figures", figures(history))


def hurry(faults: list[Fault], seed: int) -> History:
    """A link that is slower than some deadlines: each of those events is on the disk and on its way at once."""
    rng = random.Random(seed)
    with RedisServer() as server, Relay(server.port) as relay:
        relay.delay(0.06)
        with SidecarProcess(sidecar_env(relay.port)) as sidecar:
            hasty = Load(sidecar.address, timeout=0.14, name="hasty")
            patient = [
                Load(sidecar.address, durability=durability, writers=2, timeout=5, name=pb.Durability.Name(durability))
                for durability in (pb.DURABILITY_SPOOLED, pb.DURABILITY_PRIMARY)
            ]
            with hasty, patient[0], patient[1]:
                for one in [None, *faults]:
                    hasty.wait_acked(100)
                    if one is not None:
                        one(server, relay, rng)
                    patient[1].wait_all_acked_since(time.monotonic())
                histories = [load.finish() for load in (hasty, *patient)]
            wait_drained(sidecar)
        history = histories[0]
        for other in histories[1:]:
            history.attempted |= other.attempted
            history.acks += other.acks
            history.calls += other.calls
            history.defects += other.defects
        verify(server, history)
    return history


def test_deadlines_are_shorter_than_the_link_and_then_the_network_fails(record_property: Record) -> None:
    history = hurry([cut, swallow, freeze], 4)
    assert history.outcomes()["OUTCOME_SPOOLED"] > 100
    record_property("figures", figures(history))


@pytest.mark.soak
def test_deadlines_are_shorter_than_the_link_for_minutes(record_property: Record) -> None:
    record_property("figures", figures(hurry([cut, swallow, stall, freeze] * 5, 5)))


def test_idle_connections_are_reset(record_property: Record) -> None:
    """All at once, as a load balancer or a host that comes back does: no task may end, nobody notices."""
    events = [new_event("idle", number) for number in range(1, 21)]
    with RedisServer() as server, Relay(server.port) as relay, SidecarProcess(sidecar_env(relay.port)) as sidecar:
        slowest = 0.0
        for event in events:
            relay.cut()
            time.sleep(0.05)
            began = time.monotonic()
            receipt = publish(sidecar.address, event, pb.DURABILITY_PRIMARY)
            slowest = max(slowest, time.monotonic() - began)
            assert isinstance(receipt, pb.Receipt), receipt
        with server.client() as client:
            assert [entry.event_id for entry in read_stream(client)] == [event.event_id for event in events]
        assert sidecar.running
    assert slowest < patience(2), slowest
    record_property("figures", f"20 times, answered in {slowest:.2f} s at most")


@pytest.mark.soak
@pytest.mark.timeout(900)
@BOTH
def test_all_of_it_for_minutes(durability: pb.Durability, record_property: Record) -> None:
    seed = time.time_ns() % 1_000_000
    record_property("seed", seed)
    history = run_with(random.Random(seed).choices([swallow, cut, freeze, stall], k=80), durability, seed)
    record_property("figures", figures(history))
