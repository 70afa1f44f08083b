"""Errors as google.rpc.Status: the code, and details that a program can read."""

from __future__ import annotations

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from sidecar import errors

DOMAIN = "modelready.v1"

_CODES: tuple[tuple[type[errors.RequestError], grpc.StatusCode], ...] = (  # subclasses first
    (errors.InvalidEvent, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.Refused, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.NotFound, grpc.StatusCode.NOT_FOUND),
    (errors.GroupExists, grpc.StatusCode.ALREADY_EXISTS),
    (errors.GroupInUse, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.QueueFull, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.SpoolFull, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.SetupFault, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.RequestError, grpc.StatusCode.UNAVAILABLE),
)
_RETRY_SECONDS = 0.2


def to_status(error: errors.RequestError) -> status_pb2.Status:
    """The status of a refused event."""
    code = next(code for kind, code in _CODES if isinstance(error, kind))
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)]
    if isinstance(error, errors.InvalidEvent):
        bad = error_details_pb2.BadRequest()
        for violation in error.violations:
            bad.field_violations.add(field=violation.field, description=violation.description)
        details.append(bad)
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
        delay = Duration()
        delay.FromMilliseconds(int(_RETRY_SECONDS * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=code.value[0], message=str(error))
    for detail in details:
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def refusal(code: grpc.StatusCode, reason: str, text: str) -> status_pb2.Status:
    """A status that has nothing to do with an event."""
    status = status_pb2.Status(code=code.value[0], message=text)
    packed = Any()
    packed.Pack(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN))
    status.details.append(packed)
    return status
