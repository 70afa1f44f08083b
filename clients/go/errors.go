package modelready

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What an *Error is, for errors.Is. Whatever it is, publishing again with the same event_id is safe: it never makes a
// second entry.
var (
	// ErrInvalidEvent: the event breaks rules of the contract, and never succeeds. Error.Violations names them.
	ErrInvalidEvent = errors.New("invalid event")
	// ErrUnavailable: no sidecar answers, or it can keep nothing now; a later attempt may succeed.
	ErrUnavailable = errors.New("unavailable")
	// ErrOutcomeUnknown: the event may be in the queue already. It is also ErrUnavailable.
	ErrOutcomeUnknown = errors.New("outcome unknown")
	// ErrDeadlineExceeded: no receipt in time; the event may be in the queue already.
	ErrDeadlineExceeded = errors.New("deadline exceeded")
	// ErrResourceExhausted: the queue, the spool or the sidecar's memory is full; Error.Reason says which.
	ErrResourceExhausted = errors.New("resource exhausted")
	// ErrSetupFault: a person must fix the set-up: Redis rights, a key of another type, a certificate.
	ErrSetupFault = errors.New("setup fault")
	// ErrUnauthenticated: the token is missing or wrong.
	ErrUnauthenticated = errors.New("unauthenticated")
	// ErrPermissionDenied: the token does not allow it.
	ErrPermissionDenied = errors.New("permission denied")
)

var kinds = map[codes.Code]error{
	codes.InvalidArgument:    ErrInvalidEvent,
	codes.Unavailable:        ErrUnavailable,
	codes.DeadlineExceeded:   ErrDeadlineExceeded,
	codes.ResourceExhausted:  ErrResourceExhausted,
	codes.FailedPrecondition: ErrSetupFault,
	codes.Unauthenticated:    ErrUnauthenticated,
	codes.PermissionDenied:   ErrPermissionDenied,
}

// Error says why an event was not acknowledged.
type Error struct {
	// Code is gRPC's.
	Code codes.Code
	// Reason is a stable constant, e.g. "QUEUE_FULL"; empty where the sidecar did not answer.
	Reason string
	// Message is for people.
	Message string
	// RetryAfter is the delay after which the sidecar asks to be tried again; 0: it did not ask.
	RetryAfter time.Duration
	// EventID is the id to publish the same event with again.
	EventID string
	// Violations are the broken rules of ErrInvalidEvent.
	Violations []Violation

	cause error
}

// Violation is one broken rule: the path of the field, as in the .proto, and what is wrong with it.
type Violation struct {
	Field, Description string
}

func (e *Error) Error() string { return "modelready: " + e.Message }

// Is makes errors.Is(err, ErrUnavailable) and its like work.
func (e *Error) Is(target error) bool {
	return target == kinds[e.Code] || target == ErrOutcomeUnknown && e.isOutcomeUnknown()
}

// Unwrap returns the error of a last attempt that had no answer in time, or the context's.
func (e *Error) Unwrap() error { return e.cause }

func (e *Error) isOutcomeUnknown() bool {
	return e.Code == codes.Unavailable && e.Reason == "OUTCOME_UNKNOWN"
}

func invalidEvent(violations []Violation, eventID string) *Error {
	var texts []string
	for _, violation := range violations[:min(len(violations), 10)] {
		texts = append(texts, fmt.Sprintf("%s: %s", violation.Field, violation.Description))
	}
	return &Error{Code: codes.InvalidArgument, Reason: "INVALID_EVENT", Message: strings.Join(texts, "; "),
		EventID: eventID, Violations: violations}
}

// fromCall returns the error that a failed call stands for.
func fromCall(ctx context.Context, failure error, eventID string) *Error {
	said := status.Convert(failure)
	if errors.Is(failure, ctx.Err()) {
		said = status.FromContextError(failure)
	}
	err := &Error{Code: said.Code(), Message: said.Message(), EventID: eventID, cause: ctx.Err()}
	if err.Code == codes.DeadlineExceeded {
		err.Message = "no receipt in time; publishing again with the same event_id is safe"
	} else if err.Message == "" {
		err.Message = err.Code.String()
	}
	var violations []Violation
	for _, detail := range said.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			err.Reason = detail.GetReason()
		case *errdetails.RetryInfo:
			err.RetryAfter = detail.GetRetryDelay().AsDuration()
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				violations = append(violations, Violation{violation.GetField(), violation.GetDescription()})
			}
		}
	}
	if err.Code == codes.InvalidArgument {
		invalid := invalidEvent(violations, eventID)
		if err.Violations = violations; len(violations) > 0 {
			err.Message = invalid.Message
		}
		if err.Reason == "" {
			err.Reason = invalid.Reason
		}
	}
	return err
}
