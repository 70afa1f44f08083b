import { randomBytes } from "node:crypto";

/** A UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then random bits, so that ids sort by time. */
export function newEventId(): string {
  const id = Buffer.concat([Buffer.alloc(6), randomBytes(10)]);
  id.writeUIntBE(Date.now(), 0, 6);
  id[6] = (id[6]! & 0x0f) | 0x70;
  id[8] = (id[8]! & 0x3f) | 0x80;
  return id.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
