"""Callers who break off or do not read: HTTP/2 by hand, since no client of grpc would do it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import BinaryIO, Self

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_INITIAL_WINDOW = 65535


def header(name: bytes, value: bytes) -> bytes:
    """A literal header field without indexing, RFC 7541 section 6.2.2; lengths here are below 127."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def read_frame(stream: BinaryIO) -> tuple[int, int, bytes]:
    """Its kind, flags and payload."""
    head = stream.read(9)
    if len(head) < 9:
        raise ConnectionError("the connection was closed")
    return head[3], head[4], stream.read(int.from_bytes(head[:3]))


class Stranger:
    """A connection with one call, whose request has `size` bytes and lacks the last."""

    def __init__(self, address: str, method: str, size: int, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), 5)
        fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"localhost"), (b"te", b"trailers")]
        fields += [(b":path", f"/{method}".encode()), (b"content-type", b"application/grpc"), *headers]
        fields.sort(key=lambda field: not field[0].startswith(b":"))
        block = b"".join(header(*field) for field in fields)
        self._socket.sendall(PREFACE + frame(SETTINGS, 0, 0, b"") + frame(HEADERS, 4, 1, block))
        self._socket.setblocking(False)
        self._rest = b"\0" + struct.pack(">I", size) + bytes(size - 1)
        self._received = b""
        self._initial = self._stream = self._connection = _INITIAL_WINDOW
        self.ended = False

    def go_on(self) -> bool:
        """Send what the windows let through; whether anything was sent or received."""
        before = len(self._rest), self.ended
        received = self._receive()
        while self._rest and not self.ended:
            length = min(16384, self._stream, self._connection, len(self._rest))
            if length <= 0 or not self._send(frame(DATA, 0, 1, self._rest[:length])):
                break
            self._rest = self._rest[length:]
            self._stream -= length
            self._connection -= length
        return received or before != (len(self._rest), self.ended)

    def _send(self, data: bytes) -> bool:
        self._socket.setblocking(True)
        try:
            self._socket.sendall(data)
        except OSError:
            self.ended = True
        self._socket.setblocking(False)
        return not self.ended

    def _receive(self) -> bool:
        try:
            data = self._socket.recv(1 << 16)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        self.ended = self.ended or not data
        self._received += data
        while len(self._received) >= 9 + (length := int.from_bytes(self._received[:3])):
            kind, flags, stream = struct.unpack(">BBI", self._received[3:9])
            payload, self._received = self._received[9 : 9 + length], self._received[9 + length :]
            self._take(kind, flags, stream, payload)
        return bool(data)

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == WINDOW_UPDATE and stream:
            self._stream += int.from_bytes(payload)
        elif kind == WINDOW_UPDATE:
            self._connection += int.from_bytes(payload)
        elif kind == SETTINGS and not flags & 1:
            for name, value in struct.iter_unpack(">HI", payload):
                if name == 4:  # SETTINGS_INITIAL_WINDOW_SIZE
                    self._stream, self._initial = self._stream + value - self._initial, value
            self._send(frame(SETTINGS, 1, 0, b""))
        elif kind == PING and not flags & 1:
            self._send(frame(PING, 1, 0, payload))
        elif kind in (RST_STREAM, GOAWAY) or (kind == HEADERS and flags & 1):
            self.ended = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
