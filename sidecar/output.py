"""Lines for standard output or standard error, written by a thread: a reader that stops reading blocks no caller."""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable

_MAX_BYTES = 1 << 20
_AT_ONCE_BYTES = 4096  # PIPE_BUF: such a write is whole or not there at all, even if the process ends meanwhile


class Output:
    """Writes whole lines in their order. Any thread may call it."""

    def __init__(
        self, fd: int, *, failed: Callable[[int, OSError], None], every_second: Callable[[], None] = lambda: None
    ) -> None:
        """`failed` gets the number of lines that could not be written, and the error. The thread calls both."""
        self._fd = fd
        self._failed = failed
        self._every_second = every_second
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._closing = False
        self._thread = threading.Thread(target=self._work, name=f"output {fd}", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a line is waiting, behind the one that is being written."""
        return bool(self._lines)

    def put(self, line: bytes) -> bool:
        """Write the line soon; False if too much is waiting, and the line is left out."""
        with self._changed:
            if self._size + len(line) > _MAX_BYTES:
                return False
            self._lines.append(line)
            self._size += len(line)
            self._changed.notify()
        return True

    def close(self, seconds: float) -> None:
        """Write the waiting lines, for at most `seconds`."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(seconds)

    def _work(self) -> None:
        while (lines := self._next()) is not None:
            if lines:
                try:
                    self._write(lines)
                except OSError as error:
                    self._failed(lines.count(b"\n"), error)
                with self._changed:
                    self._size -= len(lines)
            else:
                self._every_second()

    def _next(self) -> bytes | None:
        """The lines to write; empty after a second without any, None at the end."""
        with self._changed:
            if not self._lines and not self._closing:
                self._changed.wait(1)
            if not self._lines:
                return None if self._closing else b""
            lines = [self._lines.popleft()]
            size = len(lines[0])
            while self._lines and size + len(self._lines[0]) <= _AT_ONCE_BYTES:
                size += len(self._lines[0])
                lines.append(self._lines.popleft())
            return b"".join(lines)

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # another process made the pipe non-blocking; this thread may wait
                select.select([], [self._fd], [])
