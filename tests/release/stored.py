"""What a release leaves in Redis and on disk, kept as files, so that later ones are tested with it.

    python -m tests.release.stored    # writes tests/release/stored/<version>, once for each release

A queue of six events: a consumer acknowledged the first and was killed while it handled the second, and three are in
the spool, because Redis was killed. Redis' keys are kept as the commands that make them.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from scripts.version import version
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.integration.calls import STORED, TO_DISK, calling, model_event, to_redis

STORED_DIRECTORY = Path(__file__).parent / "stored"
GROUP = "deployer"
LIST = "deployments"
TTL_SECONDS = 86400
IDS = [f"event-{number}" for number in range(1, 7)]

_CONSUMER = f"""
import time
from modelready.consumer import Consumer
for delivery in Consumer.from_env(group="{GROUP}"):
    with delivery as event:
        if event.event_id == "{IDS[1]}":
            print("begun", flush=True)
            time.sleep(600)
"""

Command = list[str]


def commands_for(client: Any) -> list[Command]:
    """The commands that make the keys of a server again, with all bytes as Latin-1."""
    made: list[Command] = []
    for key in sorted(client.scan_iter("*")):
        if b":alive:" in key:
            continue  # it expires within seconds after its consumer
        made += list(map(_latin, _of_key(client, key, client.type(key).decode())))
    return made


def _latin(command: list[Any]) -> Command:
    return [part.decode("latin-1") if isinstance(part, bytes) else str(part) for part in command]


def _of_key(client: Any, key: bytes, kind: str) -> list[list[Any]]:
    if kind == "string":
        return [["SET", key, client.get(key), "EX", TTL_SECONDS]]
    if kind == "hash":
        return [["HSET", key, *(part for pair in client.hgetall(key).items() for part in pair)]]
    if kind == "zset":
        return [
            [
                "ZADD",
                key,
                *(part for name, score in client.zrange(key, 0, -1, withscores=True) for part in (score, name)),
            ]
        ]
    if kind == "list":
        return [["RPUSH", key, *client.lrange(key, 0, -1)]]
    assert kind == "stream", kind
    made: list[list[Any]] = []
    for entry_id, fields in client.xrange(key):
        made.append(["XADD", key, entry_id, *(part for pair in fields.items() for part in pair)])
    for group in client.xinfo_groups(key):
        name = group["name"]
        made.append(["XGROUP", "CREATE", key, name, group["last-delivered-id"]])
        for one in client.xpending_range(key, name, "-", "+", 1000):
            claim = ["XCLAIM", key, name, one["consumer"], 0, one["message_id"]]
            made.append([*claim, "IDLE", 600_000, "RETRYCOUNT", one["times_delivered"], "FORCE", "JUSTID"])
    return made


def restore(client: Any, directory: Path) -> None:
    """Run the commands of a release's directory."""
    for command in json.loads((directory / "redis.json").read_text()):
        client.execute_command(*(part.encode("latin-1") for part in command))


def write(directory: Path) -> None:
    """Make the state with the code of this tree."""
    with RedisServer() as server:
        env = to_redis(server, QUEUE_LIST=LIST)
        with SidecarProcess(env) as sidecar, server.client() as client:
            client.xgroup_create("{model-ready}:events", GROUP, id="0", mkstream=True)
            with calling(sidecar) as caller:
                for number, event_id in enumerate(IDS[:3], 1):
                    assert caller.publish(model_event(number, event_id=event_id)).outcome == STORED
                with subprocess.Popen(
                    [sys.executable, "-c", _CONSUMER], env=sidecar.env | {"REDIS_TLS": "false"}, stdout=subprocess.PIPE
                ) as consumer:
                    assert consumer.stdout is not None
                    assert consumer.stdout.readline() == b"begun\n"
                    consumer.send_signal(signal.SIGKILL)
                directory.mkdir(parents=True)
                (directory / "redis.json").write_text(json.dumps(commands_for(client), indent=1) + "\n")
                server.kill()
                for number, event_id in enumerate(IDS[3:], 4):
                    assert caller.publish(model_event(number, event_id=event_id)).outcome == TO_DISK
            sidecar.terminate()
            shutil.copy(sidecar.spool_dir / "spool.db", directory / "spool.db")


if __name__ == "__main__":
    write(STORED_DIRECTORY / version())
