// Reads the sidecar's variables.
import { readFileSync } from "node:fs";
import type { RedisOptions } from "ioredis";

export function env(name: string, otherwise: string): string {
  return process.env[name] || otherwise;
}

export function optionsFromEnv(): RedisOptions {
  const host = env("REDIS_HOST", "");
  if (!host) throw new Error("REDIS_HOST is not set");
  const loopback = /^(localhost|127\..*|::1)$/.test(host);
  const secure = /^(1|true|yes|on)$/i.test(env("REDIS_TLS", String(!loopback)));
  return {
    host,
    port: Number(env("REDIS_PORT", "6379")),
    db: Number(env("REDIS_DB", "0")),
    username: process.env.REDIS_USERNAME || undefined,
    password: process.env.REDIS_AUTH_TOKEN || undefined,
    tls: secure ? { ca: pem("CA"), cert: pem("CERT"), key: pem("KEY") } : undefined,
    protocol: 2, // with 3, XREADGROUP's reply has another shape
    socketTimeout: 15_000, // above the longest wait for an event
    enableReadyCheck: false, // it needs the right to INFO
    disableClientInfo: true,
    // A command that was under way when the connection broke fails, and the loop tries again: no command is sent twice.
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
  };
}

function pem(kind: string): Buffer | undefined {
  const file = process.env[`REDIS_TLS_${kind}_FILE`];
  return file ? readFileSync(file) : undefined;
}
