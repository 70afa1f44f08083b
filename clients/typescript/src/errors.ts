/**
 * Why an event was not acknowledged.
 *
 *     PublishError             code, reason, retryAfterMs, eventId
 *     ├── InvalidEvent         the event breaks a rule of the contract; has `violations`
 *     ├── Unavailable          no sidecar, or it can keep nothing now; a later attempt may succeed
 *     │   └── OutcomeUnknown   the event may be in the queue already
 *     ├── DeadlineExceeded     no receipt in time; the event may be in the queue already
 *     ├── ResourceExhausted    the queue, the spool or the sidecar's memory is full; `reason` says which
 *     ├── SetupFault           a person must fix the set-up: Redis rights, a key of another type, a certificate
 *     ├── Unauthenticated      the token is missing or wrong
 *     └── PermissionDenied     the token does not allow it
 *
 * Whatever the error, publishing again with the same event id is safe: it never makes a second entry.
 */
import { fromBinary } from "@bufbuild/protobuf";
import { anyUnpack, durationMs } from "@bufbuild/protobuf/wkt";
import { status as Code, type ServiceError } from "@grpc/grpc-js";

import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "./gen/google/rpc/status_pb.js";

/** One broken rule: the path of the field, as in the .proto, and what is wrong with it. */
export interface Violation {
  field: string;
  description: string;
}

export interface ErrorFields {
  message: string;
  code: Code;
  reason?: string | undefined;
  retryAfterMs?: number | undefined;
  eventId: string;
  violations?: readonly Violation[] | undefined;
  cause?: unknown;
}

/** An event was not acknowledged. */
export class PublishError extends Error {
  /** gRPC's. */
  readonly code: Code;
  /** A stable constant, e.g. "QUEUE_FULL"; empty where the sidecar did not answer. */
  readonly reason: string;
  /** The delay after which the sidecar asks to be tried again, if it does. */
  readonly retryAfterMs: number | undefined;
  /** The id to publish the same event with again. */
  readonly eventId: string;
  /** The broken rules of an InvalidEvent. */
  readonly violations: readonly Violation[];

  constructor(fields: ErrorFields) {
    super(fields.message, { cause: fields.cause });
    this.name = new.target.name;
    this.code = fields.code;
    this.reason = fields.reason ?? "";
    this.retryAfterMs = fields.retryAfterMs;
    this.eventId = fields.eventId;
    this.violations = fields.violations ?? [];
  }
}

/** The event breaks rules of the contract; the same event never succeeds. */
export class InvalidEvent extends PublishError {}
/** No sidecar answers, or it can keep nothing now. */
export class Unavailable extends PublishError {}
/** The event may be in the queue already; a retry with the same id completes it. */
export class OutcomeUnknown extends Unavailable {}
/** No receipt in time; the event may be in the queue already, and a retry with the same id is safe. */
export class DeadlineExceeded extends PublishError {}
/** The queue, the spool or the sidecar's memory is full. */
export class ResourceExhausted extends PublishError {}
/** A person must fix the set-up; the same attempt fails until then. */
export class SetupFault extends PublishError {}
/** The token is missing or wrong. */
export class Unauthenticated extends PublishError {}
/** The token does not allow it. */
export class PermissionDenied extends PublishError {}

const classes = new Map<Code, typeof PublishError>([
  [Code.INVALID_ARGUMENT, InvalidEvent],
  [Code.UNAVAILABLE, Unavailable],
  [Code.DEADLINE_EXCEEDED, DeadlineExceeded],
  [Code.RESOURCE_EXHAUSTED, ResourceExhausted],
  [Code.FAILED_PRECONDITION, SetupFault],
  [Code.UNAUTHENTICATED, Unauthenticated],
  [Code.PERMISSION_DENIED, PermissionDenied],
]);

/** The error whose text names the fields. */
export function invalidEvent(violations: readonly Violation[], fields: Omit<ErrorFields, "code">): InvalidEvent {
  const text = violations.slice(0, 10).map((violation) => `${violation.field}: ${violation.description}`);
  return new InvalidEvent({
    ...fields,
    message: text.join("; ") || fields.message,
    code: Code.INVALID_ARGUMENT,
    reason: fields.reason || "INVALID_EVENT",
    violations,
  });
}

/** The error that a failed call stands for. */
export function fromCall(error: ServiceError, eventId: string): PublishError {
  const { code, reason, retryAfterMs, violations, message: said } = { ...read(error) };
  const late = "no receipt in time; publishing again with the same event id is safe";
  const message = code === Code.DEADLINE_EXCEEDED ? late : said || Code[code] || `code ${code}`;
  const fields = { message, code, reason, retryAfterMs, eventId };
  if (code === Code.INVALID_ARGUMENT) return invalidEvent(violations, fields);
  const unknown = code === Code.UNAVAILABLE && reason === "OUTCOME_UNKNOWN";
  return new (unknown ? OutcomeUnknown : (classes.get(code) ?? PublishError))(fields);
}

/** What a call's status says, with its details where it has any. */
function read(error: ServiceError) {
  const said = {
    code: error.code,
    message: error.details,
    reason: "",
    retryAfterMs: undefined as number | undefined,
    violations: [] as Violation[],
  };
  const [raw] = error.metadata?.get("grpc-status-details-bin") ?? [];
  if (!(raw instanceof Buffer)) return said;
  try {
    const status = fromBinary(StatusSchema, raw);
    for (const detail of status.details) {
      const delay = anyUnpack(detail, RetryInfoSchema)?.retryDelay;
      if (delay) said.retryAfterMs = durationMs(delay);
      said.reason = anyUnpack(detail, ErrorInfoSchema)?.reason ?? said.reason;
      said.violations.push(...(anyUnpack(detail, BadRequestSchema)?.fieldViolations ?? []));
    }
    return { ...said, code: status.code as Code, message: status.message };
  } catch {
    return said; // the details are not the sidecar's
  }
}
