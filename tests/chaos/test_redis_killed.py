"""Redis is killed and started again and again, under load."""

import random
import time
from collections.abc import Callable

import pytest

from modelready.v1 import publisher_service_pb2 as pb
from tests.chaos.check import figures, verify, wait_drained
from tests.chaos.load import Load, sidecar_env
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import patience

pytestmark = pytest.mark.chaos
Record = Callable[[str, object], None]


def kill_redis(rounds: int, durability: pb.Durability, record: Record) -> None:
    rng = random.Random(rounds)
    recoveries = []
    with RedisServer(appendonly=True) as server, SidecarProcess(sidecar_env(server.port)) as sidecar:
        with Load(sidecar.address, durability=durability) as load:
            for _ in range(rounds):
                load.wait_acked(50)
                time.sleep(rng.uniform(0.02, 0.4))
                server.kill()
                time.sleep(rng.choice([0, 0.1, 0.5, 1.0]))
                server.start()
                recoveries.append(load.wait_all_acked_since(time.monotonic()))
            history = load.finish()
        wait_drained(sidecar)
        verify(server, history)
        outcomes = history.outcomes()
        assert outcomes["OUTCOME_STORED"], outcomes
        spooled_too = durability != pb.DURABILITY_PRIMARY
        assert bool(outcomes["OUTCOME_SPOOLED"]) is spooled_too, outcomes
        assert len(history.acks) == len(history.attempted), "every event got through in the end"
        assert max(recoveries) < patience(5), recoveries
    record("figures", f"{rounds} kills, back in {max(recoveries):.2f} s at most; {figures(history)}")


@pytest.mark.parametrize("durability", [pb.DURABILITY_UNSPECIFIED, pb.DURABILITY_PRIMARY], ids=["default", "primary"])
def test_redis_is_killed_again_and_again(durability: pb.Durability, record_property: Record) -> None:
    kill_redis(7, durability, record_property)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("durability", [pb.DURABILITY_UNSPECIFIED, pb.DURABILITY_PRIMARY], ids=["default", "primary"])
def test_redis_is_killed_for_minutes(durability: pb.Durability, record_property: Record) -> None:
    kill_redis(120, durability, record_property)
