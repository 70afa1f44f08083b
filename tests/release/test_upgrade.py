"""An upgrade from each earlier state, with a queue that is being read and a spool that is not empty."""

import shutil
from pathlib import Path

import pytest

from modelready.consumer import Consumer
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until
from tests.integration.calls import DUPLICATE, KEYS, calling, model_event, to_redis
from tests.release.stored import GROUP, IDS, LIST, STORED_DIRECTORY, restore

pytestmark = pytest.mark.soak

DECADE = str(10 * 365 * 86400)


@pytest.mark.parametrize("release", sorted(STORED_DIRECTORY.iterdir()), ids=lambda release: release.name)
def test_what_an_earlier_release_stored_arrives_once_and_in_order(release: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir(mode=0o700)
    shutil.copy(release / "spool.db", spool)
    with RedisServer() as server, server.client() as client:
        restore(client, release)
        age = {"SPOOL_MAX_AGE_SECONDS": DECADE, "QUEUE_RETENTION_SECONDS": DECADE}
        env = to_redis(server, QUEUE_LIST=LIST, SPOOL_DIR=str(spool), **age)
        with SidecarProcess(env) as sidecar, calling(sidecar) as caller:
            until(lambda: client.xlen(KEYS.events) == len(IDS), 30, "the spool is empty")
            entries = [(fields[b"ce_id"].decode(), entry) for entry, fields in client.xrange(KEYS.events)]
            assert [event_id for event_id, _ in entries] == IDS
            assert client.llen(LIST) == len(IDS)
            for number, (event_id, entry) in enumerate(entries, 1):
                again = caller.publish(model_event(number, event_id=event_id))
                assert (again.outcome, again.entry_id) == (DUPLICATE, entry.decode())
        handled: list[str] = []
        consumer = Consumer.from_env(group=GROUP, environ=env | {"REDIS_TLS": "false"}, claim_seconds=2)
        for delivery in consumer:
            with delivery as event:
                handled.append(event.event_id)
            if len(handled) == len(IDS) - 1:
                consumer.stop()
        assert handled == IDS[1:]  # the second was in the hands of a consumer that was killed
        assert client.xpending(KEYS.events, GROUP)["pending"] == 0
