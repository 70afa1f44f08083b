"""When a failed attempt is made again. One rule, in code, for both APIs and for streams.

gRPC's own retry policy is not used: it ends after five attempts, does not know RetryInfo, and when the deadline comes
in its back-off it reports DEADLINE_EXCEEDED in place of the cause ("connection refused").
"""

from __future__ import annotations

import copy
import random
import time

import grpc

from modelready.errors import DeadlineExceeded, OutcomeUnknown, PublishError

_TRANSIENT = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,  # OUTCOME_UNKNOWN too: the id makes the retry safe
        grpc.StatusCode.CANCELLED,  # by the sidecar, of a call that it had not accepted when it stopped
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
# From the sidecar these are defects, with a reason. Without one they are gRPC's own words for a connection that broke.
_TRANSIENT_UNLESS_SAID = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN})


def is_transient(error: PublishError) -> bool:
    """Whether a later attempt may succeed with nobody's help."""
    return error.code in _TRANSIENT or (error.code in _TRANSIENT_UNLESS_SAID and not error.reason)


def backoff(attempt: int) -> float:
    """Seconds before attempt number `attempt` + 2: up to 0.1, 0.2, 0.4, 0.8, 1.0, with jitter."""
    return random.uniform(0.5, 1.0) * min(1.0, 0.1 * 2.0 ** min(attempt, 10))  # noqa: S311 - spreads load, hides nothing


def delay_after(error: PublishError, attempt: int) -> float:
    """Seconds to wait after this failure: what the sidecar asked for, or the back-off."""
    return error.retry_after or backoff(attempt)


def remember(before: PublishError | None, error: PublishError) -> PublishError:
    """The error to go on with: that an earlier attempt may have succeeded is not forgotten over one that did not."""
    return before if isinstance(before, OutcomeUnknown) and is_transient(error) else error


def out_of_time(last: PublishError | None, deadline: PublishError) -> PublishError:
    """The error of a call whose last attempt had no answer in time: that of the attempt before, if there was one.

    It says more: the sidecar's reason. The deadline is its cause, since the last attempt may have succeeded.
    """
    if last is None:
        return deadline
    error = copy.copy(last)
    error.args = (f"{last.message} (and then no answer in time: it may be in the queue)",)
    error.__cause__ = deadline
    return error


class Attempts:
    """The attempts of one call within its time."""

    def __init__(self, timeout: float) -> None:
        self._deadline = time.monotonic() + timeout
        self._failed = 0
        self._last: PublishError | None = None

    def remaining(self) -> float:
        """Seconds that the next attempt may take."""
        return max(self._deadline - time.monotonic(), 0.001)

    def delay_after(self, error: PublishError) -> float:
        """Seconds to wait before the next attempt. Raises the error where none can help or no time is left for it."""
        if isinstance(error, DeadlineExceeded):
            raise out_of_time(self._last, error)
        delay = delay_after(error, self._failed)
        if not is_transient(error) or delay >= self.remaining():
            raise remember(self._last, error) from self._last
        self._failed += 1
        self._last = remember(self._last, error)
        return delay
