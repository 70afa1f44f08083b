"""What a consumer does about an error of Redis before it tries again."""

from __future__ import annotations

from modelready.redis.cluster import Server
from modelready.redis.faults import AuthenticationError, RedisError, is_transient
from modelready.redis.pool import Pool


async def prepare_retry(error: RedisError, server: Server, pool: Pool) -> None:
    """Do what lets the next attempt succeed. Raises the error where no attempt will."""
    await pool.close()  # a node that is no longer the owner keeps its connections open
    server.forget_owner()
    if isinstance(error, AuthenticationError):
        if await server.credentials.refused():
            server.renew()
        elif server.fixed_credentials or not pool.ever_connected:
            raise error
    elif not is_transient(error):
        raise error
