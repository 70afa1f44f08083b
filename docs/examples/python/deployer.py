"""A deployer: it gets every model version that is ready, at least once. ../../consuming.md describes the format.

Needs `modelready[consumer]` and REDIS_HOST.
"""

from __future__ import annotations

import logging

from modelready import ModelReadyToDeploy
from modelready.consumer import Consumer


def deploy(event: ModelReadyToDeploy) -> None:
    """Your work. It may run again for an event that it has handled, so make it idempotent."""
    if not event.artifact.uri.startswith("s3://"):
        raise ValueError(f"cannot fetch {event.artifact.uri}")
    model = event.model
    print(f"deploying {model.name} {model.version} from {event.artifact.uri}, event {event.event_id}", flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    Consumer.from_env(group="deployer").run(deploy)
