"""The checks below Redis's protocol: the name, the connection, TLS. Each opens a socket of its own, without a login."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from operator import itemgetter
from typing import Any

from modelready.redis.faults import fault
from modelready.redis.settings import RedisSettings
from modelready.redis.sockets import Resolver, connect_to
from sidecar.cli.doctor.findings import EXPIRES_SOON_DAYS
from sidecar.cli.doctor.report import Report

_PING = b"PING\r\n"
_UNTRUSTED = {9: "tls-not-yet-valid", 10: "tls-expired", 62: "tls-name", 64: "tls-name"}  # X509_V_ERR_*, OpenSSL's


class _Closed(Exception):
    """The server closed the connection after a successful handshake."""


def check_dns(report: Report, redis: RedisSettings) -> bool:
    """Whether the host's name leads to an address."""
    try:
        found = socket.getaddrinfo(redis.host, redis.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        report.add("dns-unresolved", f"{_host(redis)} does not resolve: {_words(error)}")
        return False
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    report.ok("dns", f"{_host(redis)} is {', '.join(addresses)}")
    return True


def check_tcp(report: Report, redis: RedisSettings) -> bool:
    """Whether a connection opens, to each address of the host: the sidecar takes the first that answers."""
    where = f"{_host(redis)}:{redis.port}"
    reached, dead = asyncio.run(_try_addresses(redis))
    mute = [address for address, error in dead.items() if isinstance(error, TimeoutError)]
    if reached and mute:  # one that refuses delays nothing
        text = f"{where} takes connections at {', '.join(reached)}, but {', '.join(mute)}"
        report.add("tcp-address-dead", f"{text} {_why(redis, TimeoutError())}")
    elif reached:
        peer, seconds = min(reached.items(), key=itemgetter(1))
        report.ok("tcp", f"{where} takes connections, {seconds * 1000:.1f} ms to {peer}")
    else:
        error = next(iter(dead.values()))
        finding = "tcp-unreachable"
        if isinstance(error, ConnectionRefusedError | TimeoutError):
            finding = "tcp-refused" if isinstance(error, ConnectionRefusedError) else "tcp-timeout"
        report.add(finding, f"{where} {_why(redis, error)}")
    return bool(reached)


async def _try_addresses(redis: RedisSettings) -> tuple[dict[str, float], dict[str, OSError]]:
    """The addresses that take a connection, with the seconds that it took, and the others, with why they do not."""
    reached: dict[str, float] = {}
    dead: dict[str, OSError] = {}

    async def reach(family: int, address: tuple[Any, ...]) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(redis.timeout):
                (await connect_to((family, address))).close()
        except OSError as error:
            dead[str(address[0])] = error
        else:
            reached[str(address[0])] = time.monotonic() - began

    found = socket.getaddrinfo(redis.host, redis.port, type=socket.SOCK_STREAM)
    await asyncio.gather(*(reach(family, address) for family, *_, address in found))
    return reached, dead


def _why(redis: RedisSettings, error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "refuses connections"
    if isinstance(error, TimeoutError):
        return f"does not answer within {redis.timeout:g} s"
    return f"cannot be reached: {_words(error)}"


def check_tls(report: Report, redis: RedisSettings, context: ssl.SSLContext | None) -> bytes | None:
    """Return what the server answers to a PING without a login; None where it cannot be spoken to."""
    return _check_plain(report, redis) if context is None else _check_encrypted(report, redis, context)


def _check_plain(report: Report, redis: RedisSettings) -> bytes | None:
    reply = _ask_plainly(redis)
    if reply is not None and _is_redis(reply):
        report.ok("tls", "off, and the server speaks plain TCP")
        return reply
    if _speaks_tls(redis):
        report.add("tls-server-tls", "REDIS_TLS is off, but the server speaks TLS")
    else:
        _add_stranger(report, redis, reply)
    return None


def _check_encrypted(report: Report, redis: RedisSettings, context: ssl.SSLContext) -> bytes | None:
    try:
        reply, expires = _ask_encrypted(redis, context)
    except (OSError, _Closed) as error:
        _explain(report, redis, context, error)
        return None
    if not _is_redis(reply):
        _add_stranger(report, redis, reply)
        return None
    days = (expires - time.time()) / 86400
    until = time.strftime("%Y-%m-%d", time.gmtime(expires))
    if days < EXPIRES_SOON_DAYS:
        report.add("tls-expires-soon", f"the server's certificate is valid until {until}, {days:.0f} more days")
    else:
        report.ok("tls", f"the server's certificate is trusted, for {redis.host}, and valid until {until}")
    return reply


def _explain(report: Report, redis: RedisSettings, context: ssl.SSLContext, error: Exception) -> None:
    """Say why TLS failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        finding = _UNTRUSTED.get(error.verify_code, "tls-untrusted")
        names = f"; it is for {', '.join(_names(redis, context))}" if finding == "tls-name" else ""
        report.add(finding, f"the server's certificate is not accepted: {error.verify_message.rstrip('.')}{names}")
    elif isinstance(error, _Closed):
        report.add(
            "tls-client-certificate",
            "the server ends the connection after the handshake: it requires a client certificate",
        )
    elif fault(error).reason == "REDIS_CERTIFICATE":
        ours = "does not accept ours, REDIS_TLS_CERT_FILE" if redis.tls_cert_file else "got none"
        report.add("tls-client-certificate", f"the server asks for a client certificate and {ours}: {_words(error)}")
    elif _is_redis(_ask_plainly(redis) or b""):
        report.add("tls-server-plain", "REDIS_TLS is on, but the server speaks plain TCP")
    elif isinstance(error, TimeoutError):
        _add_stranger(report, redis, None)
    else:
        report.add("tls-handshake", f"the TLS handshake failed: {_words(error)}")


def _add_stranger(report: Report, redis: RedisSettings, reply: bytes | None) -> None:
    """Report a `reply` to our PING that is missing or not from Redis."""
    if reply is None:
        report.add("tls-no-answer", f"connected, but no answer to a PING within {redis.timeout:g} s")
    else:
        said = f"answers {reply[:60].decode(errors='replace')!a}" if reply else "closes the connection"
        report.add("tls-no-redis", f"what listens there {said}: that is no Redis")


def _ask_encrypted(redis: RedisSettings, context: ssl.SSLContext) -> tuple[bytes, float]:
    """The reply to a PING, and when the certificate expires. Raises OSError, ssl's too, and _Closed."""
    with _encrypted(redis, context) as connection:
        # In TLS 1.3 a server reports a missing client certificate only now.
        try:
            reply = _ask(connection)
        except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            raise _Closed from error
        if not reply:
            raise _Closed
        certificate = connection.getpeercert() or {}
    return reply, ssl.cert_time_to_seconds(str(certificate["notAfter"]))


def _ask_plainly(redis: RedisSettings) -> bytes | None:
    """The reply to a PING in plain TCP: empty where the server closes, None where nothing comes."""
    try:
        with _connect(redis) as connection:
            return _ask(connection)
    except TimeoutError:
        return None
    except OSError:
        return b""


def _ask(connection: socket.socket) -> bytes:
    connection.sendall(_PING)
    reply = b""
    while b"\n" not in reply and len(reply) < 512:
        part = connection.recv(512)
        if not part:
            break
        reply += part
    return reply


def _is_redis(reply: bytes) -> bool:
    return reply[:1] in (b"+", b"-") and reply.endswith(b"\r\n")


def _speaks_tls(redis: RedisSettings) -> bool:
    """Whether a handshake succeeds. Nothing is verified, and nothing is sent in it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with suppress(OSError), _encrypted(redis, context):
        return True
    return False


def _names(redis: RedisSettings, context: ssl.SSLContext) -> list[str]:
    """The names in a certificate that is trusted, but not for this host."""
    context.check_hostname = False
    with suppress(OSError), _encrypted(redis, context) as connection:
        return [str(entry[1]) for entry in (connection.getpeercert() or {}).get("subjectAltName", ())]
    return ["other names"]


@contextmanager
def _encrypted(redis: RedisSettings, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    """A TLS connection. Raises OSError, ssl's too."""
    host = redis.host.removesuffix(".")  # no certificate has the dot that a name may end with
    with _connect(redis) as plain, context.wrap_socket(plain, server_hostname=host) as connection:
        yield connection


def _connect(redis: RedisSettings) -> socket.socket:
    """A socket to the first address that answers, as the sidecar's. Raises OSError."""

    async def connect() -> socket.socket:
        async with asyncio.timeout(redis.timeout):
            return await Resolver().connect(redis.host, redis.port, redis.timeout)

    connection = asyncio.run(connect())
    connection.settimeout(redis.timeout)
    return connection


def _host(redis: RedisSettings) -> str:
    """The host as it is set, without what a URL may hold of a password."""
    return redis.host.rpartition("@")[2]


def _words(error: Exception) -> str:
    return str(getattr(error, "strerror", "") or error)
