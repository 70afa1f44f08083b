"""The health command: /healthz by HTTP, else one gRPC call, spoken by hand over a bare socket.

HTTP is answered by a thread of its own, in milliseconds while thousands of calls wait; a gRPC call waits behind them.
It counts where the answer says that it comes from the sidecar at that gRPC address; elsewhere gRPC is asked.

A container's health check runs every few seconds beside the sidecar on a fraction of a CPU; importing grpc for it costs
many times the call. HTTP/2 is used in its simplest form: prior knowledge, no Huffman coding, one stream.
"""

from __future__ import annotations

import json
import socket
import struct
import sys

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_SERVING = 1
_MAX_BYTES = 64 * 1024


def check(address: str, service: str, timeout: float, *, http: str = "", tls: bool = False) -> int:
    """Print the status and return 0 where it is SERVING, else 1. `http`: SIDECAR_HTTP_LISTEN; empty: not asked."""
    try:
        status = ask_http(http, address, service, timeout) if http else None
        if status is None:
            status = ask(address, service, timeout, tls=tls)
    except (OSError, ValueError) as error:
        print(f"not healthy: {address}: {error}", file=sys.stderr)
        return 1
    print("SERVING" if status == _SERVING else "NOT_SERVING")
    return 0 if status == _SERVING else 1


def ask_http(http: str, address: str, service: str, timeout: float) -> int | None:
    """The number of the serving status; None where that sidecar does not answer there.

    Raises TimeoutError where it does not in time, ValueError for an unknown name.
    """
    try:
        with _connect(http, timeout, tls=False) as connection:
            connection.settimeout(timeout)
            connection.sendall(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
            with connection.makefile("rb") as stream:
                head, _, body = stream.read(_MAX_BYTES).partition(b"\r\n\r\n")
    except TimeoutError:
        raise
    except OSError:
        return None
    try:
        said = json.loads(body)
        if address not in said["listen"]:
            return None
        statuses = said["statuses"]
    except (ValueError, LookupError, TypeError):
        return None
    if service not in statuses:
        raise ValueError(f"no service {service!r}")
    return int(statuses[service]) if b" 200 " in head.partition(b"\r\n")[0] else 0


def ask(address: str, service: str, timeout: float, *, tls: bool = False) -> int:
    """The number of the serving status. Raises OSError, or ValueError for an answer that is none.

    `tls`: spoken where the address is no unix socket. The certificate is not verified: it is asked whether our own
    server answers, and nothing secret is said. Where clients need a certificate, listen on a unix socket as well.
    """
    with _connect(address, timeout, tls=tls) as connection:
        connection.settimeout(timeout)
        name = service.encode()
        message = (b"\n" + bytes([len(name)]) + name) if name else b""
        body = b"\0" + struct.pack(">I", len(message)) + message
        headers = b"".join(
            _header(key, value)
            for key, value in (
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", b"/grpc.health.v1.Health/Check"),
                (b":authority", b"localhost"),
                (b"content-type", b"application/grpc"),
                (b"te", b"trailers"),
            )
        )
        connection.sendall(
            _PREFACE
            + _frame(_SETTINGS, 0, 0, b"")
            + _frame(_HEADERS, _END_HEADERS, 1, headers)
            + _frame(_DATA, _END_STREAM, 1, body)
        )
        with connection.makefile("rb") as stream:
            while True:
                kind, flags, payload = _read(stream.read)
                if kind == _SETTINGS and not flags & _ACK:
                    connection.sendall(_frame(_SETTINGS, _ACK, 0, b""))
                elif kind == _PING and not flags & _ACK:
                    connection.sendall(_frame(_PING, _ACK, 0, payload))
                elif kind == _DATA and len(payload) >= 5:
                    return payload[6] if len(payload) >= 7 else 0
                elif kind in (_RST, _GOAWAY) or (kind == _HEADERS and flags & _END_STREAM):
                    raise ValueError("the call was refused (an unknown service name?)")


def _connect(address: str, timeout: float, *, tls: bool) -> socket.socket:
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout)
        connection.connect(address.removeprefix("unix:"))
        return connection
    host, _, port = address.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host).strip("[]")  # noqa: S104 - read, not bound
    connection = socket.create_connection((host, int(port)), timeout)
    if not tls:
        return connection
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context.wrap_socket(connection)


def _header(name: bytes, value: bytes) -> bytes:
    """A literal header field without indexing, RFC 7541 section 6.2.2; lengths here are below 127."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _read(read: object) -> tuple[int, int, bytes]:
    assert callable(read)
    head = read(9)
    if len(head) < 9:
        raise ValueError("the connection was closed")
    length = int.from_bytes(head[:3], "big")
    return head[3], head[4], read(length)
