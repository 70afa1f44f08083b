"""What can go wrong, in the project's own words.

    SettingsError                 a variable has a wrong value; ends the start
    SidecarError
    ├── RequestError              a call failed: an event was not acknowledged, or a request of an operator was
    │   │                         refused; has `reason`, a stable constant
    │   ├── InvalidEvent          the event breaks a rule; has `violations`
    │   │   └── InvalidRequest    another request does
    │   ├── NotFound              what the request names is not there
    │   ├── GroupExists           there is a consumer group with this name already
    │   ├── GroupInUse            the consumer group is being read
    │   ├── Overloaded            too many events wait in memory
    │   │   └── TooManyTails      too many calls follow the queue
    │   ├── ShuttingDown          the sidecar is stopping
    │   ├── QueueError            the queue in Redis did not take it
    │   │   ├── Unavailable       transient: a later attempt may succeed; `ambiguous` if it may be there already
    │   │   │   ├── AuthFailed    the credentials were refused; transient, since they rotate
    │   │   │   └── QueueFull     QUEUE_MAX_DEPTH is reached; nothing was sent
    │   │   ├── SetupFault        a person must fix the set-up: rights, a key of another type, a certificate
    │   │   └── Refused           Redis can never take this event, or it cannot be encoded
    │   └── SpoolError            the spool on disk did not take it
    │       ├── SpoolFull         SPOOL_MAX_BYTES is reached
    │       └── SpoolUnavailable  the disk is full, read-only or broken

An error's text reaches callers and logs: it never holds a secret or an event's content.
"""

from __future__ import annotations

from collections.abc import Sequence

from modelready import violations
from modelready.redis import env

SettingsError = env.SettingsError  # of both distributions, and so is the next
Violation = violations.Violation


class SidecarError(Exception):
    """The root of all errors but that one."""


class RequestError(SidecarError):
    """What a call asked for was not done; of a Publish: the event was not acknowledged."""

    reason = "INTERNAL"


class InvalidEvent(RequestError):
    """The event breaks rules of the contract."""

    reason = "INVALID_EVENT"

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations[:10]))
        self.violations = tuple(violations)


class InvalidRequest(InvalidEvent):
    """A request that is none to publish breaks rules of the contract."""

    reason = "INVALID_REQUEST"


class NotFound(RequestError):
    """What the request names is not there."""

    reason = "NOT_FOUND"


class GroupExists(RequestError):
    """There is a consumer group with this name already."""

    reason = "GROUP_EXISTS"


class GroupInUse(RequestError):
    """A consumer of the group asked for something lately, so the group is neither removed nor reset."""

    reason = "GROUP_IN_USE"


class Overloaded(RequestError):
    """More than SIDECAR_MAX_PENDING events wait in memory; nothing is kept."""

    reason = "OVERLOADED"


class TooManyTails(Overloaded):
    """So many calls follow the queue already that one more would keep publishing from Redis."""

    reason = "TOO_MANY_TAILS"


class ShuttingDown(RequestError):
    """The sidecar is stopping; nothing is kept."""

    reason = "SHUTTING_DOWN"


class QueueError(RequestError):
    """The queue in Redis did not take it; or some of it, or perhaps all, where it is `ambiguous`."""

    def __init__(self, text: str, *, reason: str = "", ambiguous: bool = False) -> None:
        super().__init__(text)
        self.ambiguous = ambiguous
        if reason:
            self.reason = reason


class Unavailable(QueueError):
    """Transient. `ambiguous`: the command was sent and its outcome is not known."""

    reason = "REDIS_UNAVAILABLE"

    def __init__(self, text: str, *, reason: str = "", ambiguous: bool = False) -> None:
        super().__init__(text, reason="OUTCOME_UNKNOWN" if ambiguous else reason, ambiguous=ambiguous)


class AuthFailed(Unavailable):
    """Redis refused the credentials, or there are none."""

    reason = "REDIS_AUTH_FAILED"


class QueueFull(Unavailable):
    """QUEUE_MAX_DEPTH is reached; nothing was sent."""

    reason = "QUEUE_FULL"


class SetupFault(QueueError):
    """A person must fix the set-up; the same attempt fails until then. Never a reason for a dead letter.

    `ambiguous`: it was met when some of the events were in the queue already.
    """

    reason = "REDIS_SETUP"


class Refused(QueueError):
    """Redis can never take this event."""

    reason = "REDIS_REFUSED"


class SpoolError(RequestError):
    """The spool did not take it; nothing is kept."""

    reason = "SPOOL_UNAVAILABLE"


class SpoolFull(SpoolError):
    """SPOOL_MAX_BYTES is reached."""

    reason = "SPOOL_FULL"


class SpoolUnavailable(SpoolError):
    """The disk is full, read-only or broken."""
