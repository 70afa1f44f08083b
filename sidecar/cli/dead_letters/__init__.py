"""The dead-letters commands: list, show, replay, discard. calls.py has the calls over gRPC."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sidecar.cli import connection
from sidecar.cli.exits import Failed, Misused, without_traceback
from sidecar.format import age, as_json, count, legible, moment, seconds, shorten, since

if TYPE_CHECKING:
    from modelready.v1 import queue_service_pb2 as pb
    from sidecar.cli.dead_letters.calls import Done, Letters

_ID = re.compile(r"\d{1,20}-\d{1,20}", re.ASCII)
_FILTERS = ("reason", "model", "origin", "older_than", "newer_than")
_MAX_DETAIL = 60


def add(parsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The parsers of the commands."""
    help_text = "list, show, replay or discard events that failed permanently"
    group = parsers.add_parser("dead-letters", help=help_text, allow_abbrev=False)
    commands = group.add_subparsers(dest="subcommand", metavar="command", required=True)

    listing = _parser(commands, "list", "list them, the oldest first")
    _add_filters(listing)
    listing.add_argument("--limit", type=_limit, default=100, metavar="N", help="at most N (default: 100)")
    listing.add_argument("--json", action="store_true", help="an object a line")
    connection.add_options(listing)
    listing.set_defaults(run=_list)

    showing = _parser(commands, "show", "show one, with its history and its event")
    showing.add_argument("id", type=_letter_id, metavar="ID", help="from the list")
    showing.add_argument("--json", action="store_true", help="as JSON")
    connection.add_options(showing)
    showing.set_defaults(run=_show)

    replaying = _parser(commands, "replay", "put them back into the queue")
    _add_selection(replaying)
    replaying.add_argument(
        "--to", choices=["origin", "all"], default="origin",
        help="only the group that gave it up, or all groups and the mirror lists (default: origin)",
    )  # fmt: skip
    replaying.add_argument(
        "--list",
        default="",
        metavar="NAME",
        help="all that consumers of this mirror list gave up, back into it",
    )
    replaying.add_argument(
        "--rate", type=_rate, default=0.0, metavar="N", help="at most N a second (default: no limit)"
    )
    replaying.usage = "%(prog)s (ID ... | --all | filters | --list NAME) [options]"
    replaying.set_defaults(run=_replay)

    discarding = _parser(commands, "discard", "delete them")
    _add_selection(discarding)
    discarding.set_defaults(run=_discard, list="")


def _parser(commands: Any, name: str, help_text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help_text, allow_abbrev=False)
    return parser


def _add_filters(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("filters; all that are given must match")
    group.add_argument("--reason", default="", help="a constant such as HANDLER_FAILED")
    group.add_argument("--model", default="", help="the model's name")
    group.add_argument("--origin", default="", help="sidecar, or group:<name> for the group that gave it up")
    group.add_argument("--older-than", type=age, metavar="AGE", help="dead for at least this time: 90s, 15m, 2h, 3d")
    group.add_argument("--newer-than", type=age, metavar="AGE", help="dead for at most this time")


def _add_selection(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s (ID ... | --all | filters) [options]"
    parser.add_argument("ids", nargs="*", type=_letter_id, metavar="ID", help="from the list")
    parser.add_argument("--all", action="store_true", help="all of them")
    _add_filters(parser)
    parser.add_argument("--dry-run", action="store_true", help="only count them")
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    parser.add_argument("--json", action="store_true", help="the counts as JSON")
    connection.add_options(parser, admin=True)
    parser.set_defaults(misused=parser.error)


def _letter_id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the id of a dead letter, such as 1700000000000-0")
    return text


def _limit(text: str) -> int:
    limit = int(text)
    if limit < 1:
        raise ValueError(text)
    return limit


def _rate(text: str) -> float:
    rate = float(text)
    if not (rate >= 0.001 and math.isfinite(rate)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate: at least 0.001 a second")
    return rate


# -- list and show


@without_traceback
def _list(options: argparse.Namespace) -> int:
    from sidecar.cli.dead_letters.calls import opened

    shown = 0
    with opened(options) as letters:
        for letter in letters.matching(options.limit + 1):
            if shown == options.limit:
                print(f"there are more than {options.limit:,}: give a filter or a higher --limit", file=sys.stderr)
                break
            if options.json:
                print(as_json(letter))
            else:
                print(*([_HEAD] if not shown else []), _row(letter), sep="\n")
            shown += 1
    if not shown:
        print("there are none", file=sys.stderr)
    return 0


_HEAD = f"{'id':<22}{'age':>8}  {'reason':<20} {'origin':<20} {'tries':>5}  {'model':<24} detail"


def _row(letter: pb.DeadLetter) -> str:
    detail = shorten(legible(letter.detail), _MAX_DETAIL)
    age = since(letter.dead_at) if letter.HasField("dead_at") else "-"
    reason, origin, subject = (legible(text) or "-" for text in (letter.reason, letter.origin, letter.subject))
    return f"{letter.id:<22}{age:>8}  {reason:<20} {origin:<20} {letter.attempts:>5}  {subject:<24} {detail}".rstrip()


@without_traceback
def _show(options: argparse.Namespace) -> int:
    from sidecar.cli.dead_letters.calls import opened

    with opened(options) as letters:
        letter = letters.get(options.id)
    print(as_json(letter, indent=2) if options.json else "\n".join(_story(letter)))
    return 0


def _story(letter: pb.DeadLetter) -> Iterator[str]:
    times = {
        name: f"{moment(seconds(value))}, {since(value)} ago" if letter.HasField(field) else "-"
        for name, field, value in (
            ("first tried", "first_at", letter.first_at),
            ("last tried", "last_at", letter.last_at),
            ("dead since", "dead_at", letter.dead_at),
        )
    }  # fmt: skip
    rows = {
        "id": letter.id, "reason": letter.reason, "detail": letter.detail, "origin": letter.origin,
        "tries": str(letter.attempts), **times, "entry id": letter.entry_id, "event id": letter.event_id,
        "correlation": letter.correlation_id, "model": letter.subject, "content type": letter.content_type,
    }  # fmt: skip
    yield from (f"{name:<14}{legible(value) or '-'}" for name, value in rows.items())
    yield ""
    if letter.HasField("event"):
        yield as_json(letter.event, indent=2)
        return
    yield f"the data cannot be read as an event: {len(letter.data):,} bytes"
    yield from _dump(letter.data)


def _dump(data: bytes) -> Iterator[str]:
    """The bytes in hexadecimal, and beside them as text."""
    for start in range(0, len(data), 16):
        row = data[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        yield f"{start:08x}  {row.hex(' '):<47}  {text}"


# -- replay and discard


@without_traceback
def _replay(options: argparse.Namespace) -> int:
    whom = "to the group that gave each up" if options.to == "origin" else "to all groups"
    if options.list:
        whom = f"to the list {legible(options.list)}"

    def replay(letters: Letters, ids: Sequence[str], *, dry_run: bool) -> Iterator[Done]:
        if options.list:
            return letters.replay_list(options.list, rate=options.rate, dry_run=dry_run)
        return letters.replay(ids, everyone=options.to == "all", rate=options.rate, dry_run=dry_run)

    return _change(options, ("replay", "replayed", whom), replay)


@without_traceback
def _discard(options: argparse.Namespace) -> int:
    def discard(letters: Letters, ids: Sequence[str], *, dry_run: bool) -> Iterator[Done]:
        return letters.discard(ids, dry_run=dry_run)

    return _change(options, ("discard", "discarded", "permanently"), discard)


def _change(options: argparse.Namespace, words: tuple[str, str, str], work: Any) -> int:
    """Count, ask, do. The selection is made first: later dead letters are left alone."""
    _check(options)
    from sidecar.cli.dead_letters.calls import opened

    verb, past, how = words
    with opened(options) as letters:
        ids = options.ids or ([] if options.list else [letter.id for letter in letters.matching(None)])
        if options.dry_run or not options.yes:
            counted = _work(f"would be {past}", work(letters, ids, dry_run=True))
            if options.dry_run:
                _show_counts(options, f"would be {past}", counted)
                return 0
            if not counted.done:
                _show_counts(options, f"would be {past}", counted)
                return _code(options, counted)
            print(
                f"{_sentence(f'would be {past}', counted)}. {verb.capitalize()} {how}? [y/N] ", end="", file=sys.stderr
            )
            sys.stderr.flush()
            if sys.stdin.readline().strip().lower() not in ("y", "yes"):
                raise Failed(f"nothing was {past}")
        done = _work(past, work(letters, ids, dry_run=False))
        _show_counts(options, past, done)
        return _code(options, done)


def _show_counts(options: argparse.Namespace, past: str, done: Done) -> None:
    print(json.dumps({"dry_run": options.dry_run, **done._asdict()}) if options.json else _sentence(past, done))


def _work(past: str, steps: Iterator[Done]) -> Done:
    """The sum of all steps. If it ends early, it says what was done so far."""
    from sidecar.cli.dead_letters.calls import Done

    total = Done()
    try:
        for step in steps:
            total = Done(*(a + b for a, b in zip(total, step, strict=True)))
    except KeyboardInterrupt:
        print(f"interrupted; so far {_sentence(past, total)}, and perhaps some of the next batch", file=sys.stderr)
        raise
    except Failed as failure:
        raise Failed(f"{failure} (so far {_sentence(past, total)}; run the same command again to go on)") from None
    return total


def _sentence(past: str, done: Done) -> str:
    text = f"{count(done.done, 'dead letter')} {past}"
    text += f", {done.missing:,} not there" if done.missing else ""
    return text + (f", {done.skipped:,} left: unreadable, or the group is gone" if done.skipped else "")


def _code(options: argparse.Namespace, done: Done) -> int:
    """1 if something was not done; what a filter found and someone else has removed since does not count."""
    return 1 if done.skipped or (options.ids and done.missing) else 0


def _check(options: argparse.Namespace) -> None:
    """Check the selection. Raises Misused, or ends the command by parser.error: exit code 2."""
    filtered = any(getattr(options, name) not in ("", None) for name in _FILTERS)
    if sum([bool(options.ids), options.all, filtered, bool(options.list)]) != 1:
        options.misused("select them by ids, --all, filters, or --list for a replay")
    if not (options.yes or options.dry_run or sys.stdin.isatty()):
        raise Misused("there is no terminal to ask on: give --yes, or --dry-run to count them")
