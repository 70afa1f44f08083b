"""Callers who break off or do not read: HTTP/2 by hand, since no client of grpc would do it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Self

from sidecar.cli import health

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_INITIAL_WINDOW = 65535


class Stranger:
    """A connection with one call, whose request has `size` bytes and lacks the last."""

    def __init__(self, address: str, method: str, size: int, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), 5)
        fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"localhost"), (b"te", b"trailers")]
        fields += [(b":path", f"/{method}".encode()), (b"content-type", b"application/grpc"), *headers]
        fields.sort(key=lambda field: not field[0].startswith(b":"))
        block = b"".join(health._header(*field) for field in fields)
        self._socket.sendall(health._PREFACE + health._frame(SETTINGS, 0, 0, b"") + health._frame(HEADERS, 4, 1, block))
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
            if length <= 0 or not self._send(health._frame(DATA, 0, 1, self._rest[:length])):
                break
            self._rest = self._rest[length:]
            self._stream -= length
            self._connection -= length
        return received or before != (len(self._rest), self.ended)

    def _send(self, frame: bytes) -> bool:
        self._socket.setblocking(True)
        try:
            self._socket.sendall(frame)
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
            self._send(health._frame(SETTINGS, 1, 0, b""))
        elif kind == PING and not flags & 1:
            self._send(health._frame(PING, 1, 0, payload))
        elif kind in (RST_STREAM, GOAWAY) or (kind == HEADERS and flags & 1):
            self.ended = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
