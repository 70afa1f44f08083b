// A strict reader of a mirror list: it takes bare payloads, one at a time, and refuses every key and value that it does not
// expect. ../../consuming.md describes the format. Run it with QUEUE_LIST=<name>=payload and QUEUE_LIST_LABELS=token_symbol.
import { Redis } from "ioredis";
import { env, optionsFromEnv } from "./settings.js";

const LIST = env("LIST", "deployments");
const PROCESSING = env("QUEUE_LIST_PROCESSING", "{list}:processing").replaceAll("{list}", LIST);
const DEAD_LETTERS = env("QUEUE_LIST_DEAD_LETTERS", "{list}:dlq").replaceAll("{list}", LIST);

type Check = (value: unknown) => boolean;
const text: Check = (value) => typeof value === "string" && value !== "";
const positive: Check = (value) => typeof value === "number" && value > 0;
const matches = (pattern: RegExp): Check => (value) => typeof value === "string" && pattern.test(value);

const REQUIRED: Record<string, Check> = {
  model_id: text,
  model_name: text,
  model_version: text,
  mlflow_run_id: text,
  metric_name: text,
  baseline_value: positive,
  current_value: positive,
  improvement_percentage: positive,
  timestamp: matches(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/),
  message_version: matches(/^1\.0$/),
  token_symbol: matches(/^[A-Z0-9-]{1,10}$/),
};

function wrong(message: string): string | undefined {
  let payload: Record<string, unknown>;
  try {
    payload = JSON.parse(message);
  } catch {
    return "it is no JSON";
  }
  const unknown = Object.keys(payload).find((key) => !(key in REQUIRED));
  if (unknown !== undefined) return `${unknown} is not allowed`;
  const bad = Object.entries(REQUIRED).find(([key, check]) => !check(payload[key]));
  return bad && `${bad[0]} is missing or wrong`;
}

const redis = new Redis(optionsFromEnv());
redis.on("error", (error) => console.error(`waiting for Redis: ${error}`));
for (let message; (message = await redis.blmove(LIST, PROCESSING, "RIGHT", "LEFT", 1)); ) {
  const reason = wrong(message);
  console.log(reason ? `refused: ${reason}` : `accepted: ${message}`);
  const done = redis.multi();
  if (reason) done.lpush(DEAD_LETTERS, JSON.stringify({ originalMessage: message, error: reason }));
  await done.lrem(PROCESSING, 1, message).exec();
}
redis.disconnect(); // an example may end when the list is empty
