"""The publish command: one event by flags, or events as JSON on standard input, by the product's own client."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from sidecar.cli import connection
from sidecar.cli.exits import Failed, Misused, mute, without_traceback

if TYPE_CHECKING:
    from modelready import ModelReadyToDeploy, Publisher, PublishError, Receipt

    Show = Callable[[Receipt], str]

_TEXTS = {
    "--event-id": "its idempotency key (default: a new one)",
    "--correlation-id": "follows it through logs, entries and dead letters",
    "--source": "which registry; default: the sidecar's SIDECAR_SOURCE",
    "--environment": "where it is to be deployed",
    "--alias": "such as champion",
}
_READ_BYTES = 1 << 20


def add(parsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The parser of the command."""
    help_text = "publish an event by flags, or events as JSON on standard input"
    usage = "%(prog)s [options] --name NAME --version VERSION --uri URI\n       %(prog)s [options] -  < events.jsonl"
    parser = parsers.add_parser("publish", help=help_text, usage=usage, allow_abbrev=False)
    parser.add_argument("input", nargs="?", choices=["-"], metavar="-", help="read events from standard input")
    event = parser.add_argument_group("the event")
    event.add_argument("--name", help="the model's name; required without -")
    event.add_argument("--version", help="its version; required without -")
    event.add_argument("--uri", help="where its files are; required without -")
    for flag, text in _TEXTS.items():
        event.add_argument(flag, default="", help=text)
    event.add_argument("--metric", type=_metric, action="append", default=[], metavar="K=V", help="may be repeated")
    event.add_argument("--label", type=_pair, action="append", default=[], metavar="K=V", help="may be repeated")
    parser.add_argument("--durability", choices=["spooled", "primary", "replicated"], help="default: the sidecar's")
    parser.add_argument("--timeout", type=_seconds, default=5.0, help="seconds, retries included (default: 5)")
    parser.add_argument("--json", action="store_true", help="receipts as JSON, an object a line")
    connection.add_options(parser)
    parser.set_defaults(run=_run, misused=parser.error)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not K=V")
    return key, value


def _metric(text: str) -> tuple[str, float]:
    key, value = _pair(text)
    try:
        return key, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not K=V with a number V") from None


def _seconds(text: str) -> float:
    seconds = float(text)
    if not (seconds > 0 and math.isfinite(seconds)):
        raise ValueError(text)
    return seconds


@without_traceback
def _run(options: argparse.Namespace) -> int:
    _check(options)
    where = connection.target(options)
    from modelready import Durability, Publisher
    from modelready._channel import checked_address

    try:
        checked_address(where.address)
    except ValueError as error:
        raise Failed(f"not published: {error}") from None
    try:
        publisher = Publisher(
            where.address,
            token=where.token or None,
            tls=where.tls,
            timeout=options.timeout,
            durability=Durability(options.durability or "unspecified"),
            source=options.source,
        )
    except ValueError as error:  # a token that the sidecar allows and the client does not
        raise Misused(f"{where.token_from}: {error}") from None
    show: Show = _as_json if options.json else _as_line
    with publisher:
        if options.input is None:
            print(show(_publish_one(publisher, options, where)))
            return 0
        try:
            return _publish_lines(publisher, options.timeout, where, show)
        except BrokenPipeError:
            mute()
            return 1  # events whose receipts were not read may not have been published


def _check(options: argparse.Namespace) -> None:
    """By parser.error, which ends the command: exit code 2."""
    given = [
        flag
        for flag in ("--name", "--version", "--uri", *_TEXTS, "--metric", "--label")
        if getattr(options, flag[2:].replace("-", "_")) not in (None, "", [])
    ]
    if options.input:
        if wrong := [flag for flag in given if flag != "--source"]:
            options.misused(f"with - the events come from standard input: leave out {', '.join(wrong)}")
    elif missing := [flag for flag in ("--name", "--version", "--uri") if flag not in given]:
        options.misused(f"{', '.join(missing)} must be given, or - to read events from standard input")


def _publish_one(publisher: Publisher, options: argparse.Namespace, where: connection.Target) -> Receipt:
    from modelready import PublishError

    try:
        return publisher.publish(
            name=options.name,
            version=options.version,
            uri=options.uri,
            event_id=options.event_id or None,
            correlation_id=options.correlation_id,
            environment=options.environment,
            alias=options.alias,
            metrics=dict(options.metric),
            labels=dict(options.label),
        )
    except PublishError as error:
        raise Failed(_failure(error, where)) from None


def _failure(error: PublishError, where: connection.Target) -> str:
    """With the id, if publishing again can help."""
    again = f" (again: --event-id {error.event_id})" if error.event_id and error.reason != "INVALID_EVENT" else ""
    return f"not published: {where.explain(error)}{again}"


def _as_line(receipt: Receipt) -> str:
    return f"{receipt.outcome}  {receipt.entry_id or '-'}  {receipt.event_id}  {receipt.correlation_id}"


def _as_json(receipt: Receipt) -> str:
    return json.dumps(asdict(receipt), ensure_ascii=False)


def _publish_lines(publisher: Publisher, timeout: float, where: connection.Target, show: Show) -> int:
    """Exit code 0 when all were published. Raises Failed when the sidecar acknowledges nothing any more."""
    from google.protobuf import json_format

    from modelready import ModelReadyToDeploy, PublishError

    sent: list[int] = []  # the lines whose results are to come
    failed = False

    def complain(number: int, text: str) -> None:
        nonlocal failed
        failed = True
        print(f"modelready-sidecar: line {number}: {text}", file=sys.stderr, flush=True)

    def events(lines: list[tuple[int, bytes]]) -> Iterator[ModelReadyToDeploy]:
        for number, line in lines:
            try:
                event = json_format.Parse(line, ModelReadyToDeploy())
            except (json_format.ParseError, UnicodeDecodeError, RecursionError) as error:
                complain(number, f"no event: {' '.join(str(error).split())}")
            else:
                sent.append(number)
                yield event

    for lines in _batches():
        try:
            for result in publisher.publish_many(events(lines), timeout=timeout):
                number = sent.pop(0)
                if isinstance(result, PublishError):
                    complain(number, _failure(result, where))
                else:
                    print(show(result), flush=True)
        except PublishError as error:
            raise Failed(f"stopped there; no later line was sent: {where.explain(error)}") from None
    return int(failed)


def _batches() -> Iterator[list[tuple[int, bytes]]]:
    """Lines with their numbers, as many as have arrived: an event does not wait for those behind it."""
    rest, number, begun = b"", 0, False
    while chunk := os.read(sys.stdin.fileno(), _READ_BYTES):
        whole, newline, rest = (rest + chunk).rpartition(b"\n")
        if not newline:
            continue
        if not begun and whole.lstrip().partition(b"\n")[0].strip() == b"{":  # one event over several lines
            whole = b"".join((whole, newline, rest, *iter(lambda: os.read(sys.stdin.fileno(), _READ_BYTES), b"")))
            yield [(whole[: len(whole) - len(whole.lstrip())].count(b"\n") + 1, whole)]
            return
        lines = [(number + at, line) for at, line in enumerate(whole.split(b"\n"), 1)]
        number += len(lines)
        lines = [(at, line) for at, line in lines if line.strip()]
        begun = begun or bool(lines)
        if lines:
            yield lines
    if rest.strip():
        yield [(number + 1, rest)]
