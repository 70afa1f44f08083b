"""How redis-py asks for the credentials."""

from __future__ import annotations

from typing import NoReturn

from redis.asyncio.connection import AbstractConnection
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError

from modelready.credentials import CredentialSource, NoCredentials


class Provider(CredentialProvider):
    """What redis-py asks. Give connections `redis_connect_func=log_in` as well."""

    def __init__(self, source: CredentialSource) -> None:
        self._source = source

    def get_credentials(self) -> NoReturn:
        """Refuse: it would block the event loop."""
        raise NotImplementedError("these credentials are for redis.asyncio alone")

    async def get_credentials_async(self) -> tuple[()] | tuple[str] | tuple[str, str]:  # type: ignore[override]
        """Return the arguments of AUTH. redis-py sends none for an empty tuple, though its annotation lacks it.

        Raises redis-py's AuthenticationError with NoCredentials as its cause: after other errors redis-py keeps the
        open socket and uses it without having logged in.
        """
        try:
            username, token = await self._source.current()
        except NoCredentials as error:
            raise AuthenticationError(str(error)) from error
        if username:
            return username, token or ""
        return (token,) if token else ()


async def log_in(connection: AbstractConnection) -> None:
    """Log in as redis-py does, and close the connection if that is cancelled: it keeps it open, not logged in."""
    try:
        await connection.on_connect()
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
