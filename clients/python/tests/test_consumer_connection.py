"""A consumer stays with its queue: through failovers, in a cluster, with TLS, and while its token is rotated."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from clients.python.tests.test_consumer import DEAD_LETTERS, QUICK, STREAM, environ
from clients.python.tests.twins import CONSUMERS
from modelready import model_ready
from modelready.consumer import Consumer
from modelready.entry import encode
from tests.harness.certificates import Authority
from tests.harness.cluster import Cluster, slot_of
from tests.harness.redis_server import RedisServer
from tests.harness.relay import Relay
from tests.harness.rights import CONSUMER
from tests.harness.topology import Replicated
from tests.harness.waiting import until
from tests.integration.test_aws_credentials import REGION, Aws

ACL = [f"user reader {CONSUMER} >secret"]


@pytest.fixture(params=list(CONSUMERS))
def twin(request: pytest.FixtureRequest) -> Any:
    return CONSUMERS[request.param]


@contextmanager
def consuming(twin: Any, settings: Mapping[str, str], **options: Any) -> Iterator[list[str]]:
    """The versions that a consumer in a thread is given; one that is "bad" fails."""
    versions: list[str] = []

    def handle(event: Any) -> None:
        versions.append(event.model.version)
        if event.model.version == "bad":
            raise LookupError

    consumer = twin.from_env(group="deployer", environ=settings, **{**QUICK, "max_attempts": 1, **options})
    thread = threading.Thread(target=consumer.run, args=[handle])
    thread.start()
    try:
        yield versions
        assert thread.is_alive(), "it ended by an error"
    finally:
        consumer.stop()
        thread.join(20)
    assert not thread.is_alive()


def publish(server: RedisServer, *versions: int | str) -> None:
    with server.client() as client:
        for version in versions:
            client.xadd(STREAM, encode(model_ready(name="m", version=version, uri="s3://m/")))


def settled(server: RedisServer) -> bool:
    with server.client() as client:
        return not client.xpending(STREAM, "deployer")["pending"]


@pytest.mark.parametrize("how", ["promote", "demote"])
def test_a_failover_is_followed(twin: Any, how: str) -> None:
    """After `demote` its connections stay open to a server that is read-only."""
    with Replicated(acl=ACL) as servers:
        settings = {**environ(servers.primary), "REDIS_PORT": str(servers.port)}
        with consuming(twin, settings) as versions:
            publish(servers.primary, 1, "bad")
            until(lambda: versions == ["1", "bad"] and settled(servers.primary), 5, "the first")
            servers.wait_in_sync()
            servers.promote() if how == "promote" else servers.demote()
            servers.flip()
            publish(servers.primary, 2, "bad")  # whose dead letter needs a script that this server does not know
            until(lambda: versions[2:] == ["2", "bad"] and settled(servers.primary), 10, "what came after")
            assert servers.primary.execute("XLEN", DEAD_LETTERS) == 2


def test_in_a_cluster_the_slot_is_found_and_followed() -> None:
    acl = [f"user reader {CONSUMER} +cluster|slots >secret"]
    with Cluster(acl=acl) as cluster:
        slot = slot_of(STREAM)
        owner = cluster.owner(slot)
        seed = cluster.another_master(owner)
        settings = {**environ(seed), "REDIS_CLUSTER": "true"}
        with consuming(Consumer, settings) as versions:
            publish(owner, 1)
            until(lambda: versions == ["1"] and settled(owner), 5, "the first")
            target = cluster.another_master(owner)
            with cluster.moving_slot(slot, target) as source:
                cluster.move_keys(source, target, STREAM)
            publish(target, 2, "bad")
            until(lambda: versions == ["1", "2", "bad"] and settled(target), 10, "what came after")
            assert target.execute("XLEN", DEAD_LETTERS) == 1


def test_tls(twin: Any, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    mine = authority.client()
    with (
        RedisServer(acl=ACL) as server,
        Relay(server.port, tls=authority.server(), client_ca=authority.ca) as relay,
    ):
        publish(server, 1)
        settings = {
            **environ(server),
            "REDIS_PORT": str(relay.port),
            "REDIS_TLS": "true",
            "REDIS_TLS_CA_FILE": str(authority.ca),
            "REDIS_TLS_CERT_FILE": str(mine.cert),
            "REDIS_TLS_KEY_FILE": str(mine.key),
        }
        with consuming(twin, settings) as versions:
            until(lambda: versions == ["1"] and settled(server), 5, "the event")
        with pytest.raises(redis.exceptions.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            twin.from_env(group="deployer", environ={**settings, "REDIS_TLS_CA_FILE": ""}).run(print)


def test_a_token_that_rotates_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-real-key")
    aws = Aws()
    aws.start()
    try:
        with RedisServer(acl=ACL) as server:
            name = aws.put('{"username": "reader", "password": "secret"}')
            settings = {
                "REDIS_HOST": server.host,
                "REDIS_PORT": str(server.port),
                "REDIS_AUTH_SECRET_ID": name,
                "AWS_REGION": REGION,
                "AWS_ENDPOINT_URL": aws.url,
            }
            with consuming(Consumer, settings) as versions:
                publish(server, 1)
                until(lambda: versions == ["1"] and settled(server), 10, "the first")
                server.execute("ACL", "SETUSER", "reader", "resetpass", ">another")
                aws.rotate(name, '{"username": "reader", "password": "another"}')
                server.execute("CLIENT", "KILL", "USER", "reader")
                publish(server, 2)
                until(lambda: versions == ["1", "2"] and settled(server), 10, "what came after")
    finally:
        aws.stop()
