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
    """The command could not do what it was asked for; the text is one line that says what to do.

    `transient`: a later attempt may succeed with nobody's help.
    """

    code = 1

    def __init__(self, text: str, *, transient: bool = False) -> None:
        super().__init__(text)
        self.transient = transient


class Misused(Failed):
    """It was asked for something that it does not offer."""

    code = 2


def quietly(run: Run) -> Run:
    """Failed and Ctrl-C end it with their exit code, and a closed pipe with 0: the reader has had enough."""

    @wraps(run)
    def ended(options: argparse.Namespace) -> int:
        if isinstance(sys.stdout, io.TextIOWrapper):  # an encoding that lacks a character gets its escape
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
    """Nobody reads standard output any more; without this Python would complain when it flushes it at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
