"""The sidecar is killed and started again and again, under load: with Redis up, away, and while its spool drains."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.check import depth, figures, verify, wait_drained
from tests.chaos.load import Load, sidecar_env
from tests.harness.redis_server import RedisServer
from tests.harness.relay import Relay
from tests.harness.sidecar_process import SidecarProcess

pytestmark = pytest.mark.chaos
Record = Callable[[str, object], None]


def kill_sidecar(sidecar: SidecarProcess, load: Load, rounds: int) -> None:
    rng = random.Random(rounds)
    for _ in range(rounds):
        load.wait_acked(20)
        time.sleep(rng.uniform(0, 0.15))
        sidecar.kill()
        sidecar.start("listening")


def killed_with_redis_up(rounds: int, spool: Path, record: Record) -> None:
    with RedisServer() as server:
        with SidecarProcess(sidecar_env(server.port, SPOOL_DIR=str(spool))) as sidecar:
            with Load(sidecar.address) as load:
                kill_sidecar(sidecar, load, rounds)
                history = load.finish()
            wait_drained(sidecar)
        verify(server, history)
    assert len(history.acks) == len(history.attempted)
    record("figures", f"{rounds} kills; {figures(history)}")


def killed_with_redis_away(rounds: int, spool: Path, record: Record) -> None:
    with RedisServer() as server:
        server.kill()
        with SidecarProcess(sidecar_env(server.port, SPOOL_DIR=str(spool))) as sidecar:
            with Load(sidecar.address) as load:
                kill_sidecar(sidecar, load, rounds)
                history = load.finish()
            assert set(history.outcomes()) == {"OUTCOME_SPOOLED"}
            assert len(history.acks) == len(history.attempted) == depth(sidecar)
            server.start()
            wait_drained(sidecar)
        verify(server, history)
    record("figures", f"{rounds} kills; {figures(history)}")


def test_it_is_killed_with_redis_up(tmp_path: Path, record_property: Record) -> None:
    killed_with_redis_up(12, tmp_path, record_property)


def test_it_is_killed_with_redis_away(tmp_path: Path, record_property: Record) -> None:
    killed_with_redis_away(12, tmp_path, record_property)


def test_it_is_killed_while_its_spool_drains(tmp_path: Path, record_property: Record) -> None:
    """Between an append and the forgetting of it, too: the link is slow, so that most kills fall there."""
    rng = random.Random(5)
    kills = 0
    with RedisServer() as server, Relay(server.port) as relay:
        relay.refuse()
        env = sidecar_env(relay.port, SPOOL_DIR=str(tmp_path))
        with SidecarProcess(env) as sidecar:
            with Load(sidecar.address, batch=100, limit=1000) as load:
                history = load.join(30)
            assert depth(sidecar) == len(history.acks) == 8000
            relay.delay(0.05)
            relay.accept()
            while (left := depth(sidecar)) > 1000 and kills < 8:
                sidecar.kill()
                kills += 1
                sidecar.start("listening")
                time.sleep(rng.uniform(0, 0.15))
            relay.delay(0)
            wait_drained(sidecar)
        verify(server, history)
    assert kills >= 3, left
    record_property("figures", f"{kills} kills; {figures(history)}")


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_it_is_killed_for_minutes_with_redis_up(tmp_path: Path, record_property: Record) -> None:
    killed_with_redis_up(150, tmp_path, record_property)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_it_is_killed_for_minutes_with_redis_away(tmp_path: Path, record_property: Record) -> None:
    killed_with_redis_away(150, tmp_path, record_property)
