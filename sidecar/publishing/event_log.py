"""What became of each event, recorded once: a count, a log line, and the end of its span.

The logger is `sidecar.events`: stored and duplicate at debug, spooled at info, refused at warning, dead letters at
error. A line names the event and its model, and holds nothing else of what a caller sent.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

from google.protobuf.message import DecodeError

from modelready.v1 import publisher_service_pb2 as pb
from modelready.v1.event_pb2 import ModelReadyToDeploy
from sidecar.errors import RequestError
from sidecar.logs import leaves_out
from sidecar.metrics import Metrics
from sidecar.publishing.interfaces import Appended, DeadLetter, Event, Spooled, Tracing
from sidecar.publishing.submission import SPOOLED, Results

log = logging.getLogger("sidecar.events")

_OUTCOMES = {pb.OUTCOME_STORED: "stored", pb.OUTCOME_DUPLICATE: "duplicate", pb.OUTCOME_SPOOLED: "spooled"}
_MAX_CHARACTERS = 256  # of what broke the rules, perhaps by its length


class EventObserver:
    """Called once by the part that decides what becomes of an event. `arrived`: time.monotonic() of the call."""

    def __init__(self, metrics: Metrics, tracing: Tracing | None = None) -> None:
        """`tracing`: None where it is off."""
        self._tracing = tracing
        self._published = metrics.published
        self._counts = {outcome: metrics.published.labels(name) for outcome, name in _OUTCOMES.items()}
        self._dead_letters = metrics.dead_letters

    def acknowledged(self, events: Sequence[Event], results: Results, arrived: float) -> None:
        """The results as callers get them; some of one call may be refusals."""
        milliseconds = _since(arrived)
        info, debug = log.isEnabledFor(logging.INFO), log.isEnabledFor(logging.DEBUG)
        outcomes: list[pb.Outcome] = []
        for event, result in zip(events, results, strict=True):
            if isinstance(result, RequestError):
                self._refused(event.message, result, milliseconds)
                continue
            outcomes.append(result.outcome)
            if result is SPOOLED:
                if info:
                    _write(logging.INFO, event.message, "spooled", milliseconds)
            elif debug:
                outcome = _OUTCOMES[result.outcome]
                _write(logging.DEBUG, event.message, outcome, milliseconds, entry_id=result.entry_id)
            if self._tracing is not None:
                self._tracing.end(event.message, _OUTCOMES[result.outcome], result.entry_id)
        for kind in set(outcomes):
            self._counts[kind].inc(outcomes.count(kind))

    def refused(
        self, messages: Sequence[ModelReadyToDeploy], error: RequestError, arrived: float, *, kept: bool = False
    ) -> None:
        """Nothing is kept of them, or it is not known whether anything is: the outcome is the error's reason.

        `kept`: the caller has them and tries again; only their spans end.
        """
        milliseconds = _since(arrived)
        for message in messages:
            if not kept:
                self._refused(message, error, milliseconds)
            elif self._tracing is not None:
                self._tracing.fail(message, error.reason)

    def _refused(self, message: ModelReadyToDeploy, error: RequestError, milliseconds: float) -> None:
        self._published.labels(error.reason).inc()
        _write(logging.WARNING, message, error.reason, milliseconds, detail=str(error))
        if self._tracing is not None:
            self._tracing.fail(message, error.reason)

    def forwarded(self, rows: Sequence[tuple[Spooled, Event]], places: Sequence[Appended]) -> None:
        """They left the spool for the queue."""
        debug = log.isEnabledFor(logging.DEBUG)
        for (row, event), place in zip(rows, places, strict=True):
            outcome = "duplicate" if place.duplicate else "stored"
            if debug:
                _write(logging.DEBUG, event.message, outcome, _age(row.spooled_ms), entry_id=place.entry_id)
            if self._tracing is not None:
                self._tracing.forwarded(event.message, row.spooled_ms, outcome, place.entry_id)

    def found(self, rows: Sequence[Spooled], places: Mapping[str, str]) -> None:
        """They left the spool since the queue has had them all the time: the entry ids by the ids of events."""
        if log.isEnabledFor(logging.DEBUG):
            for row in rows:
                message = _message(row.event_id, row.data)
                _write(logging.DEBUG, message, "duplicate", _age(row.spooled_ms), entry_id=places[row.event_id])

    def dead(self, letter: DeadLetter) -> None:
        """The dead-letter stream has it."""
        self._dead_letters.labels(letter.reason).inc()
        message, milliseconds = _message(letter.event_id, letter.data), _age(letter.first_ms)
        _write(logging.ERROR, message, "dead letter", milliseconds, reason=letter.reason, detail=letter.detail)


def _since(moment: float) -> float:
    return (time.monotonic() - moment) * 1000


def _age(moment_ms: int) -> float:
    return time.time() * 1000 - moment_ms


def _message(event_id: str, data: bytes) -> ModelReadyToDeploy:
    """The event, or what is known of it where it is not legible."""
    try:
        return ModelReadyToDeploy.FromString(data)
    except DecodeError:
        return ModelReadyToDeploy(event_id=event_id)


def _write(level: int, message: ModelReadyToDeploy, outcome: str, milliseconds: float, **more: str) -> None:
    form = f"{outcome}: %s"
    if not log.isEnabledFor(level) or leaves_out(log.name, form):
        return
    model = f"{message.model.name[:_MAX_CHARACTERS]}/{message.model.version[:_MAX_CHARACTERS]}"
    about: dict[str, object] = {
        "event_id": message.event_id[:_MAX_CHARACTERS],
        "correlation_id": message.correlation_id[:_MAX_CHARACTERS],
        "model": model,
        "outcome": outcome,
        "milliseconds": round(milliseconds, 1),
    }
    for name, text in more.items():
        about[name] = text[:_MAX_CHARACTERS]
    # Not log.log, which looks for its caller: there may be thousands a second.
    log.handle(log.makeRecord(log.name, level, __file__, 0, form, (model,), None, extra=about))
