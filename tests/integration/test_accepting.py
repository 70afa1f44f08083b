"""The server takes calls as fast as they come, by a seam that is private to grpc."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc._cython import cygrpc

from sidecar.rpc import accepting

_CALLS = 200
Handler = Callable[[bytes, "grpc.aio.ServicerContext[bytes, bytes]"], Awaitable[bytes]]


@asynccontextmanager
async def _echo(handler: Handler, most: int) -> AsyncIterator[grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]]:
    server = accepting.server([], most)
    method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(handler)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Echo", {"Echo": method})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel.unary_unary("/test.Echo/Echo")
    await asyncio.wait_for(server.stop(1), 3)


async def test_every_call_reaches_its_handler_and_the_server_stops(caplog: pytest.LogCaptureFixture) -> None:
    everyone = asyncio.Event()
    inside = 0

    async def handler(request: bytes, _: object) -> bytes:
        nonlocal inside
        inside += 1
        if inside == _CALLS:
            everyone.set()
        await everyone.wait()
        return request

    sent = [str(number).encode() for number in range(_CALLS)]
    async with _echo(handler, 1000) as echo:
        assert await asyncio.gather(*(echo(each, timeout=10) for each in sent)) == sent
    assert not caplog.records  # the requests that were outstanding ended without a word


async def test_a_call_too_many_is_refused() -> None:
    release = asyncio.Event()

    async def handler(request: bytes, _: object) -> bytes:
        await release.wait()
        return request

    async with _echo(handler, 10) as echo:
        calls = {asyncio.ensure_future(echo(b"x", timeout=10)) for _ in range(60)}
        refused: set[asyncio.Future[bytes]] = set()
        while len(refused) < 50:
            done, _ = await asyncio.wait(calls - refused, timeout=10, return_when=asyncio.FIRST_COMPLETED)
            assert done, f"{len(refused)} were refused"
            refused |= done
        for call in refused:
            error = call.exception()
            assert isinstance(error, grpc.aio.AioRpcError)
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        release.set()
        assert [await call for call in calls - refused] == [b"x"] * 10


async def test_the_seam_is_there_in_the_grpc_that_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(accepting.server([], 10)) is not type(grpc.aio.server())
    monkeypatch.delattr("grpc.aio._server._augment_channel_arguments")
    plain = object()
    monkeypatch.setattr(grpc.aio, "server", lambda **_: plain)
    assert accepting.server([], 10) is plain  # and without it, the server is grpc's own
    assert hasattr(cygrpc.AioServer, "_make_request_call_future")
