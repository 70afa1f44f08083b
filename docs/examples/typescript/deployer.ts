// A deployer: it gets every model version that is ready, at least once. ../../consuming.md describes the format.
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";
import { decode, type Fields, type ModelReady } from "./event.js";
import { env, optionsFromEnv } from "./settings.js";

const GROUP = "deployer"; // a group of its own for each service; its processes share the events
const MAX_ATTEMPTS = 3;
const CLAIM_IDLE_MS = Number(env("CLAIM_IDLE_MS", "60000")); // longer than any deploy takes: after it another consumer takes over
const BLOCK_MS = Math.min(2000, CLAIM_IDLE_MS); // the longest wait for an event, and so for the end after SIGTERM
const STREAM = `{${env("QUEUE_NAME", "model-ready")}}:events`;
const DEAD_LETTERS = `{${env("QUEUE_NAME", "model-ready")}}:dead-letters`;
const NAME = `${hostname()}-${process.pid}`; // unique in the group

// Your work. It may run again for an event that it has handled, so make it idempotent.
async function deploy(event: ModelReady): Promise<void> {
  const { name, version } = event.model;
  if (!event.artifact.uri.startsWith("s3://")) throw new Error(`cannot fetch ${event.artifact.uri}`);
  console.log(`deploying ${name} ${version} from ${event.artifact.uri}, event ${event.event_id}`);
}

type Entry = { id: string; fields: Fields };

const redis = new Redis(optionsFromEnv());
redis.on("error", () => undefined); // the loop logs it; without a listener it is logged twice
let stopping = false;
let cursor = "0-0";
let claimAt = 0;

async function consume(): Promise<void> {
  await redis.xgroup("CREATE", STREAM, GROUP, "0", "MKSTREAM").catch((error: Error) => {
    if (!error.message.startsWith("BUSYGROUP")) throw error;
  });
  while (!stopping) {
    for (const entry of await next()) await handle(entry);
  }
}

// One event: first those that failed or whose consumer died, when they have been idle long enough; then new ones.
async function next(): Promise<Entry[]> {
  if (Date.now() >= claimAt) {
    const command = [STREAM, GROUP, NAME, CLAIM_IDLE_MS, cursor, "COUNT", 1];
    const [following, found] = (await redis.callBuffer("XAUTOCLAIM", ...command)) as [Buffer, unknown[]];
    cursor = following.toString();
    if (found.length > 0 || cursor !== "0-0") return entries(found);
    claimAt = Date.now() + CLAIM_IDLE_MS / 4;
  }
  const command = ["GROUP", GROUP, NAME, "COUNT", 1, "BLOCK", BLOCK_MS, "STREAMS", STREAM, ">"];
  const reply = (await redis.callBuffer("XREADGROUP", ...command)) as [Buffer, unknown[]][] | null;
  return reply?.[0] ? entries(reply[0][1]) : [];
}

function entries(reply: unknown[]): Entry[] {
  return (reply as ([Buffer, Buffer[] | null] | null)[]).flatMap((entry) => {
    if (!entry) return []; // deleted from the stream (Redis 6.2)
    const [id, parts] = entry;
    const fields: Fields = new Map();
    for (let at = 0; parts && at < parts.length; at += 2) fields.set(parts[at]!.toString(), parts[at + 1]!);
    return [{ id: id.toString(), fields }];
  });
}

async function handle({ id, fields }: Entry): Promise<void> {
  const only = fields.get("replay_group")?.toString() ?? GROUP;
  if (fields.size === 0 || only !== GROUP) return ack(id); // deleted; or a dead letter's replay to another group
  let event: ModelReady;
  try {
    event = decode(fields);
  } catch (error) {
    return deadLetter(id, fields, "UNDECODABLE", error, 1);
  }
  try {
    await deploy(event);
  } catch (error) {
    console.error(`event ${event.event_id}: ${error}`);
    const [pending] = (await redis.xpending(STREAM, GROUP, id, id, 1)) as [string, string, number, number][];
    if (pending && pending[3] >= MAX_ATTEMPTS) await deadLetter(id, fields, "HANDLER_FAILED", error, pending[3]);
    return; // else it stays pending, and comes again when it has been idle long enough
  }
  await ack(id);
}

async function ack(id: string): Promise<void> {
  await redis.xack(STREAM, GROUP, id);
}

// Writes the entry as a dead letter and acknowledges it, both or neither.
async function deadLetter(id: string, fields: Fields, reason: string, cause: unknown, attempts: number): Promise<void> {
  const letter = new Map<string, Buffer | string | number>(fields);
  letter.delete("replay_group");
  letter.set("dl_reason", reason).set("dl_detail", String(cause)).set("dl_attempts", attempts);
  letter.set("dl_first_at", id.split("-")[0]!).set("dl_last_at", Date.now());
  letter.set("dl_origin", `group:${GROUP}`).set("dl_entry_id", id);
  const replies = await redis.multi().xadd(DEAD_LETTERS, "*", ...[...letter].flat()).xack(STREAM, GROUP, id).exec();
  const failure = replies?.find(([error]) => error)?.[0];
  if (failure) throw failure;
}

// Removes this consumer's name, unless an event is still pending for it.
async function leave(): Promise<void> {
  const pending = await redis.xpending(STREAM, GROUP, "-", "+", 1, NAME);
  if (pending.length === 0) await redis.xgroup("DELCONSUMER", STREAM, GROUP, NAME);
}

for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => (stopping = true)); // after the current event
while (!stopping) {
  try {
    await consume();
  } catch (error) {
    console.error(`waiting for Redis: ${error}`);
    await sleep(1000);
  }
}
await leave().catch(() => undefined);
redis.disconnect();
