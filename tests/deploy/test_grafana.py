"""Grafana's queries, as a real Prometheus takes them."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.screenshots.grafana import queries
from tests.harness.prometheus_server import PrometheusServer, find_prometheus
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until
from tests.integration.calls import KEYS, calling, model_event, refusal_of, to_redis

# What nothing happened for: a retry, a dead letter of the sidecar's own, a group that keeps entries past the retention.
NOTHING_YET = {"modelready_retries_total", "modelready_dead_letters_total", "modelready_trim_held_back_seconds"}


def required(found: str | None) -> str:
    if found is None:
        what = "there is no prometheus on PATH (Debian: apt-get install prometheus)"
        if os.environ.get("REQUIRE_PROMETHEUS"):
            pytest.fail(f"{what}; REQUIRE_PROMETHEUS is set")
        pytest.skip(what)
    return found


def test_prometheus_takes_every_query(tmp_path: Path) -> None:
    promtool = required(shutil.which("promtool"))
    rules = [{"record": f"query:{number}", "expr": query} for number, (_, query) in enumerate(queries(15))]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "grafana", "rules": rules}]}))
    checked = subprocess.run(
        [promtool, "check", "rules", file], capture_output=True, text=True, timeout=30, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(rules)} rules found" in checked.stdout


@pytest.mark.soak
def test_every_query_finds_what_a_sidecar_exports() -> None:
    required(find_prometheus())
    with RedisServer() as server:
        with server.client() as client:
            client.config_set("maxmemory", "1gb")
            client.xadd(KEYS.dead_letters, {"dl_reason": "HANDLER_FAILED"})
            client.xgroup_create(KEYS.events, "deployer", id="0", mkstream=True)
        with (
            SidecarProcess(to_redis(server, QUEUE_LIST="deployments")) as sidecar,
            PrometheusServer(sidecar.http, interval_seconds=1) as prometheus,
            calling(sidecar) as caller,
        ):
            wanted = {(title, query) for title, query in queries(1) if not any(name in query for name in NOTHING_YET)}
            assert len(wanted) == len(set(queries(1))) - len(NOTHING_YET)

            def all_find() -> bool:
                caller.publish()
                refusal_of(lambda: caller.publish(model_event(artifact=None)))
                silent = [pair for pair in sorted(wanted) if not prometheus.query(pair[1])]
                assert silent == []
                return True

            until(all_find, 30, "every query finds something")
            assert {found["metric"]["outcome"] for found in prometheus.query("modelready_published_events_total")} >= {
                "stored",
                "INVALID_EVENT",
            }
