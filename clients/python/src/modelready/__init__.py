"""Client of the model-ready sidecar: tells a queue that a model version is ready to be deployed.

    with Publisher("127.0.0.1:50051") as publisher:
        receipt = publisher.publish(name="fraud", version="7", uri="s3://models/fraud/7/")

`modelready.aio` has the asyncio twin, `modelready.consumer` the other end of the queue.
"""

from modelready._channel import TLS
from modelready.errors import (
    DeadlineExceeded,
    InvalidEvent,
    OutcomeUnknown,
    PermissionDenied,
    PublishError,
    ResourceExhausted,
    SetupFault,
    Unauthenticated,
    Unavailable,
    Violation,
)
from modelready.event import EventFields, model_ready
from modelready.hooks import publishes_model_ready
from modelready.publisher import Publisher
from modelready.receipt import Durability, Outcome, Receipt
from modelready.v1.event_pb2 import (
    Artifact,
    Evaluation,
    ModelReadyToDeploy,
    ModelVersion,
    Promotion,
    Provenance,
    Runtime,
)

__version__ = "0.1.0"

__all__ = [
    "TLS",
    "Artifact",
    "DeadlineExceeded",
    "Durability",
    "Evaluation",
    "EventFields",
    "InvalidEvent",
    "ModelReadyToDeploy",
    "ModelVersion",
    "Outcome",
    "OutcomeUnknown",
    "PermissionDenied",
    "Promotion",
    "Provenance",
    "PublishError",
    "Publisher",
    "Receipt",
    "ResourceExhausted",
    "Runtime",
    "SetupFault",
    "Unauthenticated",
    "Unavailable",
    "Violation",
    "model_ready",
    "publishes_model_ready",
]
