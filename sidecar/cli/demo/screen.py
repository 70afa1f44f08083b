"""What the demo says: in colour on a terminal, plain elsewhere, with a progress line for what takes its time."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time


class Screen:
    """Standard output. Any thread may speak."""

    def __init__(self, *, plain: bool) -> None:
        terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._colour = terminal and not plain and not os.environ.get("NO_COLOR")
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._waiting = ""

    def title(self, text: str) -> None:
        """What comes next."""
        self._print(f"\n{self._paint('1', text)}")

    def line(self, who: str, text: str, colour: str = "0") -> None:
        """What somebody does or sees."""
        self._print(f"  {self._paint('2', f'{who:<9}')} {self._paint(colour, text)}")

    def block(self, text: str) -> None:
        """Several lines."""
        self._print("\n".join(f"  {line}".rstrip() for line in text.splitlines()))

    def waiting(self, what: str, seconds: float) -> None:
        """The progress line of what takes longer than a second: kept up to date on a terminal, said once elsewhere."""
        if seconds < 1:
            return
        text = f"  ... {what}, {seconds:.0f} s" if self._colour else f"  ... {what}"
        with self._lock:
            if text != self._waiting:
                self._waiting = text
                sys.stdout.write(f"\r\033[K{text}" if self._colour else f"{text}\n")
                sys.stdout.flush()

    def done(self) -> None:
        """All was as promised."""
        self._print(f"\n{self._paint('32', 'As promised')}, in {time.monotonic() - self._began:.1f} s.")

    def failed(self, text: str) -> None:
        """It was not."""
        self._print(f"\n{self._paint('31', 'NOT AS PROMISED')}: {text}")

    def _print(self, text: str) -> None:
        with self._lock:
            rewind = "\r\033[K" if self._colour and self._waiting else ""
            self._waiting = ""
            sys.stdout.write(f"{rewind}{text}\n")
            sys.stdout.flush()

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour else text


class Said(logging.Handler):
    """What a library logs, in the story's own form."""

    def __init__(self, screen: Screen, who: str) -> None:
        super().__init__(logging.WARNING)
        self._screen = screen
        self._who = who

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler.emit."""
        self._screen.line(self._who, record.getMessage(), "2")
