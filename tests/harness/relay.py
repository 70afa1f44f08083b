"""A TCP relay that stands for the network: it delays, swallows, stalls, cuts, refuses, and leads elsewhere."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from .certificates import TLSFiles
from .ports import LOOPBACK, PortLease
from .relayed import Connection, Counters, Rules

T = TypeVar("T")


class Relay:
    """Stands on a free loopback port in front of `target`, in a thread of its own. A context manager.

    Every control may be called from any thread, and holds when it returns.

    With `tls` it speaks TLS to the client and plain TCP to the target; with `client_ca` it asks the client for a
    certificate (in TLS 1.3 a client that has none learns so from its first read, not from the handshake).
    """

    def __init__(
        self, target: int, *, port: int = 0, tls: TLSFiles | None = None, client_ca: Path | None = None
    ) -> None:
        self.host = LOOPBACK
        self._lease = PortLease(port)
        self.port = self._lease.port
        self.counters = Counters()
        self._target = target
        self._client_ca = client_ca
        self._context = self._tls_context(tls) if tls else None
        self._open: dict[Connection, asyncio.Task[None]] = {}
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()), name=f"relay-{self.port}")
        self._ready = threading.Event()

    def delay(self, seconds: float) -> None:
        """Every byte arrives this much later, in both directions: a round trip takes twice as long.

        The handshakes of TCP and TLS are the relay's own, and not delayed.
        """
        self._call(lambda: self._rules.set_delay(seconds))

    def swallow_replies(self) -> None:
        """Requests go through, replies vanish."""
        self._call(lambda: self._rules.set_swallow(True))

    def pass_replies(self) -> None:
        """Replies pass again on other connections: one that lost bytes stays mute, as TCP never skips any."""
        self._call(lambda: self._rules.set_swallow(False))

    def stall(self) -> None:
        """Nothing moves in either direction. New connections are taken, as by the kernel of a host that hangs."""
        self._call(self._rules.moving.clear)

    def resume(self) -> None:
        """What was held back moves on."""
        self._call(self._rules.moving.set)

    def cut(self) -> None:
        """Reset all connections of this moment, at both ends; bytes on their way are lost."""
        self._call(self._cut)

    def cut_after(self, request_bytes: int) -> None:
        """Once: pass this many more bytes of requests, over all connections, then reset the one that sent the last.

        The server gets all of these bytes, the client no reply to them.
        """
        self._call(lambda: self._rules.set_budget(request_bytes))

    def cut_reply_after(self, reply_bytes: int | None, *, softly: bool = False) -> None:
        """Once: pass this many more bytes of replies, over all connections, then reset, or end, the one they went to.

        None: not any more.
        """
        self._call(lambda: self._rules.set_reply_budget(reply_bytes, softly))

    def refuse(self) -> None:
        """New connections are refused; those that are open live on."""
        self._call(self._stop_listening)

    def accept(self) -> None:
        """New connections are taken again, on the same port."""
        self._call(self._listen)

    def retarget(self, target: int) -> None:
        """New connections go to this port, like those after a change of a DNS name; those that are open live on."""
        self._target = target

    def use_certificate(self, tls: TLSFiles) -> None:
        """Handshakes from now on show this one."""
        self._context = self._tls_context(tls)

    def start(self) -> None:
        self._listener = self._bind()
        self._thread.start()
        self._ready.wait()

    def close(self) -> None:
        """Cut everything and end the thread. Again: no effect."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closed.set)
            self._thread.join()
        self._lease.release()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tls_context(self, tls: TLSFiles) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.cert, tls.key)
        if self._client_ca:
            context.load_verify_locations(self._client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _call(self, control: Callable[[], T]) -> T:
        """Run it in the relay's loop, and wait for it."""

        async def run() -> T:
            return control()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    # From here on: in the relay's thread.

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._closed = asyncio.Event()
        self._rules = Rules(self.counters)
        self._listen()
        self._ready.set()
        await self._closed.wait()
        self._stop_listening()
        cut = list(self._open.values())
        self._cut()
        await asyncio.gather(*cut, return_exceptions=True)

    def _bind(self) -> socket.socket:
        listener = socket.create_server((self.host, self.port), backlog=1024)
        listener.setblocking(False)
        return listener

    def _listen(self) -> None:
        if self._accepting is None:
            self._listener = self._listener or self._bind()
            self._accepting = self._loop.create_task(self._accept(self._listener))

    def _stop_listening(self) -> None:
        if self._listener is not None and self._accepting is not None:
            self._accepting.cancel()
            self._loop.remove_reader(self._listener)  # the cancelled task would do it only later, after close()
            self._listener.close()
            self._listener = self._accepting = None

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            client, _ = await self._loop.sock_accept(listener)
            self.counters.accepted += 1
            connection = Connection(self._rules, client)
            self._open[connection] = self._loop.create_task(self._relay(connection))
            self.counters.open = len(self._open)

    async def _relay(self, connection: Connection) -> None:
        try:
            await self._rules.moving.wait()
            with suppress(OSError):  # no server there, or no agreement on TLS
                await connection.carry(self._target, self._context)
        finally:
            connection.reset()
            self._open.pop(connection, None)
            self.counters.open = len(self._open)

    def _cut(self) -> None:
        for connection, task in self._open.items():
            connection.reset()
            task.cancel()
