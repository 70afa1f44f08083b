"""Names of hosts, and a socket to one of their addresses: no name server and no dead address holds up the others."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from modelready._thread import start

Address = tuple[int, Any]
"""A family of sockets and an address in it."""

_PAUSE_SECONDS = 0.25  # of RFC 8305


class Resolver:
    """Looks names up, each once at a time, in threads that nobody waits for: a name server may take minutes."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, int], Future[list[Any]]] = {}
        self._worked: Address | None = None

    async def connect(self, host: str, port: int, seconds: float) -> socket.socket:
        """A socket to the first address that takes the connection. Raises OSError.

        Each address is tried a little after the one before it, and none is given up meanwhile: a name may have many,
        and packets to one may vanish. So all have their turn within half of `seconds`.
        """
        addresses = await self._look_up(host, port)
        if self._worked in addresses:
            addresses.sort(key=lambda address: address != self._worked)
        address, sock = await _first(addresses, min(_PAUSE_SECONDS, seconds / 2 / len(addresses)))
        self._worked = address
        return sock

    async def _look_up(self, host: str, port: int) -> list[Address]:
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            found = look_up(flags=socket.AI_NUMERICHOST)  # an address: nobody is asked
        except OSError:
            running = self._running.get((host, port))
            if running is None or running.done():
                running = self._running[host, port] = start("look-up", look_up)
            found = await asyncio.wrap_future(running)
        return list(dict.fromkeys((int(family), address) for family, *_, address in found))


async def _first(addresses: Sequence[Address], pause: float) -> tuple[Address, socket.socket]:
    """The address that answers first, and its socket. Raises the first error when none does."""
    left = list(addresses)
    attempts: dict[asyncio.Task[socket.socket], Address] = {}
    problem: BaseException | None = None
    try:
        while left or attempts:
            if left:
                address = left.pop(0)
                attempts[asyncio.create_task(connect_to(address))] = address
            done, _ = await asyncio.wait(attempts, timeout=pause if left else None, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                address = attempts.pop(task)
                if (error := task.exception()) is None:
                    return address, task.result()
                problem = problem or error
        raise problem or OSError("the name has no address")
    finally:
        for task in attempts:
            task.add_done_callback(_close)
            task.cancel()


async def connect_to(address: Address) -> socket.socket:
    """A socket to it. Raises OSError."""
    sock = socket.socket(address[0], socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address[1])
    except BaseException:
        sock.close()
        raise
    return sock


def _close(task: asyncio.Task[socket.socket]) -> None:
    """Of an attempt that another one overtook."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()
