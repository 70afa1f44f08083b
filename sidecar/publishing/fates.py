"""What became of each event, a log line each: stored and duplicate at debug, spooled at info, refused at warning.

The logger is `sidecar.events`. A line names the event and its model, and holds nothing else of what a caller sent.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence

from google.protobuf.message import DecodeError

from modelready.v1 import publisher_service_pb2 as pb
from modelready.v1.event_pb2 import ModelReadyToDeploy
from sidecar.errors import PublishError
from sidecar.publishing.interfaces import Appended, DeadLetter, Event, Spooled
from sidecar.publishing.submission import SPOOLED, Published, Results

log = logging.getLogger("sidecar.events")

_OUTCOMES = {pb.OUTCOME_STORED: "stored", pb.OUTCOME_DUPLICATE: "duplicate", pb.OUTCOME_SPOOLED: "spooled"}
_MOST_CHARACTERS = 256  # of what broke the rules, perhaps by its length


def acknowledged(events: Sequence[Event], results: Results, arrived: float) -> None:
    """Results as callers get them; `arrived`: time.monotonic() of the submission."""
    everything = log.isEnabledFor(logging.DEBUG)
    if not everything and all(type(result) is Published and result is not SPOOLED for result in results):
        return
    milliseconds = (time.monotonic() - arrived) * 1000
    for event, result in zip(events, results, strict=True):
        if isinstance(result, PublishError):
            refused([event.message], result, milliseconds)
        elif result is SPOOLED:
            _say(logging.INFO, event.message, "spooled", milliseconds)
        elif everything:
            _say(logging.DEBUG, event.message, _OUTCOMES[result.outcome], milliseconds, entry_id=result.entry_id)


def refused(messages: Iterable[ModelReadyToDeploy], error: PublishError, milliseconds: float) -> None:
    """Nothing is kept of them, or it is not known whether anything is: the outcome is the error's reason."""
    for message in messages:
        _say(logging.WARNING, message, error.reason, milliseconds, detail=str(error))


def forwarded(rows: Iterable[tuple[Spooled, Event]], places: Sequence[Appended]) -> None:
    """They left the spool for the queue."""
    if log.isEnabledFor(logging.DEBUG):
        for (row, event), place in zip(rows, places, strict=True):
            outcome = "duplicate" if place.duplicate else "stored"
            _say(logging.DEBUG, event.message, outcome, _since(row.spooled_ms), entry_id=place.entry_id)


def found(rows: Iterable[Spooled], places: Mapping[str, str]) -> None:
    """They left the spool since the queue has had them all the time: the entry ids by the ids of events."""
    if log.isEnabledFor(logging.DEBUG):
        for row in rows:
            message = _message(row.event_id, row.data)
            _say(logging.DEBUG, message, "duplicate", _since(row.spooled_ms), entry_id=places[row.event_id])


def dead(letter: DeadLetter) -> None:
    """It failed for good, and the dead-letter stream has it."""
    message, milliseconds = _message(letter.event_id, letter.data), _since(letter.first_ms)
    _say(logging.ERROR, message, "dead letter", milliseconds, reason=letter.reason, detail=letter.detail)


def _since(moment_ms: int) -> float:
    return time.time() * 1000 - moment_ms


def _message(event_id: str, data: bytes) -> ModelReadyToDeploy:
    """The event, or what is known of it where it is not legible."""
    try:
        return ModelReadyToDeploy.FromString(data)
    except DecodeError:
        return ModelReadyToDeploy(event_id=event_id)


def _say(level: int, message: ModelReadyToDeploy, outcome: str, milliseconds: float, **more: str) -> None:
    if not log.isEnabledFor(level):
        return
    model = f"{message.model.name[:_MOST_CHARACTERS]}/{message.model.version[:_MOST_CHARACTERS]}"
    about: dict[str, object] = {
        "event_id": message.event_id[:_MOST_CHARACTERS],
        "correlation_id": message.correlation_id[:_MOST_CHARACTERS],
        "model": model,
        "outcome": outcome,
        "milliseconds": round(milliseconds, 1),
    }
    for name, text in more.items():
        about[name] = text[:_MOST_CHARACTERS]
    # Not log.log, which looks for its caller: there may be thousands a second.
    log.handle(log.makeRecord(log.name, level, __file__, 0, f"{outcome}: %s", (model,), None, extra=about))
