"""One child process: started, signalled and ended by its id."""

import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from .processes import owned
from .waiting import patience


class Child:
    """A process that writes to a log file, and that can be started again after its end."""

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.command = list(command)
        self.log = log
        self.env = env
        self.frozen = False
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"never started: {self.command}"
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        assert not self.running, f"runs already: {self.command}"
        self.frozen = False
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for pytest, which ends its children in order
            )
        owned(self._process)

    def terminate(self, seconds: float) -> int:
        """SIGTERM, also to a frozen process, and the exit code; AssertionError after `patience(seconds)`."""
        self.process.terminate()
        self.thaw()
        try:
            return self.process.wait(patience(seconds))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.command} still runs after SIGTERM\n{self.tail()}") from None

    def kill(self) -> None:
        """SIGKILL, and wait for the end. A process that has ended, or never began, is left alone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        """SIGSTOP, and wait until it stands still: its sockets stay open, the kernel still takes bytes for it."""
        self.process.send_signal(signal.SIGSTOP)
        self.frozen = True
        if sys.platform == "linux":
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.frozen = False

    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def tail(self, lines: int = 20) -> str:
        return "\n".join(self.output().splitlines()[-lines:])


class Started(ABC):
    """What is started with its context, unless it was before, and closed after it."""

    @property
    @abstractmethod
    def running(self) -> bool: ...

    @abstractmethod
    def start(self) -> None:
        """Start it, and wait until it answers; AssertionError if it does not."""

    @abstractmethod
    def close(self) -> None:
        """End it, and remove what it wrote; also where it never began."""

    def __enter__(self) -> Self:
        try:
            if not self.running:
                self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
