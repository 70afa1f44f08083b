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
    assert (error.code, error.reason, error.event_id, error.message) == (code, reason, "an-id", "why")
    assert error.retry_after == (None if kind is modelready.InvalidEvent else 1.5)


def test_an_invalid_event_names_its_fields() -> None:
    violations = [("event.model.name", "must be at least 1 character"), ("event.artifact", "is required")]
    error = from_status(failure(Code.INVALID_ARGUMENT, violations=violations), "an-id")

    assert isinstance(error, modelready.InvalidEvent)
    assert error.message == "event.model.name: must be at least 1 character; event.artifact: is required"
    assert str(error) == f"{error.message}. The event's id is an-id"
    assert error.violations == tuple(violations)
    assert error.violations[0].field == "event.model.name"


@pytest.mark.parametrize(
    ("message", "text"), [("Redis is away", "Redis is away."), ("is it running?", "is it running?"), ("No.", "No.")]
)
def test_the_text_has_the_event_s_id_and_what_may_be_done_with_it(message: str, text: str) -> None:
    error = from_status(failure(Code.UNAVAILABLE, message=message), "an-id")
    assert str(error) == f"{text} The event's id is an-id; publishing it again with this id is safe"
    assert str(from_status(failure(Code.UNAVAILABLE, message=message), "")) == message


def test_errors_can_be_pickled() -> None:
    error = from_status(failure(Code.UNAVAILABLE, reason="SHUTTING_DOWN", retry_after=2), "an-id")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), vars(copy), str(copy)) == (type(error), vars(error), str(error))


def test_the_docstring_draws_every_error() -> None:
    public = [kind for kind in vars(modelready).values() if isinstance(kind, type) and issubclass(kind, PublishError)]
    assert modelready.errors.__doc__
    assert all(kind.__name__ in modelready.errors.__doc__ for kind in public)
