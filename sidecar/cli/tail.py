"""The tail command: the events of the queue, a line each, as they come."""

from __future__ import annotations

import argparse
import os
import select
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from sidecar.cli import connection
from sidecar.cli.exits import Failed, without_traceback
from sidecar.format import as_json, legible, moment

if TYPE_CHECKING:
    import grpc

    from modelready.v1 import queue_service_pb2 as pb

_MAX = 1000
_PAUSE_SECONDS = 0.5
Id = tuple[int, int]


def add(parsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The parser of the command."""
    help_text = "follow the events of the queue, until Ctrl-C"
    parser = parsers.add_parser("tail", help=help_text, allow_abbrev=False)
    parser.add_argument("--group", default="", help="first what this group has not acknowledged, then new events")
    parser.add_argument("--last", type=_number, default=0, metavar="N", help=f"first the N newest, at most {_MAX}")
    parser.add_argument("--json", action="store_true", help="an object a line: entry_id and event")
    connection.add_options(parser)
    parser.set_defaults(run=run)


def _number(text: str) -> int:
    number = int(text)
    if not 0 <= number <= _MAX:
        raise ValueError(text)
    return number


@without_traceback
def run(options: argparse.Namespace) -> int:
    """Print events until Ctrl-C or until its reader has left. Raises Failed if it cannot begin."""
    show: Callable[[pb.TailEventsResponse], str] = as_json if options.json else _line
    with connection.connect(options) as sidecar:
        tail = Tail(sidecar, options.group, options.last)
        _watch_reader(tail.end)
        with suppress(KeyboardInterrupt):
            for answer in tail.answers():
                print(show(answer), flush=True)
    return 0


class Tail:
    """Follows across restarts of the sidecar, and shows no entry twice."""

    def __init__(self, sidecar: connection.Sidecar, group: str, last: int) -> None:
        self._sidecar = sidecar
        self._group = group
        self._last = last
        # Before the first entry the clock decides what is new after a restart; a group knows by itself.
        self._seen: Id = (0, 0) if group else (int(time.time() * 1000), 0)
        self._saw_any = False
        self._call: grpc.Call | None = None
        self._ended = False

    def end(self) -> None:
        """End it, from any thread."""
        self._ended = True
        if self._call is not None:
            self._call.cancel()

    def answers(self) -> Iterator[pb.TailEventsResponse]:
        """Until `end` is called. Raises Failed if it cannot begin, and when waiting does not help."""
        self._is_there()
        again = False
        while not self._ended:
            try:
                yield from self._follow(again=again)
            except Failed as failure:
                if self._ended:
                    return
                if not failure.transient:
                    raise
                _say(f"{failure}; trying again")
                self._wait()
                if not self._ended:
                    _say("connected again")
            again = True

    def _is_there(self) -> bool:
        from modelready.v1 import queue_service_pb2 as pb

        return self._sidecar.call(self._sidecar.stub.GetQueueStatus, pb.GetQueueStatusRequest()).redis_up

    def _wait(self) -> None:
        there = False
        while not (there or self._ended):
            time.sleep(_PAUSE_SECONDS)
            try:
                there = self._is_there()
            except Failed as failure:
                if not failure.transient:
                    raise

    def _follow(self, *, again: bool) -> Iterator[pb.TailEventsResponse]:
        """One call. After a reconnect it shows what came meanwhile, as far as the stream has it."""
        import grpc

        from modelready.errors import from_call
        from modelready.v1 import queue_service_pb2 as pb

        last = _MAX if again and not self._group else self._last
        request = pb.TailEventsRequest(last=last, group=self._group)
        call = self._sidecar.stub.TailEvents(request, metadata=self._sidecar.metadata)
        self._call = call
        if self._ended:
            call.cancel()
        may_miss = again and self._saw_any and not self._group
        try:
            for answer in call:
                entry = _position(answer.entry_id)
                if may_miss and entry > self._seen:
                    _say("events may be missing here: more came meanwhile than can be shown")
                may_miss = False
                if again and entry <= self._seen:
                    continue
                self._seen, self._saw_any = entry, True
                yield answer
        except grpc.RpcError as error:
            raise self._sidecar.target.explain(from_call(error)) from None


def _position(entry_id: str) -> Id:
    time_part, _, sequence = entry_id.partition("-")
    return int(time_part), int(sequence)


def _line(answer: pb.TailEventsResponse) -> str:
    event = answer.event
    subject = f"{event.model.name}/{event.model.version}" if answer.HasField("event") else "(not legible)"
    fields = [subject, event.promotion.environment, event.event_id, event.correlation_id]
    when = moment(_position(answer.entry_id)[0] / 1000)
    return "  ".join([when, answer.entry_id, *(legible(field) or "-" for field in fields)])


def _say(text: str) -> None:
    print(f"modelready-sidecar: {text}", file=sys.stderr, flush=True)


def _watch_reader(ended: Callable[[], None]) -> None:
    """Call `ended` when standard output is a pipe whose reader has left; a write would notice it too late."""
    try:
        output = sys.stdout.fileno()
        if not stat.S_ISFIFO(os.fstat(output).st_mode):
            return
    except (OSError, ValueError):
        return

    def watch() -> None:
        poll = select.poll()
        poll.register(output, 0)  # poll always reports errors and hang-ups
        poll.poll()
        ended()

    threading.Thread(target=watch, name="reader", daemon=True).start()
