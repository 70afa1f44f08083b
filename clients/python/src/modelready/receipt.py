"""What the caller asks for and what it gets: Durability, Outcome, Receipt."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

from modelready.v1 import publisher_service_pb2 as pb


class Durability(str, Enum):
    """The least that the caller accepts for an acknowledgement."""

    UNSPECIFIED = "unspecified"
    """The sidecar's default, PUBLISH_DURABILITY."""
    SPOOLED = "spooled"
    """Redis has it or, while Redis is away, the disk of the sidecar's task does."""
    PRIMARY = "primary"
    """The Redis primary has it; survives the loss of the task."""
    REPLICATED = "replicated"
    """REDIS_MIN_REPLICAS replicas confirmed it; survives a failover of Redis."""

    __str__ = str.__str__


class Outcome(str, Enum):
    """Where an acknowledged event is."""

    UNSPECIFIED = "unspecified"
    """Said by a newer sidecar, in a word that this client does not know."""
    STORED = "stored"
    """In the stream, by this call."""
    DUPLICATE = "duplicate"
    """In the stream already, from an earlier attempt; `entry_id` is the first one's."""
    SPOOLED = "spooled"
    """On the disk of the sidecar's task; it follows when Redis is back."""

    __str__ = str.__str__


DURABILITIES = {durability: f"DURABILITY_{durability.name}" for durability in Durability}


def checked_durability(durability: object) -> Durability:
    """It, or the one of that name. Raises TypeError or ValueError, which says what it may be."""
    if isinstance(durability, str):
        with suppress(ValueError):
            return Durability(durability.lower())
    may_be = ", ".join(f'"{one}"' for one in Durability if one is not Durability.UNSPECIFIED)
    kind = ValueError if isinstance(durability, str) else TypeError
    raise kind(f"durability is {durability!r}: it may be a Durability, or its name: {may_be}")


_OUTCOMES = {pb.Outcome.Value(f"OUTCOME_{outcome.name}"): outcome for outcome in Outcome}


@dataclass(frozen=True, slots=True)
class Receipt:
    """The acknowledgement of one event: the sidecar owns it from here on."""

    event_id: str
    correlation_id: str
    outcome: Outcome
    stream: str
    """The key of the stream, e.g. "{model-ready}:events"."""
    entry_id: str
    """The id of the entry in the stream; empty while the event is spooled."""
    replicas: int
    """How many replicas confirmed the write; 0 where nobody asked for it."""

    @classmethod
    def from_message(cls, message: pb.Receipt) -> Receipt:
        """The receipt as it came from the sidecar."""
        return cls(
            event_id=message.event_id,
            correlation_id=message.correlation_id,
            outcome=_OUTCOMES.get(message.outcome, Outcome.UNSPECIFIED),
            stream=message.stream,
            entry_id=message.entry_id,
            replicas=message.replicas,
        )
