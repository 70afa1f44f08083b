"""Publishing after a registration without an outbox, for those who accept the risk.

An event is lost if the process dies between its commit and the receipt, or if the sidecar is away for longer than the
publisher's `timeout`. `modelready.outbox` loses none.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from modelready.errors import PublishError
from modelready.event import EventFields

if TYPE_CHECKING:
    from modelready import aio
    from modelready.publisher import Publisher

logger = logging.getLogger(__name__)

OnError = Callable[[PublishError], object]
"""Is given the error of an event that was not acknowledged, though its registration is committed."""

Function = TypeVar("Function", bound=Callable[..., Any])


def log(error: PublishError) -> None:
    """Log the error, with the id to publish the event with again."""
    logger.error("the event %s was not published after its commit: %s", error.event_id, error.message)


def publishes_model_ready(
    publisher: Publisher | aio.Publisher, fields: Callable[[Any], EventFields | None], *, on_error: OnError = log
) -> Callable[[Function], Function]:
    """Decorates a function that registers a version: publishes an event after it has returned.

    The function must have committed by then. `fields` makes of its result the keywords of `Publisher.publish`, or None
    for no event. Nothing is published where the function raises. A PublishError is given to `on_error`, and the
    function's result is returned all the same. A coroutine function takes an `aio.Publisher`, any other a `Publisher`.

        @publishes_model_ready(publisher, lambda made: {"name": made.name, "version": made.number, "uri": made.uri})
        def register(name, uri): ...
    """

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def blocking(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            if (known := fields(result)) is not None:
                try:
                    publisher.publish(**known)
                except PublishError as error:
                    on_error(error)
            return result

        @functools.wraps(function)
        async def asynchronous(*args: Any, **kwargs: Any) -> Any:
            result = await function(*args, **kwargs)
            if (known := fields(result)) is not None:
                try:
                    await publisher.publish(**known)  # type: ignore[misc]
                except PublishError as error:
                    on_error(error)
            return result

        is_coroutine = inspect.iscoroutinefunction(function)
        if is_coroutine != inspect.iscoroutinefunction(publisher.publish):
            raise TypeError("a coroutine function takes a modelready.aio.Publisher, any other a modelready.Publisher")
        return asynchronous if is_coroutine else blocking  # type: ignore[return-value]

    return decorate
