"""A TLS cluster whose certificates have host names alone, while MOVED and CLUSTER SLOTS name addresses first."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelready.consumer import Consumer
from tests.harness.certificates import Authority
from tests.harness.cluster import Cluster
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until
from tests.integration.calls import DEFAULT, KEYS, PRIMARY, STORED, Load, calling, health, queued_ids
from tests.integration.test_redis_tls import TLS_SERVERS


@pytest.fixture(params=TLS_SERVERS)
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    names = Authority(tmp_path).server("localhost")
    config = {"cluster-announce-hostname": "localhost"}
    with Cluster(1, replicas=1, binary=request.param, password="a-token", tls=names, config=config) as running:
        yield running


def by_name(cluster: Cluster, directory: Path) -> dict[str, str]:
    return {
        "REDIS_HOST": "localhost",
        "REDIS_PORT": str(cluster.port),
        "REDIS_AUTH_TOKEN": "a-token",
        "REDIS_TLS": "true",
        "REDIS_TLS_CA_FILE": str(directory / "authority.pem"),
        "REDIS_CLUSTER": "true",
    }


def test_a_planned_failover_is_followed(cluster: Cluster, tmp_path: Path) -> None:
    """There and back: each time the node in use answers MOVED with an address that no certificate is for."""
    with SidecarProcess(by_name(cluster, tmp_path)) as sidecar, Load(sidecar, [DEFAULT] * 2 + [PRIMARY] * 2) as load:
        for _ in range(2):
            before = len(load.acked)
            until(lambda before=before: len(load.acked) > before + 50, 10, "it publishes")  # type: ignore[misc]
            heir = cluster.hand_over(KEYS.events)
            with calling(sidecar) as caller:
                until(lambda caller=caller: caller.publish(durability=PRIMARY).outcome == STORED, 5, "it follows")  # type: ignore[misc]
            until(lambda: health(sidecar) == (True, True, True), 5, "it is ready")
        load.__exit__()
        assert load.errors == [], sidecar.logs()
        until(lambda: sidecar.metrics()["modelready_spool_events"] == 0, 10, "the spool is empty")
        stored = queued_ids(heir)
        assert len(stored) == len(set(stored))
        assert set(load.acked) <= set(stored)


def test_a_consumer_follows_it_too(cluster: Cluster, tmp_path: Path) -> None:
    handled: list[str] = []
    consumer = Consumer.from_env(group="g", environ=by_name(cluster, tmp_path), block_seconds=0.1)
    thread = threading.Thread(target=consumer.run, args=[lambda event: handled.append(event.event_id)])
    thread.start()
    try:
        with SidecarProcess(by_name(cluster, tmp_path)) as sidecar, calling(sidecar) as caller:
            for _ in range(2):
                event = caller.publish(durability=PRIMARY).event_id
                until(lambda event=event: event in handled, 10, "it is handled")  # type: ignore[misc]
                cluster.hand_over(KEYS.events)
            event = caller.publish(durability=PRIMARY).event_id
            until(lambda: event in handled, 10, "it is handled")
    finally:
        consumer.stop()
        thread.join(20)
    assert not thread.is_alive()
