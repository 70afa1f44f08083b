"""Streams of frames that never rest: each has some frames under way, and writes down what was acknowledged."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import grpc

from modelready.v1 import publisher_service_pb2 as pb
from modelready.v1 import publisher_service_pb2_grpc as pb_grpc
from tests.chaos.load import new_event

_UNDER_WAY_EVENTS, _MAX_UNDER_WAY = 64_000, 8


class Frames:
    """`callers` streams of frames of `size` events, one model each. A context manager: running in, ended after."""

    def __init__(self, address: str, *, callers: int, size: int) -> None:
        self.size = size
        self.outcomes: Counter[str] = Counter()
        self.acked: list[list[str]] = [[] for _ in range(callers)]
        """The ids of each stream's events, in the order of their acknowledgements."""
        self._address = address
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(caller,), daemon=True) for caller in range(callers)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a stream hangs"

    def _run(self, caller: int) -> None:
        most = _UNDER_WAY_EVENTS // (self.size * len(self.acked))
        slots = threading.Semaphore(max(min(most, _MAX_UNDER_WAY), 1))

        def frames() -> Iterator[pb.PublishStreamRequest]:
            for number in itertools.count():
                slots.acquire()
                if self._stop.is_set():
                    return
                first = number * self.size
                events = [new_event(f"stream-{caller}", first + n) for n in range(self.size)]
                yield pb.PublishStreamRequest(sequence=number, events=events)

        with grpc.insecure_channel(self._address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            for answer in pb_grpc.PublisherServiceStub(channel).PublishStream(frames()):
                for result in answer.results:
                    if result.HasField("receipt"):
                        self.acked[caller].append(result.receipt.event_id)
                        self.outcomes[pb.Outcome.Name(result.receipt.outcome)] += 1
                    else:
                        self.outcomes[str(result.error.code)] += 1
                slots.release()
