"""Why an event was not acknowledged.

    PublishError             message, code, reason, retry_after, event_id, details
    ├── InvalidEvent         the event breaks a rule of the contract; has `violations`
    ├── Unavailable          no sidecar, or it can keep nothing now; a later attempt may succeed
    │   └── OutcomeUnknown   the event may be in the queue already
    ├── DeadlineExceeded     no receipt in time; the event may be in the queue already
    ├── ResourceExhausted    the queue, the spool or the sidecar's memory is full; `reason` says which
    ├── SetupFault           a person must fix the set-up: Redis rights, a key of another type, a certificate
    ├── Unauthenticated      the token is missing or wrong
    └── PermissionDenied     the token does not allow it

Whatever the error, publishing again with the same `event_id` is safe: it never makes a second entry.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from modelready import _unreached, violations
from modelready.rpc import error_details_pb2, status_pb2

Violation = violations.Violation

_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class PublishError(Exception):
    """An event was not acknowledged. Its text is `message`, and the event's id with what may be done with it.

    `code` is gRPC's, `reason` a stable constant ("" where the sidecar did not answer), `retry_after` the seconds after
    which the sidecar asks to be tried again, `event_id` the id to publish the same event with again, `details` what
    gRPC said where the sidecar did not answer.
    """

    _advice = "; publishing it again with this id is safe"

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        reason: str = "",
        retry_after: float | None = None,
        event_id: str = "",
        details: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.retry_after = retry_after
        self.event_id = event_id
        self.details = details

    @property
    def message(self) -> str:
        """What is wrong, without the event's id."""
        return str(self.args[0])

    def __str__(self) -> str:
        if not self.event_id:
            return self.message
        end = "" if self.message.endswith((".", "?", "!")) else "."
        return f"{self.message}{end} The event's id is {self.event_id}{self._advice}"


class InvalidEvent(PublishError):
    """The event breaks rules of the contract; the same event never succeeds."""

    violations: tuple[Violation, ...] = ()
    _advice = ""


class Unavailable(PublishError):
    """No sidecar answers, or it can keep nothing now."""


class OutcomeUnknown(Unavailable):
    """The event may be in the queue already; a retry with the same id completes it."""


class DeadlineExceeded(PublishError):
    """No receipt in time; the event may be in the queue already, and a retry with the same id is safe."""


class ResourceExhausted(PublishError):
    """The queue, the spool or the sidecar's memory is full."""


class SetupFault(PublishError):
    """A person must fix the set-up; the same attempt fails until then."""


class Unauthenticated(PublishError):
    """The token is missing or wrong."""


class PermissionDenied(PublishError):
    """The token does not allow it."""


_CLASSES: dict[grpc.StatusCode, type[PublishError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidEvent,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.FAILED_PRECONDITION: SetupFault,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
}


def invalid_event(
    violations: Iterable[Violation], *, event_id: str, message: str = "", reason: str = ""
) -> InvalidEvent:
    """The error whose text names the fields."""
    violations = tuple(violations)
    text = "; ".join(f"{violation.field}: {violation.description}" for violation in violations[:10])
    error = InvalidEvent(
        text or message, code=grpc.StatusCode.INVALID_ARGUMENT, reason=reason or "INVALID_EVENT", event_id=event_id
    )
    error.violations = violations
    return error


def from_status(status: Any, event_id: str) -> PublishError:
    """The error that a google.rpc.Status stands for; its messages have no type stubs."""
    info, retry, bad = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        for message in (info, retry, bad):
            detail.Unpack(message)
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    text = status.message or code.name
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        violations = [Violation(violation.field, violation.description) for violation in bad.field_violations]
        return invalid_event(violations, event_id=event_id, message=text, reason=info.reason)
    kind = _CLASSES.get(code, PublishError)
    if kind is Unavailable and info.reason == "OUTCOME_UNKNOWN":
        kind = OutcomeUnknown
    delay = retry.retry_delay.ToTimedelta().total_seconds() if retry.HasField("retry_delay") else None
    return kind(text, code=code, reason=info.reason, retry_after=delay, event_id=event_id)


def from_call(call: Any, event_id: str = "", target: str = "the given address") -> PublishError:
    """The error that a failed call to `target` stands for: a grpc.RpcError of either API."""
    code, details = call.code(), call.details() or ""
    for key, value in call.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            try:
                return from_status(status_pb2.Status.FromString(value), event_id)
            except DecodeError:
                break
    said = details
    if code is grpc.StatusCode.UNAVAILABLE:
        said = _unreached.text(target, details)
    elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
        said = f"no receipt in time from the sidecar at {target}: the event may be in the queue"
    elif code is grpc.StatusCode.UNIMPLEMENTED:
        said = f"what answers at {target} is no sidecar, or one that is older than this client"
    error = from_status(status_pb2.Status(code=code.value[0], message=said), event_id)
    error.details = details
    return error


def ended() -> PublishError:
    """The error of a stream that the sidecar ended in good order, as it does when it stops, with frames unanswered."""
    return Unavailable("the sidecar ended the stream", code=grpc.StatusCode.UNAVAILABLE)
