"""The answers of a sidecar: outcomes, and its reasons as google.rpc.Status."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from modelready.errors import Violation
from modelready.receipt import Outcome
from modelready.rpc import error_details_pb2, status_pb2
from modelready.v1.event_pb2 import ModelReadyToDeploy
from modelready.violations import MAX_EVENT_BYTES, broken_rules

if TYPE_CHECKING:
    import protovalidate

_Code = grpc.StatusCode
REASONS = {
    "INVALID_EVENT": _Code.INVALID_ARGUMENT,
    "OUTCOME_UNKNOWN": _Code.UNAVAILABLE,
    "REDIS_UNAVAILABLE": _Code.UNAVAILABLE,
    "REDIS_AUTH_FAILED": _Code.UNAVAILABLE,
    "SHUTTING_DOWN": _Code.UNAVAILABLE,
    "SPOOL_UNAVAILABLE": _Code.UNAVAILABLE,
    "OVERLOADED": _Code.RESOURCE_EXHAUSTED,
    "QUEUE_FULL": _Code.RESOURCE_EXHAUSTED,
    "SPOOL_FULL": _Code.RESOURCE_EXHAUSTED,
    "REDIS_SETUP": _Code.FAILED_PRECONDITION,
    "REDIS_REFUSED": _Code.INVALID_ARGUMENT,
    "TOKEN_MISSING": _Code.UNAUTHENTICATED,
    "TOKEN_WRONG": _Code.UNAUTHENTICATED,
    "INTERNAL": _Code.INTERNAL,
}
"""Of the sidecar, with the code of each."""

_OUTCOMES = (Outcome.STORED, Outcome.DUPLICATE, Outcome.SPOOLED)
_PASSES = (_Code.UNAVAILABLE, _Code.RESOURCE_EXHAUSTED)


class Answer(NamedTuple):
    """What one event is answered. `outcome`: how it is kept, None where it is not; `error`: a google.rpc.Status.

    The error of SPOOLED is for a caller that asks for more.
    """

    outcome: Outcome | None
    error: Any


STORED = Answer(Outcome.STORED, None)


def answer_of(name: str, retry_after: float = 0.05) -> Answer:
    """The answer that an outcome or a reason names; `retry_after` in seconds. Raises ValueError for others."""
    if name == Outcome.SPOOLED:
        message = "the test asked for SPOOLED, and the caller for more than the spool"
        return Answer(Outcome.SPOOLED, status("REDIS_UNAVAILABLE", message, retry_after=retry_after))
    if name in _OUTCOMES:
        return Answer(Outcome(name), None)
    if name not in REASONS:
        known = ", ".join([*(f"Outcome.{outcome.name}" for outcome in _OUTCOMES), *map(repr, sorted(REASONS))])
        raise ValueError(f"the answer is {name!r}: it may be {known}")
    outcome = Outcome.STORED if name == "OUTCOME_UNKNOWN" else None
    return Answer(outcome, status(name, f"the test asked for {name}", retry_after=retry_after))


def status(reason: str, message: str, *, retry_after: float = 0.05, violations: Iterable[Violation] = ()) -> Any:
    """The google.rpc.Status that the sidecar makes of a reason; the message classes have no type stubs."""
    code = REASONS[reason]
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=reason, domain="modelready.v1")]
    if violations:
        fields = [error_details_pb2.BadRequest.FieldViolation(field=f, description=d) for f, d in violations]
        details.append(error_details_pb2.BadRequest(field_violations=fields))
    if code in _PASSES:
        details.append(error_details_pb2.RetryInfo())
        details[-1].retry_delay.FromMilliseconds(int(retry_after * 1000))
    made = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        made.details.add().Pack(detail)
    return made


def invalid(event: ModelReadyToDeploy, path: str) -> Any:
    """The status of an event that breaks a rule of the contract; None for one that does not."""
    violations = broken_rules(_validator(), event, path)
    if not violations and (size := event.ByteSize()) > MAX_EVENT_BYTES:
        violations.append(Violation(path, f"is {size} bytes, at most {MAX_EVENT_BYTES} are allowed"))
    if not violations:
        return None
    text = "; ".join(f"{violation.field}: {violation.description}" for violation in violations[:10])
    return status("INVALID_EVENT", text, violations=violations)


@cache
def _validator() -> protovalidate.Validator:
    try:
        import protovalidate  # noqa: PLC0415 - 0.1 s, when it is needed
    except ImportError as error:
        raise ImportError("the test kit needs its extra: pip install 'modelready[testing]'") from error
    return protovalidate.Validator()
