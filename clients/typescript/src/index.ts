/**
 * Publishes events through the sidecar. It follows the same rules as the Python client; clients/conformance.json lists
 * them as cases, and each client passes them all.
 */
export * from "./errors.js";
export { newEventId } from "./ids.js";
export { Publisher, type EventInit, type PublishOptions, type PublisherOptions, type TlsFiles } from "./publisher.js";
export { ModelReadyToDeploySchema, type ModelReadyToDeploy } from "./gen/modelready/v1/event_pb.js";
export { Durability, Outcome, type Receipt } from "./gen/modelready/v1/publisher_service_pb.js";
