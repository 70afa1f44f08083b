"""What the page says of dead letters besides the letters themselves."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from modelready.v1 import queue_service_pb2 as pb
from sidecar.format import count
from sidecar.operations.dead_letters import Filter, Outcome
from sidecar.web.visit import FIELDS


def search(selected: Filter, status: pb.GetQueueStatusResponse) -> dict[str, Any]:
    """What the search form holds and suggests, and how many dead letters there are to find, where that is known."""
    chosen = {name: value for name in FIELDS if (value := asdict(selected)[name])}
    reasons = {one.reason: one.count for one in status.dead_letter_reasons}
    matching: int | None = status.dead_letters
    if chosen:
        matching = reasons.get(selected.reason, 0) if set(chosen) == {"reason"} else None
    known = {"reason": list(reasons), "origin": ["sidecar", *(f"group:{group.name}" for group in status.groups)]}
    return {"search": FIELDS, "chosen": chosen, "known": known, "matching": matching, "total": status.dead_letters}


def describe(action: str, done: Outcome) -> str:
    """What was done."""
    said = f"{count(done.done, 'dead letter')} {'replayed' if action == 'replay' else 'discarded'}."
    if done.missing:
        said += f" {done.missing:,} had gone already."
    if done.skipped:
        said += f" {done.skipped:,} stay: their group is gone, or their data is not legible."
    return said
