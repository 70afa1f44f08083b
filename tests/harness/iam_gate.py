"""Stands before a Redis as ElastiCache does with IAM: TLS, and only a token that was signed right logs in."""

import asyncio
import hashlib
import hmac
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, quote, urlsplit

from .certificates import TLSFiles
from .ports import LOOPBACK, PortLease
from .redis_server import ADMIN, ADMIN_PASSWORD, RedisServer


def sigv4(query: dict[str, str], *, host: str, when: str, secret: str, region: str) -> str:
    """The signature of a GET, as AWS's reference describes it."""
    pairs = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in query.items())
    canonical = "&".join(f"{name}={value}" for name, value in pairs)
    request = "\n".join(["GET", "/", canonical, f"host:{host}", "", "host", hashlib.sha256(b"").hexdigest()])
    scope = f"{when[:8]}/{region}/elasticache/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", when, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{secret}".encode()
    for part in [*scope.split("/"), text]:
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex()


@dataclass(frozen=True)
class Signer:
    """Whom the gate lets in: an ElastiCache user of a cache, with the AWS key that must have signed."""

    user: str
    cluster: str
    region: str
    key_id: str
    secret: str

    def objection(self, user: str, token: str, now: datetime) -> str:
        """Why the token is refused at that time; empty where it is good."""
        url = urlsplit(f"//{token}")
        query = dict(parse_qsl(url.query))
        signature, when = query.pop("X-Amz-Signature", ""), query.get("X-Amz-Date", "")
        try:
            signed_at = datetime.strptime(when, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            age, longest = now - signed_at, timedelta(seconds=int(query["X-Amz-Expires"]))
        except (KeyError, ValueError):
            return "it is no signed request"
        expected = {
            "Action": "connect",
            "User": user,
            "X-Amz-Credential": f"{self.key_id}/{when[:8]}/{self.region}/elasticache/aws4_request",
            "X-Amz-SignedHeaders": "host",
        }
        if user != self.user or url.netloc != self.cluster or expected.items() - query.items():
            return "it is for something else"
        if not timedelta(minutes=-5) < age < min(longest, timedelta(minutes=15)):
            return "it has expired"
        right = sigv4(query, host=self.cluster, when=when, secret=self.secret, region=self.region)
        return "" if hmac.compare_digest(signature, right) else "the signature is wrong"


class IamGate:
    """In a thread of its own, on a free loopback port. A context manager.

    `tokens` are those that were let in, one a connection; `objections` say why others were not. A connection is ended
    `most_seconds` after its login, as ElastiCache does after 12 hours; `cut_short` counts those that were still in use:
    that had asked for something in the second half of that time.
    """

    def __init__(self, server: RedisServer, tls: TLSFiles, signer: Signer, most_seconds: float | None = None) -> None:
        self.host = LOOPBACK
        self._lease = PortLease()
        self.port = self._lease.port
        self.tokens: list[str] = []
        self.objections: list[str] = []
        self.cut_short = 0
        self._server, self._signer, self._most_seconds = server, signer, most_seconds
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(tls.cert, tls.key)
        self._open: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()), name="iam-gate")

    def cut(self) -> None:
        """End all connections of this moment."""
        self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in self._open])

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._closed.set)
        self._thread.join()
        self._lease.release()

    async def _live(self) -> None:
        self._loop, self._closed = asyncio.get_running_loop(), asyncio.Event()
        listener = await asyncio.start_server(self._accept, self.host, self.port, ssl=self._context)
        self._ready.set()
        await self._closed.wait()
        listener.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with suppress(OSError, EOFError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        command = await _command(reader)  # HELLO 3 AUTH <user> <token> ...
        at = command.index(b"AUTH") + 1 if b"AUTH" in command else 0
        user, token = (part.decode() for part in command[at : at + 2]) if at else ("", "")
        if objection := self._signer.objection(user, token, datetime.now(UTC)):
            self.objections.append(objection)
            writer.write(b"-WRONGPASS invalid username-password pair or user is disabled.\r\n")
            await writer.drain()
            return
        self.tokens.append(token)
        command[at : at + 2] = [ADMIN.encode(), ADMIN_PASSWORD.encode()]
        upstream, downstream = await asyncio.open_connection(self._server.host, self._server.port)
        try:
            downstream.write(b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in command))
            asking, answering = _Pass(reader, downstream), _Pass(upstream, writer)
            both = {asyncio.ensure_future(each.run()) for each in (asking, answering)}
            try:
                ended, _ = await asyncio.wait(both, timeout=self._most_seconds, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in both:
                    each.cancel()
            if not ended and self._most_seconds:
                self.cut_short += time.monotonic() - asking.last < self._most_seconds / 2
        finally:
            downstream.transport.abort()


async def _command(reader: asyncio.StreamReader) -> list[bytes]:
    parts = []
    for _ in range(int((await reader.readline())[1:])):
        length = int((await reader.readline())[1:])
        parts.append((await reader.readexactly(length + 2))[:-2])
    return parts


class _Pass:
    """One direction of a connection. `last`: when something came, time.monotonic()."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.last = 0.0
        self._reader, self._writer = reader, writer

    async def run(self) -> None:
        while some := await self._reader.read(1 << 16):
            self.last = time.monotonic()
            self._writer.write(some)
            await self._writer.drain()
