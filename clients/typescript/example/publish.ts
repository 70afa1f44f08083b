// Publishes "this model version is ready":
//
//     npm run build && node dist/example/publish.js 127.0.0.1:50051 fraud 7 s3://models/fraud/7/
import { InvalidEvent, Outcome, PublishError, Publisher } from "../src/index.js"; // from "modelready" in your own project

const [target, name, version, uri] = process.argv.slice(2);
const publisher = new Publisher(target, { source: "//registry.example", token: process.env.SIDECAR_API_TOKEN });
try {
  const receipt = await publisher.publish({ model: { name: name!, version: version! }, artifact: { uri: uri! } });
  console.log(`event ${receipt.eventId}: ${Outcome[receipt.outcome]} ${receipt.entryId}`);
} catch (error) {
  if (!(error instanceof PublishError)) throw error;
  process.exitCode = 1;
  if (error instanceof InvalidEvent) console.error(`refused: ${error.message}`); // the same event never succeeds
  else console.error(`${error.name}: ${error.message}, event ${error.eventId}`); // publish it again, with the same id
} finally {
  publisher.close();
}
