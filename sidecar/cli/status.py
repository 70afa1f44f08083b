"""The status command: GetQueueStatus as a table or as JSON, once or again and again."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NoReturn

from sidecar.cli import connection
from sidecar.cli.exits import Failed, without_traceback
from sidecar.format import as_json, count, duration, legible, moment, since, size
from sidecar.summary import is_well, lists, runbooks, summarize

if TYPE_CHECKING:
    from modelready.v1 import queue_service_pb2 as pb

_PERIOD_SECONDS = 2.0
_HOME, _END_OF_LINE, _REST = "\x1b[H", "\x1b[K", "\x1b[J"


def add(parsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The parser of the command."""
    help_text = "show the queue, its groups, the spool and the dead letters"
    parser = parsers.add_parser("status", help=help_text, allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="as JSON; with --watch one object a line")
    parser.add_argument(
        "--watch",
        nargs="?",
        type=_period,
        const=_PERIOD_SECONDS,
        metavar="SECONDS",
        help="repeat until Ctrl-C (default: every 2)",
    )
    connection.add_options(parser)
    parser.set_defaults(run=run)


def _period(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is no period: it must be from 0.1 to 86400 seconds")
    return seconds


@without_traceback
def run(options: argparse.Namespace) -> int:
    """Print the status; return 0 where it is well, else 1. Raises Failed."""
    with connection.connect(options) as sidecar:
        if options.watch is None:
            status = _ask(sidecar)
            print(as_json(status, indent=2, whole=True) if options.json else table(status))
            return 0 if is_well(status) else 1
        try:
            _watch(sidecar, options.watch, json=options.json)
        except KeyboardInterrupt:  # the usual end
            return 0


def _ask(sidecar: connection.Sidecar) -> pb.GetQueueStatusResponse:
    from modelready.v1 import queue_service_pb2 as pb

    return sidecar.call(sidecar.stub.GetQueueStatus, pb.GetQueueStatusRequest())


def _watch(sidecar: connection.Sidecar, period: float, *, json: bool) -> NoReturn:
    """In place on a terminal, else a block each time. Goes on while the sidecar is away."""
    in_place = sys.stdout.isatty() and not json
    if in_place:
        print(f"{_HOME}{_REST}", end="")
    while True:
        try:
            status = _ask(sidecar)
            text = as_json(status, whole=True) if json else table(status)
        except Failed as failure:
            if not failure.transient:
                raise
            text = "" if json else f"failure: {failure}"
            if json:
                print(f"modelready-sidecar: {failure}", file=sys.stderr)
        if in_place:
            lines = [moment(time.time()), *text.splitlines()]
            print(_HOME + "".join(f"{line}{_END_OF_LINE}\n" for line in lines) + _REST, end="", flush=True)
        elif json:
            print(f"{text}\n" if text else "", end="", flush=True)
        else:
            print(f"{moment(time.time())}\n{text}\n", flush=True)
        time.sleep(period)


def table(status: pb.GetQueueStatusResponse) -> str:
    """The status as text: the state in words, where to read on and what to run next, and what it was made of."""
    lines = [summarize(status)]
    lines += [f"  docs/operations.md#{runbook}, next: {command}" for runbook, command in runbooks(status).items()]
    lines += ["", *(f"{name:<14}{value}" for name, value in _rows(status))]
    if status.groups:
        lines += ["", *_groups(status)]
    return "\n".join(lines)


def _rows(status: pb.GetQueueStatusResponse) -> Iterator[tuple[str, str]]:
    yield "queue", f"{status.queue}   stream {status.stream}"
    if status.HasField("promise"):
        promise = status.promise
        waiting = f", {count(promise.pending, 'event')} in memory" if promise.pending else ""
        yield "publishing", f"{legible(promise.summary)}{waiting}"
    yield "redis", _redis(status) if status.redis_up else f"AWAY ({legible(status.redis_error)})"
    if status.redis.engine:
        yield "memory", _memory(status.redis)
    entries = f"{status.stream_length:,} {'entry' if status.stream_length == 1 else 'entries'}"
    yield "stream", entries if status.redis_up else "not known"
    if status.HasField("trim"):
        yield "retention", _kept(status)
    yield "dead letters", _dead_letters(status) if status.redis_up else "not known"
    spool = status.spool
    oldest = f", the oldest {since(spool.oldest_at)} ago" if spool.HasField("oldest_at") else ""
    free = f"; {size(spool.free_bytes)} of the disk are free" if spool.free_bytes else ""
    yield "spool", f"{count(spool.depth, 'event')}, {size(spool.bytes)} of {size(spool.max_bytes)}{oldest}{free}"
    if status.HasField("outbox"):
        yield "outbox", _outbox(status.outbox)
    for mirror in lists(status):
        in_flight = f"in flight {mirror.processing:,}{_key(mirror.processing_key)}"
        given_up = f"given up {mirror.dead_letters:,}{_key(mirror.dead_letters_key)}"
        yield "list", f"{legible(mirror.name)}: {mirror.depth:,}, {in_flight}, {given_up}"


def _outbox(outbox: pb.OutboxStatus) -> str:
    oldest = f", the oldest for {duration(outbox.oldest_age.seconds)}" if outbox.depth else ""
    failing = f"; NOT BEING EMPTIED ({legible(outbox.error)})" if outbox.error else ""
    return f"{count(outbox.depth, 'row')}{oldest}, {outbox.refused:,} refused{failing}"


def _key(name: str) -> str:
    return f" ({legible(name)})" if name else ""


def _redis(status: pb.GetQueueStatusResponse) -> str:
    redis = status.redis
    if not redis.engine:
        return "up"
    words = [f"{redis.engine} {redis.version}".strip(), {"slave": "replica"}.get(redis.role, redis.role)]
    words += [count(redis.replicas, "replica"), "cluster" if redis.cluster else ""]
    words.append(f"{redis.latency.seconds * 1e3 + redis.latency.nanos / 1e6:.1f} ms")
    return "up: " + ", ".join(legible(word) for word in words if word)


def _memory(redis: pb.RedisStatus) -> str:
    limit = f" of {size(redis.max_memory_bytes)}" if redis.max_memory_bytes else ", no limit"
    return f"{size(redis.used_memory_bytes)}{limit}, {legible(redis.eviction_policy) or 'eviction policy not known'}"


def _kept(status: pb.GetQueueStatusResponse) -> str:
    trim = status.trim
    text = duration(trim.retention.seconds) if trim.retention.seconds else "for ever"
    if trim.HasField("oldest_entry_at"):
        text += f", the oldest entry {since(trim.oldest_entry_at)} ago"
    text += f", at most {trim.max_depth:,} unacknowledged" if trim.max_depth else ""
    return f"{text}, about {count(status.dedup_keys, 'dedup key')}"


def _dead_letters(status: pb.GetQueueStatusResponse) -> str:
    text = f"{status.dead_letters:,}"
    if status.HasField("oldest_dead_letter_at"):
        text += f", the oldest {since(status.oldest_dead_letter_at)} ago"
    reasons = ", ".join(f"{legible(one.reason) or '(none)'} {one.count:,}" for one in status.dead_letter_reasons)
    return f"{text}: {reasons}" if reasons else text


def _groups(status: pb.GetQueueStatusResponse) -> Iterator[str]:
    width = group_width(group.name for group in status.groups)
    yield group_head(width)
    for group in status.groups:
        holds = "   holds back trimming" if group.name == status.trim.held_back_by else ""
        yield f"{group_row(group, width)}{holds}"


def group_width(names: Iterable[str]) -> int:
    """Of the column that has these names."""
    return max([24, *(len(legible(name)) + 2 for name in names)])


def group_head(width: int) -> str:
    """The first line of a table of groups."""
    numbers = f"{'depth':>9}{'pending':>9}{'undelivered':>13}{'consumers':>11}{'idle':>9}"
    return f"{'group':<{width}}{numbers}   oldest unacknowledged"


def group_row(group: pb.GroupStatus, width: int) -> str:
    """One group in that table."""
    idle = duration(group.idle.seconds) if group.HasField("idle") else "-"
    oldest = f"{since(group.oldest_unacknowledged_at)} ago" if group.HasField("oldest_unacknowledged_at") else "-"
    numbers = f"{group.depth:>9,}{group.pending:>9,}{group.undelivered:>13,}{group.consumers:>11,}{idle:>9}"
    return f"{legible(group.name):<{width}}{numbers}   {oldest}"
