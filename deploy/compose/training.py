"""A training pipeline for the example: it registers a version every two seconds, and promotes it."""

import json
import time
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from typing import Any


def call(method: str, path: str, **fields: object) -> Any:
    """The registry's answer, also where it refuses. Tries again while the registry is away."""
    while True:
        with closing(HTTPConnection("127.0.0.1", 8000, timeout=10)) as connection:
            try:
                connection.request(method, path, json.dumps(fields), {"content-type": "application/json"})
                return json.load(connection.getresponse())
            except (OSError, HTTPException):
                time.sleep(0.5)


call("POST", "/models", name="fraud")  # refused where there is one already
while True:
    version = call("POST", "/models/fraud/versions", uri="s3://models/fraud/")["version"]
    call("PUT", "/models/fraud/aliases/champion", version=version)
    print(f"promoted fraud {version}", flush=True)
    time.sleep(2)
