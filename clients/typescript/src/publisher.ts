import { readFileSync } from "node:fs";
import { clone, create, fromBinary, toBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { Client, credentials, Metadata, type ChannelCredentials, type ServiceError } from "@grpc/grpc-js";

import { fromCall, invalidEvent } from "./errors.js";
import { ModelReadyToDeploySchema, type ModelReadyToDeploy } from "./gen/modelready/v1/event_pb.js";
import {
  Durability,
  PublishRequestSchema,
  PublishResponseSchema,
  type Receipt,
} from "./gen/modelready/v1/publisher_service_pb.js";
import { newEventId } from "./ids.js";
import { withRetries } from "./retry.js";

/** An event, or the fields of one: at the least `model.name`, `model.version` and `artifact.uri`. */
export type EventInit = MessageInitShape<typeof ModelReadyToDeploySchema>;

/** How to trust the sidecar and, with a certificate and key, to be known to it. All files are PEM. */
export interface TlsFiles {
  /** Without it the authorities of Node.js count. */
  caFile?: string | undefined;
  certFile?: string | undefined;
  keyFile?: string | undefined;
  /** The name in the sidecar's certificate where it is not the target's. */
  serverName?: string | undefined;
}

export interface PublishOptions {
  /** How long `publish` may take, its retries included. Default: 5000. */
  timeoutMs?: number | undefined;
  /** The least to accept for an acknowledgement. Default: what the sidecar's PUBLISH_DURABILITY says. */
  durability?: Durability | undefined;
}

export interface PublisherOptions extends PublishOptions {
  /** The sidecar's SIDECAR_API_TOKEN. */
  token?: string | undefined;
  /** Without it the connection is in the clear, as it may be on one machine. */
  tls?: TlsFiles | undefined;
  /** Names the registry in events that do not name it themselves. */
  source?: string | undefined;
}

const maxEventBytes = 1 << 20; // larger than any valid event
const path = "/modelready.v1.PublisherService/Publish";

/** Publishes events through the sidecar at `target`, "host:port" or "unix:/path". */
export class Publisher {
  readonly #client: Client;
  readonly #metadata = new Metadata();
  readonly #options: PublisherOptions;

  /** It connects at the first call, and again when the sidecar comes back. Throws for a token that no header carries. */
  constructor(target = "127.0.0.1:50051", options: PublisherOptions = {}) {
    const { token, tls } = options;
    if (token !== undefined) {
      if (!/^[!-~]+$/.test(token)) throw new TypeError("the token must be visible ASCII, without blanks or a line end");
      this.#metadata.set("authorization", `Bearer ${token}`);
    }
    this.#options = options;
    this.#client = new Client(target, tls ? channelCredentials(tls) : credentials.createInsecure(), {
      "grpc.enable_http_proxy": 0, // the sidecar is a neighbour; a proxy is for the world outside
      "grpc.service_config_disable_resolution": 1,
      "grpc.enable_retries": 0, // see retry.ts
      // Back within a second when the sidecar is.
      "grpc.initial_reconnect_backoff_ms": 100,
      "grpc.max_reconnect_backoff_ms": 500,
      // A connection whose packets vanish is given up; while nothing is called it is pinged, too.
      "grpc.keepalive_time_ms": 10_000,
      "grpc.keepalive_timeout_ms": 5_000,
      "grpc.keepalive_permit_without_calls": 1,
      ...(tls?.serverName ? { "grpc.ssl_target_name_override": tls.serverName } : {}),
    });
  }

  /**
   * Resolves when the sidecar owns the event. Otherwise rejects with a PublishError, after what may succeed later was
   * retried until the time was up; the error's `eventId` is the one to publish the same event with again.
   *
   * The event is not changed: an id, a time and a source that it lacks are set in a copy, once for all attempts.
   */
  async publish(event: EventInit, options: PublishOptions & { signal?: AbortSignal | undefined } = {}): Promise<Receipt> {
    const whole = complete(event, this.#options.source ?? "");
    const eventId = whole.eventId;
    const raw = this.#encode(whole, options.durability ?? this.#options.durability ?? Durability.UNSPECIFIED);
    const deadline = Date.now() + (options.timeoutMs ?? this.#options.timeoutMs ?? 5000);
    return withRetries(deadline, options.signal, () => this.#call(raw, deadline, eventId, options.signal));
  }

  /** Closes the connection; calls under way fail. */
  close(): void {
    this.#client.close();
  }

  #encode(event: ModelReadyToDeploy, durability: Durability): Buffer {
    const refuse = (description: string) =>
      invalidEvent([{ field: "event", description }], { message: "", eventId: event.eventId });
    let raw: Buffer;
    try {
      raw = Buffer.from(toBinary(PublishRequestSchema, create(PublishRequestSchema, { event, durability })));
    } catch (error) {
      throw refuse(String(error)); // a number out of range, or what is no string
    }
    if (raw.length > maxEventBytes) throw refuse(`has ${raw.length} bytes; the limit is ${maxEventBytes}`);
    return raw;
  }

  #call(raw: Buffer, deadline: number, eventId: string, signal: AbortSignal | undefined): Promise<Receipt> {
    return new Promise((resolve, reject) => {
      const done = (error: ServiceError | null, receipt?: Receipt) => {
        signal?.removeEventListener("abort", cancel);
        if (receipt) resolve(receipt);
        else reject(fromCall(error!, eventId));
      };
      const call = this.#client.makeUnaryRequest<Buffer, Receipt>(
        path, (bytes) => bytes, receiptOf, raw, this.#metadata, { deadline }, done);
      const cancel = () => call.cancel();
      if (signal?.aborted) cancel();
      signal?.addEventListener("abort", cancel);
    });
  }
}

function receiptOf(bytes: Buffer): Receipt {
  const { receipt } = fromBinary(PublishResponseSchema, bytes);
  if (!receipt) throw new Error("the answer has no receipt");
  return receipt;
}

function channelCredentials({ caFile, certFile, keyFile }: TlsFiles): ChannelCredentials {
  if ((certFile === undefined) !== (keyFile === undefined)) throw new TypeError("tls needs certFile and keyFile together");
  const [ca, key, cert] = [caFile, keyFile, certFile].map((file) => (file ? readFileSync(file) : null));
  return credentials.createSsl(ca, key, cert);
}

/** A copy of the event with what its retries need: an id and a time that no attempt changes. */
function complete(event: EventInit, source: string): ModelReadyToDeploy {
  const whole = clone(ModelReadyToDeploySchema, create(ModelReadyToDeploySchema, event));
  whole.eventId ||= newEventId();
  whole.source ||= source;
  whole.occurredAt ??= timestampNow();
  return whole;
}
