// The client as the tests drive it: a request a line on standard input, an answer a line on standard output.
// clients/python/tests/conformance.py says what they hold.
import { createInterface } from "node:readline";
import { fromJson, toJson, type JsonValue } from "@bufbuild/protobuf";
import { status as Code } from "@grpc/grpc-js";

import { ReceiptSchema } from "../src/gen/modelready/v1/publisher_service_pb.js";
import { Durability, ModelReadyToDeploySchema, PublishError, Publisher } from "../src/index.js";

interface Request {
  target: string;
  token?: string;
  source?: string;
  durability?: string;
  timeout?: number;
  ca_file?: string;
  /** Seconds after which the caller gives up. */
  cancel_after?: number;
}

const publishers = new Map<string, Publisher>();
for await (const line of createInterface({ input: process.stdin })) {
  const { event, ...asked } = JSON.parse(line) as Request & { event: JsonValue };
  const key = JSON.stringify(asked);
  const publisher = publishers.get(key) ?? open(asked);
  publishers.set(key, publisher);
  const signal = asked.cancel_after ? AbortSignal.timeout(asked.cancel_after * 1000) : undefined;
  const answer = await publisher.publish(fromJson(ModelReadyToDeploySchema, event), { signal }).then(
    (receipt) => ({ receipt: toJson(ReceiptSchema, receipt) }),
    (error: unknown) => ({ error: describe(error as PublishError) }),
  );
  console.log(JSON.stringify(answer));
}
publishers.forEach((publisher) => publisher.close());

function open({ target, token, source, durability, timeout, ca_file }: Request): Publisher {
  return new Publisher(target, {
    token,
    source,
    durability: durability ? Durability[durability.replace("DURABILITY_", "") as keyof typeof Durability] : undefined,
    timeoutMs: timeout && timeout * 1000,
    tls: ca_file ? { caFile: ca_file } : undefined,
  });
}

function describe(error: PublishError): object {
  return {
    kind: error.name,
    code: Code[error.code],
    reason: error.reason,
    message: error.message,
    retry_after: error.retryAfterMs === undefined ? null : error.retryAfterMs / 1000,
    event_id: error.eventId,
    violations: error.violations.map(({ field, description }) => [field, description]),
    cause: error.cause instanceof PublishError ? Code[error.cause.code] : null,
  };
}
