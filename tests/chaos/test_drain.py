"""A long outage is over: the spool empties although the load goes on."""

import time
from collections.abc import Callable

import pytest

from tests.chaos.check import depth, figures, verify, wait_drained
from tests.chaos.load import Load, sidecar_env
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until

pytestmark = pytest.mark.chaos
Record = Callable[[str, object], None]
SPOOLED = 20_000


def test_the_spool_empties_under_steady_load(record_property: Record) -> None:
    with RedisServer() as server:
        server.kill()
        with SidecarProcess(sidecar_env(server.port)) as sidecar:
            with Load(sidecar.address, batch=250, pause=0) as load:
                until(lambda: depth(sidecar) >= SPOOLED, 40, f"{SPOOLED} events are in the spool")
                load.batch = 20
                load.wait_acked(100)
                before = depth(sidecar)
                server.start()
                began, acked = time.monotonic(), load.acked
                wait_drained(sidecar, 20)
                drained, meanwhile = time.monotonic() - began, load.acked - acked
                load.wait_acked(200)
                history = load.finish()
            wait_drained(sidecar)
            verify(server, history)
    assert len(history.acks) == len(history.attempted)
    assert history.outcomes()["OUTCOME_STORED"], "steady load leaves the spool"
    assert not history.late(), history.late()
    record_property("figures", f"{before} drained in {drained:.2f} s, {meanwhile} meanwhile; {figures(history)}")
