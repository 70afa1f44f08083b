/**
 * When a failed attempt is made again.
 *
 * gRPC's own retry policy is not used: it ends after five attempts and does not know RetryInfo.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { status as Code } from "@grpc/grpc-js";

import { DeadlineExceeded, OutcomeUnknown, PublishError } from "./errors.js";

/** Attempts until there is a result, an error that no retry can help, or no time left before `deadline` (epoch ms). */
export async function withRetries<T>(
  deadline: number,
  signal: AbortSignal | undefined,
  attempt: () => Promise<T>,
): Promise<T> {
  let last: PublishError | undefined;
  for (let failed = 0; ; failed++) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof PublishError)) throw error;
      if (error instanceof DeadlineExceeded || signal?.aborted) throw outOfTime(last, error);
      const delay = delayAfter(error, failed);
      last = remember(last, error);
      if (!isTransient(error) || delay >= deadline - Date.now()) throw last;
      await sleep(delay, undefined, signal && { signal }).catch((cause: unknown) => {
        throw outOfTime(last, new PublishError({ ...last!, message: "aborted", code: Code.CANCELLED, cause }));
      });
    }
  }
}

/** Whether a later attempt may succeed with nobody's help. */
function isTransient(error: PublishError): boolean {
  switch (error.code) {
    case Code.UNAVAILABLE: // OUTCOME_UNKNOWN too: the id makes the retry safe
    case Code.CANCELLED: // by the sidecar, of a call that it had not accepted when it stopped
    case Code.RESOURCE_EXHAUSTED:
      return true;
    case Code.INTERNAL: // From the sidecar these two are defects, with a reason. Without one the connection broke.
    case Code.UNKNOWN:
      return !error.reason;
    default:
      return false;
  }
}

/** Milliseconds: what the sidecar asked for, or up to 100, 200, 400, 800, 1000, with jitter. */
function delayAfter(error: PublishError, failed: number): number {
  return error.retryAfterMs || (0.5 + Math.random() / 2) * Math.min(1000, 100 * 2 ** Math.min(failed, 10));
}

/** The error to go on with: that an earlier attempt may have succeeded is not forgotten over one that did not. */
function remember(before: PublishError | undefined, error: PublishError): PublishError {
  return before instanceof OutcomeUnknown && isTransient(error) ? before : error;
}

/**
 * The error of a call whose last attempt had no answer in time: that of the attempt before, if there was one, since it
 * has the sidecar's reason. `late` is its cause, since the last attempt may have succeeded.
 */
function outOfTime(last: PublishError | undefined, late: PublishError): PublishError {
  if (!last) return late;
  const message = `${last.message} (and then no answer in time: it may be in the queue; the same event id is safe)`;
  return new (last.constructor as typeof PublishError)({ ...last, message, cause: late });
}
