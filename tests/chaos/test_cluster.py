"""A real cluster: the queue's slot moves to another node, and its owner dies."""

import time
from collections.abc import Callable, Iterator

import pytest

from modelready.v1 import publisher_service_pb2 as pb
from tests.chaos.check import QUEUE, compare, figures, verify, wait_drained
from tests.chaos.load import Load, sidecar_env
from tests.harness.cluster import Cluster, slot_of
from tests.harness.sidecar_process import SidecarProcess

pytestmark = pytest.mark.chaos
Record = Callable[[str, object], None]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(replicas=1) as running:
        yield running


def env(cluster: Cluster) -> dict[str, str]:
    other = cluster.another_master(cluster.owner(QUEUE.events))  # which always sends the sidecar on
    return sidecar_env(other.port, REDIS_CLUSTER="true")


@pytest.mark.parametrize("durability", [pb.DURABILITY_UNSPECIFIED, pb.DURABILITY_PRIMARY], ids=["default", "primary"])
def test_the_slot_moves(durability: pb.Durability, record_property: Record) -> None:
    with Cluster() as cluster, SidecarProcess(env(cluster)) as sidecar:
        slot = slot_of(QUEUE.events)
        with Load(sidecar.address, durability=durability) as load:
            load.wait_acked(200)
            for halfway in (False, True, True):
                target = cluster.another_master(cluster.owner(slot))
                with cluster.moving_slot(slot, target) as source:
                    if halfway:  # keys on both sides
                        some = source.execute("CLUSTER", "GETKEYSINSLOT", slot, 50)
                        cluster.move_keys(source, target, *some)
                        time.sleep(0.5)
                        cluster.move_keys(source, target, QUEUE.events)
                        time.sleep(0.5)
                back = load.wait_all_acked_since(time.monotonic())
                load.wait_acked(100)
            history = load.finish()
        wait_drained(sidecar)
        verify(cluster.owner(slot), history)
    assert len(history.acks) == len(history.attempted)
    assert not history.late(), history.late()
    record_property("figures", f"back in {back:.2f} s; {figures(history)}")


@pytest.mark.parametrize("durability", [pb.DURABILITY_SPOOLED, pb.DURABILITY_REPLICATED], ids=["spooled", "replicated"])
def test_the_owner_dies(cluster: Cluster, durability: pb.Durability, record_property: Record) -> None:
    with SidecarProcess(env(cluster)) as sidecar:
        with Load(sidecar.address, durability=durability) as load:
            load.wait_acked(300)
            dead = cluster.owner(QUEUE.events)
            heir = cluster.fail_owner(QUEUE.events)
            if durability == pb.DURABILITY_REPLICATED:
                dead.start()  # as the heir's replica
            back = load.wait_all_acked_since(time.monotonic())
            load.wait_acked(100)
            history = load.finish()
        wait_drained(sidecar)
        findings = compare(heir, history)
    if durability == pb.DURABILITY_SPOOLED:
        findings.lost.clear()  # what was not yet replicated
    assert findings.sound, findings
    assert len(history.acks) == len(history.attempted)
    assert not history.late(), history.late()
    record_property("figures", f"back in {back:.2f} s; {figures(history)}")
