"""The doctor command: what a person checks when the sidecar does not connect, in that order.

It runs in the sidecar's environment, beside a running sidecar or without one, and leaves nothing changed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Coroutine, Mapping
from typing import Any

from modelready.keys import Keys
from sidecar.cli.doctor import network, server
from sidecar.cli.doctor.acl import check_acl
from sidecar.cli.doctor.auth import Hello, check_auth, connected, greet
from sidecar.cli.doctor.findings import place_of
from sidecar.cli.doctor.outbox import check_outbox
from sidecar.cli.doctor.report import Report
from sidecar.cli.doctor.round_trip import check_round_trip
from sidecar.cli.doctor.settings import Given, check_settings
from sidecar.cli.doctor.spool import check_spool
from sidecar.errors import QueueError
from sidecar.redisstream.connection import RedisConnection
from sidecar.settings import Settings


def run(*, as_json: bool = False) -> int:
    """Print what was found, and return 0 with warnings at most, 1 with a failure, 2 where the settings are wrong."""
    logging.disable()  # what the sidecar's parts would log is in the findings
    try:
        report = examine(os.environ)
    finally:
        logging.disable(logging.NOTSET)
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print(report.as_json() if as_json else report.as_text(colour=colour))
    return report.exit_code


def examine(environ: Mapping[str, str]) -> Report:
    """Make all checks that can be made."""
    report = Report(place_of(environ))
    given = check_settings(report, environ)
    if given is not None:
        greeting = _look_at_network(report, given)
        if greeting is not None:
            asyncio.run(_look_at_redis(report, given, greeting))
        check_spool(report, given.settings.spool)
        check_outbox(report, given.settings.outbox, environ)
    report.complete()
    return report


def _look_at_network(report: Report, given: Given) -> bytes | None:
    """What the server answers without a login; None if it does not."""
    redis = given.settings.redis
    if network.check_dns(report, redis) and network.check_tcp(report, redis):
        return network.check_tls(report, redis, given.context)
    return None


async def _look_at_redis(report: Report, given: Given, greeting: bytes) -> None:
    """REDIS_HOST itself, and then the node that has the queue's keys, which in a cluster may be another."""
    redis, key = given.settings.redis, Keys(given.settings.queue.name).events
    async with connected(redis, given.credentials, key, cluster=False) as connection:
        logged_in = await check_auth(report, redis, given.credentials, connection, greeting)
        if logged_in is None:
            return
        hello = logged_in.hello
        if not await _made(report, "acl", check_acl(report, given.settings, logged_in)) or hello is None:
            return
        server.check_version(report, hello)
        server.check_cluster(report, wanted=redis.cluster, hello=hello)
    cluster = hello.mode == "cluster"
    async with connected(redis, given.credentials, key, cluster=cluster) as connection:
        try:
            hello = await greet(connection)
        except QueueError as error:
            _explain_owner(report, error, cluster=cluster)
            return
        await _look_at_owner(report, given.settings, connection, hello)


def _explain_owner(report: Report, error: QueueError, *, cluster: bool) -> None:
    if not cluster:
        report.add("connection-lost", str(error), "role")
    elif error.reason != "REDIS_NO_PERMISSION":  # which acl has reported already
        report.add("cluster-no-owner", f"the node that has the queue's slot cannot be used: {error}")


async def _look_at_owner(report: Report, settings: Settings, connection: RedisConnection, hello: Hello) -> None:
    takes_writes = server.check_role(report, hello)
    if (
        await _made(report, "keys", server.check_keys(report, settings.queue, connection))
        and await _made(report, "replicas", server.check_info(report, settings, connection))
        and await _made(report, "latency", server.check_latency(report, connection))
        and takes_writes
        and not report.failed("acl")
    ):
        await check_round_trip(report, settings, connection)


async def _made(report: Report, check: str, work: Coroutine[Any, Any, None]) -> bool:
    """Whether the check was completed."""
    try:
        await work
    except QueueError as error:
        if error.reason == "REDIS_NO_PERMISSION":
            report.skip(check, "not tried: acl failed")
            return True
        report.add("connection-lost", str(error), check)
        return False
    return True
