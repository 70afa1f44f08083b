// The event in an entry. These are the fields that deploy needs; proto/modelready/v1/event.proto has them all.
import protobuf from "protobufjs";

export type Fields = Map<string, Buffer>;

export interface ModelReady {
  event_id: string;
  model: { name: string; version: string };
  artifact: { uri: string };
}

const schema = `
  syntax = "proto3";
  message Model { string name = 1; string version = 2; }
  message Artifact { string uri = 1; }
  message ModelReady { string event_id = 1; Model model = 5; Artifact artifact = 6; }`;
const message = protobuf.parse(schema, { keepCase: true }).root.lookupType("ModelReady");

export function decode(fields: Fields): ModelReady {
  const data = fields.get("data") ?? Buffer.alloc(0);
  const event = read(fields.get("content-type")?.toString() ?? "", data) as Partial<ModelReady>;
  if (!event.event_id || !event.model?.name || !event.artifact?.uri) throw new Error("data is no complete event");
  return event as ModelReady;
}

function read(contentType: string, data: Buffer): unknown {
  if (contentType === "application/json") return JSON.parse(data.toString());
  if (contentType === "application/protobuf") return message.toObject(message.decode(data), { defaults: true });
  throw new Error(`content-type ${contentType} is not known`);
}
