"""A consumer that notes in a file when it begins and ends each event: `python -m tests.chaos.consumer_process FILE`.

The settings are in the environment: those of Redis, and CLAIM_SECONDS, CONCURRENCY, BATCH, HANDLER_SECONDS
(the longest).
A line of the file is `begin` or `end`, CLOCK_MONOTONIC in seconds, the event's id, its model and its version.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import time

from modelready import ModelReadyToDeploy
from modelready.consumer import Consumer


def main(path: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    longest = float(os.environ["HANDLER_SECONDS"])

    def note(word: str, event: ModelReadyToDeploy) -> None:
        line = f"{word} {time.monotonic():.6f} {event.event_id} {event.model.name} {event.model.version}\n"
        os.write(file, line.encode())  # one write, so that a kill leaves whole lines

    def handle(event: ModelReadyToDeploy) -> None:
        note("begin", event)
        time.sleep(random.uniform(0, longest))
        note("end", event)

    logging.basicConfig(level=logging.INFO, format="%(asctime)s.%(msecs)03d %(message)s")
    Consumer.from_env(
        group="deployer",
        claim_seconds=float(os.environ["CLAIM_SECONDS"]),
        concurrency=int(os.environ["CONCURRENCY"]),
        batch=int(os.environ["BATCH"]),
        block_seconds=0.2,
        max_attempts=1000,
    ).run(handle)


if __name__ == "__main__":
    main(sys.argv[1])
