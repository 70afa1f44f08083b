"""What a caller of Publish gets at this moment, in a line for people."""

from __future__ import annotations

from typing import NamedTuple

from sidecar.publishing.readiness import State


class Promise(NamedTuple):
    """`spooling`: events go to this task's disk. `pending`: events that wait in memory."""

    summary: str
    accepting: bool
    spooling: bool
    pending: int


def promise(state: State, *, full: bool, spooled: int, pending: int, durability: str, replicas: int) -> Promise:
    """For a call that names no durability. `full`: QUEUE_MAX_DEPTH is reached; `spooled`: the spool's depth."""
    accepting = state.accepting or state.spooling
    spooling = accepting and (full or spooled > 0 or not state.redis_up)
    if not accepting:
        summary = f"refused: {state.problem}"
    elif spooling:
        why = state.problem or ("the queue is full" if full else f"{spooled} events are on their way from the spool")
        # Who asks for more than the spool waits for Redis.
        kept = "acknowledged by this task's disk" if durability == "spooled" else "not acknowledged for now"
        summary = f"{kept}: {why}"
    elif durability == "replicated":
        summary = f"acknowledged by the Redis primary and {replicas} of its replicas"
    else:
        summary = "acknowledged by the Redis primary"
    return Promise(summary, accepting, spooling, pending)
