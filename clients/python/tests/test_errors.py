from __future__ import annotations

import pickle

import grpc
import pytest

import modelready
from clients.python.tests.fake_sidecar import failure
from modelready.errors import PublishError, from_status

Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (Code.INVALID_ARGUMENT, "INVALID_EVENT", modelready.InvalidEvent),
        (Code.UNAVAILABLE, "REDIS_UNAVAILABLE", modelready.Unavailable),
        (Code.UNAVAILABLE, "OUTCOME_UNKNOWN", modelready.OutcomeUnknown),
        (Code.DEADLINE_EXCEEDED, "", modelready.DeadlineExceeded),
        (Code.RESOURCE_EXHAUSTED, "SPOOL_FULL", modelready.ResourceExhausted),
        (Code.FAILED_PRECONDITION, "REDIS_SETUP", modelready.SetupFault),
        (Code.UNAUTHENTICATED, "UNAUTHENTICATED", modelready.Unauthenticated),
        (Code.PERMISSION_DENIED, "PERMISSION_DENIED", modelready.PermissionDenied),
        (Code.INTERNAL, "INTERNAL", PublishError),
    ],
)
def test_each_code_has_its_class(code: grpc.StatusCode, reason: str, kind: type[PublishError]) -> None:
    error = from_status(failure(code, reason=reason, retry_after=1.5, message="why"), "an-id")

    assert type(error) is kind
    assert (error.code, error.reason, error.event_id, str(error)) == (code, reason, "an-id", "why")
    assert error.retry_after == (None if kind is modelready.InvalidEvent else 1.5)


def test_an_invalid_event_names_its_fields() -> None:
    violations = [("event.model.name", "must be at least 1 character"), ("event.artifact", "is required")]
    error = from_status(failure(Code.INVALID_ARGUMENT, violations=violations), "an-id")

    assert isinstance(error, modelready.InvalidEvent)
    assert str(error) == "event.model.name: must be at least 1 character; event.artifact: is required"
    assert error.violations == tuple(violations)
    assert error.violations[0].field == "event.model.name"


def test_errors_can_be_pickled() -> None:
    error = from_status(failure(Code.UNAVAILABLE, reason="SHUTTING_DOWN", retry_after=2), "an-id")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), vars(copy), str(copy)) == (type(error), vars(error), str(error))


def test_the_docstring_draws_every_error() -> None:
    public = [kind for kind in vars(modelready).values() if isinstance(kind, type) and issubclass(kind, PublishError)]
    assert modelready.errors.__doc__
    assert all(kind.__name__ in modelready.errors.__doc__ for kind in public)
