"""A registry for the example: it publishes a model version every two seconds."""

import time

from modelready import Publisher

with Publisher("127.0.0.1:50051") as publisher:
    while True:
        version = time.strftime("%Y%m%d%H%M%S")
        receipt = publisher.publish(name="fraud", version=version, uri=f"s3://models/fraud/{version}/")
        print(f"registered fraud {version}: {receipt.outcome}", flush=True)
        time.sleep(2)
