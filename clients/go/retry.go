package modelready

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"

	v1 "modelready/v1"
)

// withRetries attempts until there is a receipt, an error that no retry can help, or no time left in ctx.
//
// gRPC's own retry policy ends after five attempts and does not know RetryInfo.
func withRetries(ctx context.Context, attempt func() (*v1.Receipt, *Error)) (*v1.Receipt, error) {
	deadline, _ := ctx.Deadline()
	var last *Error
	for failed := 0; ; failed++ {
		receipt, err := attempt()
		if err == nil {
			return receipt, nil
		}
		if err.Code == codes.DeadlineExceeded || err.Code == codes.Canceled && ctx.Err() != nil {
			return nil, outOfTime(last, err)
		}
		delay := delayAfter(err, failed)
		transient := isTransient(err)
		last = remember(last, err)
		if !transient || delay >= time.Until(deadline) {
			return nil, last
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil, outOfTime(last, fromCall(ctx, ctx.Err(), last.EventID))
		}
	}
}

// isTransient says whether a later attempt may succeed with nobody's help.
func isTransient(err *Error) bool {
	switch err.Code {
	case codes.Unavailable, // OUTCOME_UNKNOWN too: the id makes the retry safe
		codes.Canceled, // by the sidecar, of a call that it had not accepted when it stopped
		codes.ResourceExhausted:
		return true
	case codes.Internal, codes.Unknown:
		// From the sidecar these are defects, with a reason. Without one the connection broke.
		return err.Reason == ""
	}
	return false
}

// delayAfter returns what the sidecar asked for, or up to 0.1, 0.2, 0.4, 0.8, 1.0 s, with jitter.
func delayAfter(err *Error, failed int) time.Duration {
	if err.RetryAfter > 0 {
		return err.RetryAfter
	}
	most := min(100*time.Millisecond<<min(failed, 10), time.Second)
	return time.Duration((0.5 + 0.5*rand.Float64()) * float64(most))
}

// remember returns the error to go on with: that an earlier attempt may have succeeded is not forgotten over one that
// did not.
func remember(before, err *Error) *Error {
	if before != nil && before.isOutcomeUnknown() && isTransient(err) {
		return before
	}
	return err
}

// outOfTime returns the error of a call whose last attempt had no answer in time: that of the attempt before, if there
// was one, since it has the sidecar's reason. It wraps late, since the last attempt may have succeeded.
func outOfTime(last, late *Error) *Error {
	if last == nil {
		return late
	}
	err := *last
	err.Message += " (and then no answer in time: it may be in the queue; the same event_id is safe)"
	err.cause = late
	return &err
}
