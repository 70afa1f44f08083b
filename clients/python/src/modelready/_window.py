"""The frames of one publish_many: what to send next, and what became of each event. No I/O and no clock.

Order. A frame is not sent while an earlier one holds an unanswered event of one of its models, and no new frame is
sent while one waits to be sent again. So whatever fails and is repeated, the events of a model reach the sidecar in
their order; several frames are under way only as long as their models differ.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator

import grpc

from modelready._retry import delay_after, is_transient, out_of_time, remember
from modelready.errors import DeadlineExceeded, InvalidEvent, PublishError, from_status
from modelready.event import complete
from modelready.receipt import DURABILITIES, Durability, Receipt
from modelready.v1 import publisher_service_pb2 as pb
from modelready.v1.event_pb2 import ModelReadyToDeploy

MAX_FRAME = 1000
FULL_BYTES = 1 << 20
"""A frame that has reached it takes no further event; with one of MAX_EVENT_BYTES it is below 2 MiB."""

GOODBYE_SECONDS = 0.5
"""How long a stream that is no longer needed may take to end in good order."""


class Frame:
    """Some consecutive events. Those in `pending` have no result yet; `sequence` is set while they are under way."""

    def __init__(self, size: int, source: str) -> None:
        self._size = size
        self._source = source
        self._bytes = 0
        self.sequence: int | None = None
        self.pending: dict[int, ModelReadyToDeploy] = {}
        self.failures: dict[int, PublishError] = {}
        self.results: list[Receipt | PublishError | None] = []
        self.models: set[str] = set()

    def add(self, event: ModelReadyToDeploy) -> bool:
        """Takes one more event; tells whether the frame is full now."""
        try:
            whole = complete(event, self._source)
        except InvalidEvent as error:
            self.results.append(error)
        else:
            self.pending[len(self.results)] = whole
            self.results.append(None)
            self.models.add(whole.model.name)
            self._bytes += whole.ByteSize()
        return len(self.results) >= self._size or self._bytes >= FULL_BYTES

    def resolve(self, index: int, result: Receipt | PublishError) -> None:
        """Notes the final result of one event."""
        self.results[index] = result
        del self.pending[index]

    def abandon(self, error: PublishError) -> None:
        """Gives each pending event its own last failure, or else this error."""
        for index, event in list(self.pending.items()):
            own = self.failures.get(index)
            if own is None:
                own = copy.copy(error)
                own.__cause__ = error.__cause__
            elif self.sequence is not None:
                own = out_of_time(own, error.__cause__ if isinstance(error.__cause__, PublishError) else error)
            own.event_id = event.event_id
            self.resolve(index, own)


class Window:
    """At most `in_flight` frames. All times are seconds on any steady clock."""

    def __init__(
        self, *, frame: int, in_flight: int, durability: Durability, source: str = "", timeout: float = 30.0
    ) -> None:
        if not 1 <= frame <= MAX_FRAME:
            raise ValueError(f"frame is {frame}; it may be 1 to {MAX_FRAME}")
        if in_flight < 1:
            raise ValueError(f"in_flight is {in_flight}; it may be 1 or more")
        self._size = frame
        self._in_flight = in_flight
        self._durability = DURABILITIES[durability]
        self._source = source
        self._timeout = timeout
        self._frames: deque[Frame] = deque()
        self._sequence = 0
        self._failed = 0
        self._not_before = 0.0
        self._deadline = 0.0
        self._last: PublishError | None = None

    @property
    def has_room(self) -> bool:
        """Whether one more frame may be filled."""
        return len(self._frames) < self._in_flight

    @property
    def is_empty(self) -> bool:
        """Whether every event that was taken has had its result."""
        return not any(frame.results for frame in self._frames)

    @property
    def has_results(self) -> bool:
        """Whether the oldest frame is done."""
        return bool(self._frames) and not self._frames[0].pending

    def new_frame(self) -> Frame:
        """The next frame, to be filled before `to_send`."""
        self._frames.append(Frame(self._size, self._source))
        return self._frames[-1]

    def results(self) -> Iterator[Receipt | PublishError]:
        """Takes out the results that are next in the order of the input."""
        while self.has_results:
            yield from (result for result in self._frames.popleft().results if result is not None)

    def to_send(self, now: float) -> list[pb.PublishStreamRequest]:
        """The frames that are to be sent now, marked as under way."""
        requests: list[pb.PublishStreamRequest] = []
        if now < self._not_before:
            return requests
        ahead: set[str] = set()
        for frame in self._frames:
            if frame.sequence is None and frame.pending:
                if not frame.models.isdisjoint(ahead):
                    break
                self._sequence += 1
                frame.sequence = self._sequence
                events = frame.pending.values()
                requests.append(
                    pb.PublishStreamRequest(sequence=self._sequence, events=events, durability=self._durability)
                )
            ahead |= frame.models
        return requests

    def made_progress(self, now: float) -> None:
        """Restarts the time without progress: an event has its result, or the caller was away."""
        self._deadline = now + self._timeout
        self._failed = 0
        self._last = None

    def patience(self, now: float) -> float:
        """Seconds to wait for an answer before `to_send` is asked again.

        Raises the last failure, or else DeadlineExceeded, after `timeout` without progress.
        """
        if now >= self._deadline:
            text = f"no receipt in {self._timeout:g} s: the events under way may be in the queue"
            deadline = DeadlineExceeded(text, code=grpc.StatusCode.DEADLINE_EXCEEDED)
            under_way = any(frame.sequence is not None for frame in self._frames)
            raise out_of_time(self._last, deadline) if under_way else self._last or deadline
        until = self._not_before if now < self._not_before < self._deadline else self._deadline
        return until - now

    def answered(self, answer: pb.PublishStreamResponse, now: float) -> None:
        """Notes the results of a frame. Events with a transient failure are sent again, in order."""
        frame = next((frame for frame in self._frames if frame.sequence == answer.sequence), None)
        if frame is None or len(answer.results) != len(frame.pending):
            raise PublishError("the sidecar's answer fits no frame", code=grpc.StatusCode.INTERNAL)
        asked, frame.sequence = len(frame.pending), None
        for (index, event), result in zip(list(frame.pending.items()), answer.results, strict=True):
            if result.HasField("receipt"):
                frame.resolve(index, Receipt.from_message(result.receipt))
                continue
            error = from_status(result.error, event.event_id)
            if is_transient(error):
                frame.failures[index] = remember(frame.failures.get(index), error)
            else:
                frame.resolve(index, error)
        if len(frame.pending) < asked:
            self.made_progress(now)
        if frame.pending:
            failures = [frame.failures[index] for index in frame.pending]
            self._wait(now, failures[0], max(delay_after(error, self._failed) for error in failures))
        frame.models = {event.model.name for event in frame.pending.values()}

    def interrupted(self, error: PublishError, now: float) -> None:
        """The stream broke: all that was under way is sent again, on the next one. Raises `error` if that is no use."""
        if not is_transient(error):
            raise error
        for frame in self._frames:
            frame.sequence = None
        self._wait(now, error, delay_after(error, self._failed))

    def abandon(self, error: PublishError) -> Iterator[Receipt | PublishError]:
        """What is left: all results in order, with this error for events that have none."""
        for frame in self._frames:
            frame.abandon(error)
        return self.results()

    def _wait(self, now: float, error: PublishError, delay: float) -> None:
        self._last = error
        self._failed += 1
        self._not_before = max(self._not_before, now + delay)
