"""Which node of a cluster is asked: the owner of the queue's slot, wherever it is now. A real cluster of two."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis import exceptions

from modelready.credentials import StaticCredentials
from modelready.redis.cluster import Server
from modelready.redis.connection import Endpoint
from modelready.redis.pool import Pool
from modelready.redis.settings import RedisSettings
from tests.harness.cluster import Cluster, slot_of
from tests.harness.ports import LOOPBACK

KEY = "{model-ready}:key"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(2) as running:
        yield running


@pytest.fixture
async def stranger(cluster: Cluster) -> AsyncIterator[Pool]:
    """A pool that knows the other node alone."""
    port = cluster.another_master(cluster.owner(KEY)).port
    pool = to_port(port)
    yield pool
    await pool.close()


def to_port(port: int, **settings: Any) -> Pool:
    found = RedisSettings(**{"host": LOOPBACK, "port": port, "tls": False, "cluster": True, **settings})
    return Pool(Server(found, StaticCredentials(), key=KEY, client_name="test"))


async def owner_of(pool: Pool) -> int:
    await pool.one("SET", KEY, "value")
    (connection,) = pool._idle
    return connection.port


async def test_the_owner_is_found_and_followed(cluster: Cluster, stranger: Pool) -> None:
    assert await owner_of(stranger) == cluster.owner(KEY).port
    for _ in range(2):
        target = cluster.another_master(cluster.owner(KEY))
        cluster.move_slot(slot_of(KEY), target)
        with pytest.raises(exceptions.MovedError):
            await stranger.one("SET", KEY, "value")
        assert await owner_of(stranger) == target.port


async def test_without_cluster_mode_it_is_a_fault_of_set_up(cluster: Cluster) -> None:
    pool = to_port(cluster.another_master(cluster.owner(KEY)).port, cluster=False)
    with pytest.raises(exceptions.ClusterError, match="set REDIS_CLUSTER=true"):
        await pool.one("SET", KEY, "value")
    await pool.close()


@pytest.mark.parametrize("reply", ["CLUSTERDOWN", "READONLY", "MASTERDOWN", "UNBLOCKED"])
async def test_a_node_that_is_not_the_owner_is_left(cluster: Cluster, stranger: Pool, reply: str) -> None:
    """The node asks CLUSTER SLOTS of the seed again, and opens another connection."""
    await owner_of(stranger)
    (before,) = stranger._idle
    with pytest.raises(exceptions.ResponseError):
        await stranger.one("EVAL", f"return redis.error_reply('{reply} as a node says it')", "1", KEY)
    assert not stranger._server.is_owner_known
    assert await owner_of(stranger) == cluster.owner(KEY).port
    assert stranger._idle != [before]


async def test_other_nodes_are_asked_while_the_seed_is_away(cluster: Cluster) -> None:
    owner = cluster.owner(KEY)
    pool = to_port(cluster.another_master(owner).port, timeout=1.0)
    await owner_of(pool)
    pool._server._seed = Endpoint(LOOPBACK, 1)
    pool._server.forget_owner()
    assert await owner_of(pool) == owner.port
    pool._server.forget_owner((LOOPBACK, 2))  # as a node named one that is gone
    assert await owner_of(pool) == owner.port
    await pool.close()


async def test_an_owner_that_cannot_be_reached_is_looked_up_again(cluster: Cluster, stranger: Pool) -> None:
    stranger._server._owner, stranger._server.is_owner_known = Endpoint(LOOPBACK, 1), True
    with pytest.raises(exceptions.ConnectionError):
        await stranger.one("PING")
    assert await owner_of(stranger) == cluster.owner(KEY).port


async def test_refused_credentials_are_not_shown_to_every_node(
    cluster: Cluster, stranger: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await owner_of(stranger)
    asked: list[Endpoint] = []
    ask = stranger._server._ask

    async def note(node: Endpoint) -> Any:
        asked.append(node)
        return await ask(node)

    monkeypatch.setattr(stranger._server, "_ask", note)
    stranger._server.credentials = StaticCredentials("nobody", "wrong")
    stranger._server.forget_owner()
    with pytest.raises(exceptions.AuthenticationError):
        await stranger.one("PING")
    assert len(asked) == 1


async def test_a_slot_that_nobody_serves_is_an_absence(cluster: Cluster) -> None:
    pool = to_port(cluster.port)
    pool._server._slot = 99_999
    with pytest.raises(exceptions.ClusterDownError):
        await pool.one("PING")
