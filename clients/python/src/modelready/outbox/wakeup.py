"""Wakes a relay when there may be something to publish: by NOTIFY on PostgreSQL, by `set` everywhere."""

from __future__ import annotations

import selectors
import socket
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, Engine

from modelready.outbox.table import NAME

_DRIVERS = ("psycopg", "psycopg2")  # their connections have a file descriptor, which a selector waits for


class Wakeup:
    """A hint only: a NOTIFY is lost while its connection is, and always behind a PgBouncer that pools transactions."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._listens = engine.dialect.name == "postgresql" and engine.dialect.driver in _DRIVERS
        self._connection: Connection | None = None
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def set(self) -> None:
        """End a `wait`, or the next. From any thread."""
        with suppress(OSError):  # the buffer is full: it is set; or it is closed
            self._writer.send(b"!")

    def clear(self) -> None:
        """Forget what was set, before a look at the table. Listens again where the connection was lost."""
        with suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass
        if self._listens and self._connection is None:
            self._listen()

    def wait(self, seconds: float) -> None:
        """Return when it is set, or after that time."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._reader, selectors.EVENT_READ)
            if self._connection is not None:
                try:
                    selector.register(self._raw().fileno(), selectors.EVENT_READ)
                except Exception:  # noqa: BLE001 - each driver has its own error for a connection that is closed
                    self._disconnect()
            ready = selector.select(seconds)
        if any(key.fileobj is not self._reader for key, _ in ready):
            self._drain()

    def close(self) -> None:
        """Stop listening."""
        self._disconnect()
        self._reader.close()
        self._writer.close()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.invalidate()  # in the pool it would go on listening
            self._connection.close()
            self._connection = None

    def _raw(self) -> Any:
        assert self._connection is not None
        return self._connection.connection.driver_connection

    def _listen(self) -> None:
        try:
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            connection.exec_driver_sql(f"LISTEN {NAME}")
        except Exception:  # noqa: BLE001 - of the driver, or of what gives it a password
            return  # the relay meets the same failure, and logs it
        self._connection = connection

    def _drain(self) -> None:
        """Take the notifications. Where the connection broke, the next `clear` makes another."""
        try:
            if self._engine.dialect.driver == "psycopg2":
                self._raw().poll()
                self._raw().notifies.clear()
            else:
                for _ in self._raw().notifies(timeout=0):
                    pass
        except Exception:  # noqa: BLE001 - each driver has its own errors
            self._disconnect()
