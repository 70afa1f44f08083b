"""How a command ends: by its exit code and at most one line on standard error, never by a traceback."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable
from functools import wraps

Run = Callable[[argparse.Namespace], int]
INTERRUPTED = 130


class Failed(Exception):
    """The command failed; the text is one line that says what to do.

    `transient`: a later attempt may succeed by itself.
    """

    code = 1

    def __init__(self, text: str, *, transient: bool = False) -> None:
        super().__init__(text)
        self.transient = transient


class Misused(Failed):
    """The command was used in a wrong way."""

    code = 2


def without_traceback(run: Run) -> Run:
    """Failed and Ctrl-C end the command with their exit codes, a closed pipe with 0: its reader has left."""

    @wraps(run)
    def ended(options: argparse.Namespace) -> int:
        if isinstance(sys.stdout, io.TextIOWrapper):  # escape characters that the encoding lacks
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            code = run(options)
            sys.stdout.flush()
        except Failed as failure:
            print(f"modelready-sidecar: {failure}", file=sys.stderr)
            return failure.code
        except KeyboardInterrupt:
            return INTERRUPTED
        except BrokenPipeError:
            mute()
            return 0
        return code

    return ended


def mute() -> None:
    """Standard output has no reader any more; without this Python would complain when it flushes it at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
