"""The checks of the engine after the login: what it is, how it is set up, how fast it answers."""

from __future__ import annotations

import re
import time
from typing import Any

from modelready.keys import Keys
from sidecar.cli.doctor.auth import Hello
from sidecar.cli.doctor.findings import LATENCY_P50_MS, LATENCY_P99_MS, MEMORY_SHARE, OLDEST_ENGINE
from sidecar.cli.doctor.report import Report
from sidecar.errors import SetupFault
from sidecar.redisstream.connection import RedisConnection
from sidecar.redisstream.inspector import RedisInspector
from sidecar.settings import QueueSettings, Settings

_PINGS = 100


async def check_keys(report: Report, queue: QueueSettings, connection: RedisConnection) -> None:
    """Whether something else holds a key of the queue. Raises QueueErrors."""
    names = Keys(queue.name)
    lengths = {names.events: "XLEN", names.dead_letters: "XLEN"}
    for mirror in queue.lists:
        lengths |= dict.fromkeys(mirror.keys.values(), "LLEN")
    found, wrong = [], []
    for key, command in lengths.items():
        try:
            found.append(f"{key} {await connection.execute(command, key)}")
        except SetupFault as error:
            if error.reason == "REDIS_WRONG_TYPE":
                wrong.append(f"{key} is no {'stream' if command == 'XLEN' else 'list'}")
            elif error.reason != "REDIS_NO_PERMISSION":
                raise
    if wrong:
        report.add("keys-wrong-type", "; ".join(wrong))
    elif found and (full := await _full(queue, connection)):
        report.add("keys-queue-full", full)
    elif found:
        report.ok("keys", f"entries: {', '.join(found)}")
    else:
        report.skip("keys", "not tried: acl failed")


async def _full(queue: QueueSettings, connection: RedisConnection) -> str:
    """What to report about a queue that has reached QUEUE_MAX_DEPTH; else, or if it is not known, empty."""
    if not queue.max_depth:
        return ""
    try:
        depth = (await RedisInspector(connection, queue).depth()).depth
    except SetupFault:  # a missing right, which acl has reported
        return ""
    said = f"the slowest group has {depth} entries open, QUEUE_MAX_DEPTH is {queue.max_depth}: the queue is full"
    return said if depth >= queue.max_depth else ""


def check_version(report: Report, hello: Hello) -> None:
    """Whether the engine has all commands that are used."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", hello.version)[:2])
    said = f"the engine is {hello.server} {hello.version}"
    if numbers < OLDEST_ENGINE:
        report.add("version-old", said)
    else:
        report.ok("version", said)


def check_role(report: Report, hello: Hello) -> bool:
    """Whether it takes writes."""
    if hello.role == "master":
        report.ok("role", "it is a primary")
        return True
    report.add("role-replica", f"it is a {hello.role}, which accepts no writes")
    return False


def check_cluster(report: Report, *, wanted: bool, hello: Hello) -> None:
    """Whether REDIS_CLUSTER is right."""
    is_cluster = hello.mode == "cluster"
    if is_cluster and not wanted:
        report.add("cluster-on", "the server is a node of a cluster, and REDIS_CLUSTER is false")
    elif wanted and not is_cluster:
        report.add("cluster-off", f"REDIS_CLUSTER is true, and the server is {hello.mode}")
    else:
        report.ok("cluster", "it is a cluster, as REDIS_CLUSTER says" if wanted else "it is no cluster")


async def check_info(report: Report, settings: Settings, connection: RedisConnection) -> None:
    """Replicas, eviction and memory, from INFO. Raises QueueErrors."""
    try:
        info = await _info(connection)
    except SetupFault as error:
        if error.reason != "REDIS_NO_PERMISSION":
            raise
        for check in ("replicas", "eviction", "memory"):
            report.skip(check, "not known: the user lacks +info")
        return
    _check_replicas(report, settings, info)
    _check_eviction(report, info)
    _check_memory(report, info)


def _check_replicas(report: Report, settings: Settings, info: dict[str, str]) -> None:
    slaves = [value for name, value in info.items() if re.fullmatch(r"slave\d+", name)]
    online = sum("state=online" in value for value in slaves)
    wanted = settings.redis.min_replicas
    said = f"{online} online, REDIS_MIN_REPLICAS is {wanted}"
    if settings.publish.durability == "replicated" and online < wanted:
        report.add("replicas-too-few", f"{said}: every publish is refused with OUTCOME_UNKNOWN")
    elif online < wanted:
        report.ok("replicas", f"{said}: only calls that ask for DURABILITY_REPLICATED need them")
    else:
        report.ok("replicas", said)


def _check_eviction(report: Report, info: dict[str, str]) -> None:
    policy = info.get("maxmemory_policy", "")
    if policy.startswith("allkeys"):
        report.add("eviction-queue", f"maxmemory-policy is {policy}: when memory runs out whole queues are evicted")
    elif policy != "noeviction":
        why = "when memory runs out the dedup keys are evicted first, and a retry makes a second entry"
        report.add("eviction-policy", f"maxmemory-policy is {policy or 'not known'}: {why}")
    else:
        report.ok("eviction", "maxmemory-policy is noeviction")


def _check_memory(report: Report, info: dict[str, str]) -> None:
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if not most:
        report.ok("memory", f"{used / 1e6:,.0f} MB in use, no limit is set")
        return
    said = f"{used / 1e6:,.1f} of {most / 1e6:,.1f} MB in use"
    if used > most * MEMORY_SHARE:
        report.add("memory-nearly-full", f"{said}: writes are refused when it is full, and events are spooled")
    else:
        report.ok("memory", said)


async def _info(connection: RedisConnection) -> dict[str, str]:
    replies: list[Any] = await connection.pipeline([("INFO", "replication"), ("INFO", "memory")])
    text = "\n".join(reply.decode() for reply in replies)
    return dict(line.strip().split(":", 1) for line in text.splitlines() if ":" in line)


async def check_latency(report: Report, connection: RedisConnection) -> None:
    """How long a round trip takes. Raises QueueErrors."""
    took = []
    for _ in range(_PINGS):
        began = time.perf_counter()
        await connection.execute("PING")
        took.append((time.perf_counter() - began) * 1000)
    took.sort()
    p50, p99 = took[_PINGS // 2], took[_PINGS - 2]
    said = f"{_PINGS} round trips: p50 {p50:.1f} ms, p99 {p99:.1f} ms"
    if p50 > LATENCY_P50_MS or p99 > LATENCY_P99_MS:
        report.add("latency-high", f"{said}, above {LATENCY_P50_MS:g} ms or {LATENCY_P99_MS:g} ms")
    else:
        report.ok("latency", said)
