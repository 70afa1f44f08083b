"""The primary dies with what it had not yet replicated, and the replica takes over."""

import time
from collections.abc import Callable, Iterator

import pytest

from modelready.v1 import publisher_service_pb2 as pb
from tests.chaos.check import compare, figures, read_stream, verify, wait_drained
from tests.chaos.load import Load, new_event, publish, sidecar_env
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.topology import Replicated
from tests.harness.waiting import until

pytestmark = pytest.mark.chaos
Record = Callable[[str, object], None]


@pytest.fixture
def pair() -> Iterator[Replicated]:
    with Replicated() as running:
        yield running


@pytest.mark.parametrize("stalled", [False, True], ids=["link-delayed", "link-stalled"])
def test_what_replicas_confirmed_survives(pair: Replicated, stalled: bool, record_property: Record) -> None:
    pair.link.delay(0.005)
    with SidecarProcess(sidecar_env(pair.port, REDIS_TIMEOUT_SECONDS="0.5")) as sidecar:
        with Load(sidecar.address, durability=pb.DURABILITY_REPLICATED) as load:
            load.wait_acked(500)
            if stalled:  # for longer than WAIT waits
                pair.link.stall()
                time.sleep(1.2)
            pair.promote()
            pair.rejoin()
            back = load.wait_all_acked_since(time.monotonic())
            load.wait_acked(200)
            history = load.finish()
        wait_drained(sidecar)
        verify(pair.primary, history)
    assert min(ack.replicas for ack in history.acks) == 1
    assert len(history.acks) == len(history.attempted)
    record_property("figures", f"back in {back:.2f} s; {figures(history)}")


def test_without_confirmation_acknowledged_events_are_lost(pair: Replicated, record_property: Record) -> None:
    """The control: the experiment above can fail."""
    with SidecarProcess(sidecar_env(pair.port)) as sidecar:
        with Load(sidecar.address, durability=pb.DURABILITY_PRIMARY) as load:
            load.wait_acked(100)
            pair.link.stall()
            load.wait_acked(100)
            pair.promote()
            load.wait_acked(100)
            history = load.finish()
        findings = compare(pair.primary, history)
    assert len(findings.lost) >= 50
    findings.lost.clear()
    assert findings.sound, findings
    record_property("figures", f"{figures(history)}")


@pytest.mark.parametrize("durability", [pb.DURABILITY_UNSPECIFIED, pb.DURABILITY_PRIMARY], ids=["default", "primary"])
@pytest.mark.parametrize("planned", [False, True], ids=["killed", "demoted"])
def test_it_is_back_when_the_endpoint_is(
    pair: Replicated, durability: pb.Durability, planned: bool, record_property: Record
) -> None:
    """And it leaves the connections to a demoted primary, which is up and READONLY."""
    with SidecarProcess(sidecar_env(pair.port)) as sidecar:
        with Load(sidecar.address, durability=durability) as load:
            load.wait_acked(100)
            if planned:
                pair.demote()
            else:
                pair.promote(flip=False)
            time.sleep(1.5)
            pair.flip()
            flipped = time.monotonic()
            back = load.wait_all_acked_since(flipped)
            wait_drained(sidecar, 5)
            drained = time.monotonic() - flipped
            history = load.finish()
        wait_drained(sidecar)
        findings = compare(pair.primary, history)
    findings.lost.clear()  # durability PRIMARY and SPOOLED do not survive a failover
    assert findings.sound, findings
    assert back < 1.5, back
    assert drained < 3, drained
    record_property("figures", f"back in {back:.2f} s, drained in {drained:.2f} s; {figures(history)}")


def test_a_retry_is_not_confirmed_by_a_replica_that_lacks_the_event(pair: Replicated) -> None:
    """WAIT counts from its connection's last write: the retry, on another one, must write although all is there."""
    with SidecarProcess(sidecar_env(pair.port, REDIS_TIMEOUT_SECONDS="0.5")) as sidecar:
        before = publish(sidecar.address, new_event("trap", 1), pb.DURABILITY_REPLICATED)
        assert isinstance(before, pb.Receipt)
        event = new_event("trap", 2)
        pair.link.stall()
        pair.endpoint.swallow_replies()
        assert publish(sidecar.address, event, pb.DURABILITY_REPLICATED, 1) == "OUTCOME_UNKNOWN"
        pair.endpoint.pass_replies()
        with pair.primary.client() as client:
            assert [entry.event_id for entry in read_stream(client)] == [before.event_id, event.event_id]
        with pair.replica.client() as client:
            assert [entry.event_id for entry in read_stream(client)] == [before.event_id]
        answers: list[object] = []
        while answers.count("OUTCOME_UNKNOWN") < 5 and len(answers) < 20:
            pair.endpoint.cut()  # so that the retry is on another connection, or where that is slow on none
            answers.append(publish(sidecar.address, event, pb.DURABILITY_REPLICATED, 1))
        assert set(answers) <= {"OUTCOME_UNKNOWN", "REDIS_UNAVAILABLE"}, answers
        assert answers.count("OUTCOME_UNKNOWN") == 5, answers
        pair.link.resume()
        for _ in range(20):  # a connection that was cut may not be back yet
            receipt = publish(sidecar.address, event, pb.DURABILITY_REPLICATED, 3)
            if isinstance(receipt, pb.Receipt):
                break
        assert isinstance(receipt, pb.Receipt), receipt
        assert (receipt.outcome, receipt.replicas) == (pb.OUTCOME_DUPLICATE, 1)
        pair.promote()
        with pair.primary.client() as client:
            assert [entry.id for entry in read_stream(client)] == [before.entry_id, receipt.entry_id]


def test_those_who_need_no_replica_do_not_wait_for_one(pair: Replicated, record_property: Record) -> None:
    """After a failover there is none for minutes: callers of REPLICATED are refused, all others are served."""
    with SidecarProcess(sidecar_env(pair.port)) as sidecar:
        pair.link.stall()
        with (
            Load(sidecar.address, durability=pb.DURABILITY_REPLICATED, writers=4, name="r") as unconfirmed,
            Load(sidecar.address, durability=pb.DURABILITY_SPOOLED, writers=2, name="s") as spooled,
            Load(sidecar.address, durability=pb.DURABILITY_PRIMARY, writers=2, name="p") as primary,
        ):
            time.sleep(4)
            until(lambda: min(spooled.acked, primary.acked) > 100, 10, "they are served")
            served = {"spooled": spooled.finish(), "primary": primary.finish()}
            pair.link.resume()
            everything = unconfirmed.finish()
        measured = {name: figures(history) for name, history in served.items()}
        record_property("figures", str(measured))
        for history in served.values():
            everything.attempted |= history.attempted
            everything.acks += history.acks
        verify(pair.primary, everything)
    assert not everything.late(), everything.late()
    for name, history in served.items():
        assert history.codes().keys() == {"OK"}, measured
        assert len(history.acks) > 100, (name, measured)
