"""What is known of a registry's outbox that this sidecar empties."""

from __future__ import annotations

from typing import NamedTuple


class OutboxState(NamedTuple):
    """`oldest_seconds`: how long the oldest row has waited, and at least how long the database has not answered."""

    error: str
    """Why the outbox is not being emptied; empty while it is."""
    waiting: int
    oldest_seconds: float
    refused: int
    """Rows that break a rule of the contract, and are kept until a person retries or discards them."""
