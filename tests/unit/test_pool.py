"""The pool's rules, with connections that answer what the test says."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from redis import exceptions

from modelready.redis.faults import AuthenticationError
from modelready.redis.pool import Pool


class Connection:
    """Answers each read with the next reply; None: never."""

    def __init__(self, replies: list[Any]) -> None:
        self.generation, self.born, self.dropped = 0, time.monotonic(), 0
        self._replies = replies

    def is_usable(self) -> bool:
        return not self.dropped

    def write(self, packed: bytes) -> None:
        """Nothing: the replies are known."""

    async def read(self) -> Any:
        await asyncio.sleep(0)
        return self._replies.pop(0) if self._replies else await asyncio.Future()

    def drop(self) -> None:
        self.dropped += 1


class Server:
    """Opens connections with these replies, the first of them with the first list."""

    def __init__(self, *replies: list[Any], max_seconds: float | None = None) -> None:
        self.is_owner_known, self.is_cluster, self.generation, self.timeout = True, False, 0, 5.0
        self.credentials = SimpleNamespace(max_connection_seconds=max_seconds, refused=self._refused)
        self.opened: list[Connection] = []
        self.forgotten = 0
        self._replies = list(replies)

    async def _refused(self) -> bool:
        return True  # there are others to try

    async def connect(self) -> Connection:
        self.opened.append(Connection(self._replies.pop(0)))
        return self.opened[-1]

    def renew(self) -> None:
        self.generation += 1

    def forget_owner(self, _: object = None) -> None:
        self.forgotten += 1


def pool_of(server: Any, **options: Any) -> Pool:
    return Pool(server, **options)


async def test_it_has_one_connection_by_default_and_others_wait_for_it() -> None:
    server = Server(["a", "b"])
    pool = pool_of(server)
    assert {*await asyncio.gather(pool.one("PING"), pool.one("PING"))} == {"a", "b"}
    assert len(server.opened) == 1


async def test_a_reply_that_does_not_come_ends_the_connection_and_the_owner_is_looked_up_again() -> None:
    server = Server([], ["in time"])
    pool = pool_of(server)
    with pytest.raises(exceptions.TimeoutError):
        await pool.one("PING", timeout=0.01)
    assert (server.forgotten, server.opened[0].dropped) == (1, 1)
    assert await pool.one("PING") == "in time"


async def test_a_connection_is_used_for_as_long_as_its_credentials_allow() -> None:
    server = Server(["1", "2"], ["3"], max_seconds=3600)
    pool = pool_of(server)
    assert [await pool.one("PING"), await pool.one("PING")] == ["1", "2"]
    server.opened[0].born -= 3601
    assert await pool.one("PING") == "3"
    assert (server.opened[0].dropped, server.opened[1].dropped) == (1, 0)


async def test_the_first_reply_is_passed_on_before_the_others_are_there() -> None:
    server = Server(["1", "2"])
    seen: list[Any] = []
    assert await pool_of(server).call(("GET", "a"), ("GET", "b"), first=seen.append) == ["1", "2"]
    assert seen == ["1"]


async def test_a_server_that_reads_no_further_ends_the_connection() -> None:
    error = exceptions.ResponseError("Protocol error: too big mbulk count string")
    server = Server(["1", error])
    assert await pool_of(server).call(("A",), ("B",), ("C",)) == ["1", error, error]
    assert server.opened[0].dropped == 1


async def test_after_other_credentials_were_found_all_connections_log_in_again(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(["1"], ["2"])
    pool = pool_of(server)
    await pool.one("PING")
    refused = server.opened[0]
    monkeypatch.setattr(refused, "write", fail)
    assert await pool.one("PING") == "2"
    assert (server.generation, refused.dropped > 0) == (1, True)


def fail(_: bytes) -> None:
    raise AuthenticationError("WRONGPASS")
