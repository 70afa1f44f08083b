"""What a relay does with one connection: the bytes' way, in both directions."""

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from .ports import LOOPBACK

CHUNK = 65_536
IN_FLIGHT = 1024  # chunks that a delayed direction may hold: 64 MiB


@dataclass
class Counters:
    """Since the relay's start. Bytes count when they are delivered; replies that were swallowed do not."""

    accepted: int = 0
    open: int = 0
    request_bytes: int = 0
    reply_bytes: int = 0


class Rules:
    """What holds for every connection of a relay now. Lives in the relay's loop."""

    def __init__(self, counters: Counters) -> None:
        self.counters = counters
        self.delay = 0.0
        self.swallow = False
        self.budget: int | None = None
        self.reply_budget: int | None = None
        self.end_softly = False
        self.moving = asyncio.Event()
        self.moving.set()

    def set_delay(self, seconds: float) -> None:
        self.delay = seconds

    def set_swallow(self, swallow: bool) -> None:
        self.swallow = swallow

    def set_budget(self, request_bytes: int) -> None:
        self.budget = request_bytes

    def set_reply_budget(self, reply_bytes: int | None, end_softly: bool) -> None:
        self.reply_budget, self.end_softly = reply_bytes, end_softly

    def passed(self, reply: bytes) -> bytes | None:
        """The last part of the reply that passes; None where all of it does, and nothing is cut."""
        budget = self.reply_budget
        if budget is None or len(reply) < budget:
            self.reply_budget = None if budget is None else budget - len(reply)
            return None
        self.reply_budget = None
        return reply[:budget]


class Connection:
    """A client's connection and the one to the server that it is carried over."""

    def __init__(self, rules: Rules, client: socket.socket) -> None:
        self._rules = rules
        self._sockets = [client]
        self._writers: list[asyncio.StreamWriter] = []
        self._mute = False

    async def carry(self, target: int, tls: ssl.SSLContext | None) -> None:
        """Until either end closes. OSError: the server or the handshake failed."""
        self._sockets[0].setblocking(False)
        from_client, to_client = await self._stream(self._sockets[0], tls)
        server = socket.socket()
        self._sockets.append(server)
        server.setblocking(False)
        await asyncio.get_running_loop().sock_connect(server, (LOOPBACK, target))
        from_server, to_server = await self._stream(server, None)

        async def request(data: bytes) -> bool:
            budget = self._rules.budget
            cut = budget is not None and len(data) >= budget
            if budget is not None:
                data = data[:budget]
                self._rules.budget = None if cut else budget - len(data)
            self._rules.counters.request_bytes += len(data)
            to_server.write(data)
            if cut:
                to_server.close()  # not reset: what is written still arrives
                _reset(self._sockets[0], to_client)
                return False
            await to_server.drain()
            return True

        async def reply(data: bytes) -> bool:
            passed = self._rules.passed(data)
            if passed is not None:
                to_client.write(passed)
                to_client.close() if self._rules.end_softly else _reset(self._sockets[0], to_client)
                return False
            self._mute = self._mute or self._rules.swallow
            if not self._mute:
                self._rules.counters.reply_bytes += len(data)
                to_client.write(data)
                await to_client.drain()
            return True

        directions = [
            asyncio.ensure_future(self._pipe(from_client, request)),
            asyncio.ensure_future(self._pipe(from_server, reply)),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    def reset(self) -> None:
        """RST both ways; nothing if they are closed."""
        for number, end in enumerate(self._sockets):
            _reset(end, self._writers[number] if number < len(self._writers) else None)

    async def _stream(
        self, end: socket.socket, tls: ssl.SSLContext | None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=CHUNK)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, end, ssl=tls)
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        self._writers.append(writer)
        return reader, writer

    async def _pipe(self, reader: asyncio.StreamReader, deliver: Callable[[bytes], Awaitable[bool]]) -> None:
        """Deliver each chunk `delay` after it came, in order, however many are on their way; return at the end."""
        loop = asyncio.get_running_loop()
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(IN_FLIGHT)

        async def receive() -> None:
            data = b"first"
            while data:
                await self._rules.moving.wait()
                try:
                    data = await reader.read(CHUNK)
                except OSError:
                    data = b""
                await on_the_way.put((loop.time() + self._rules.delay, data))

        receiving = asyncio.create_task(receive())
        try:
            while True:
                due, data = await on_the_way.get()
                if due > loop.time():
                    await asyncio.sleep(due - loop.time())
                await self._rules.moving.wait()
                if not data or not await deliver(data):
                    return
        except OSError:
            return
        finally:
            receiving.cancel()


def _reset(end: socket.socket, writer: asyncio.StreamWriter | None) -> None:
    with suppress(OSError):  # closed before
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if writer is None:
        end.close()
    else:
        writer.transport.abort()
