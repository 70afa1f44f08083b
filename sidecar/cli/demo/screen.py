"""What the demo says: in colour on a terminal, plain elsewhere."""

from __future__ import annotations

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
        self._scenes = 0

    def scene(self, text: str) -> None:
        """What comes next, numbered."""
        self._scenes += 1
        self.title(f"{self._scenes}  {text}")

    def title(self, text: str) -> None:
        """A line that stands out."""
        self._print(f"\n{self._paint('1', text)}")

    def line(self, who: str, text: str, colour: str = "0") -> None:
        """What somebody does or sees."""
        self._print(f"  {self._paint('2', f'{who:<9}')} {self._paint(colour, text)}")

    def block(self, text: str) -> None:
        """Several lines."""
        self._print("\n".join(f"  {line}".rstrip() for line in text.splitlines()))

    def waiting(self, what: str) -> None:
        """What takes longer than a second; said once."""
        if what != self._waiting:
            self._waiting = what
            self._print(f"  ... {what}")

    def done(self) -> None:
        """All was as promised."""
        self._print(f"\n{self._paint('32', 'As promised')}, in {time.monotonic() - self._began:.1f} s.")

    def failed(self, text: str) -> None:
        """It was not."""
        self._print(f"\n{self._paint('31', 'NOT AS PROMISED')}: {text}")

    def _print(self, text: str) -> None:
        with self._lock:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour else text
