"""Handlers of the consumers that block: they must not return a coroutine, which nobody would await."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

Argument = TypeVar("Argument")


def blocking(handler: Callable[[Argument], object]) -> Callable[[Argument], None]:
    """The handler, which then fails where it returns a coroutine: its event would be acknowledged and never handled.

    Raises TypeError for what is known to do so before its first call, and for what cannot be called.
    """
    if not callable(handler):
        raise TypeError(f"the handler is {handler!r}: it must be a function")
    for function in (handler, type(handler).__call__):
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError("the handler is a coroutine function: use it with its twin in asyncio, of modelready.aio")
        if inspect.isgeneratorfunction(function):
            raise TypeError("the handler has a yield, so that a call of it does nothing: it must be a function")

    def call(argument: Argument) -> None:
        result = handler(argument)
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError("the handler returned a coroutine, which nobody awaits here: use modelready.aio")

    return call
