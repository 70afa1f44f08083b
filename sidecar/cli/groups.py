"""The groups commands: list, create, remove, reset."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sidecar.cli import connection
from sidecar.cli.exits import Failed, Misused, without_traceback
from sidecar.cli.status import group_head, group_row, group_width
from sidecar.format import age, as_json, count, duration, legible

if TYPE_CHECKING:
    from modelready.v1 import queue_service_pb2 as pb

_WORDS = ("oldest", "newest")
_ID = re.compile(r"\d{1,20}-\d{1,20}", re.ASCII)
_START = (
    "oldest: all that is in the stream; newest: what comes from now on; an age such as 2h: what came since; or "
    "an entry's id: what comes after it"
)


def add(parsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The parsers of the commands."""
    help_text = "list, create, remove or reset consumer groups"
    group = parsers.add_parser("groups", help=help_text, allow_abbrev=False)
    commands = group.add_subparsers(dest="subcommand", metavar="command", required=True)

    listing = commands.add_parser("list", help="list them with their consumers", allow_abbrev=False)
    listing.add_argument("name", nargs="?", default="", metavar="GROUP", help="only this one")
    listing.add_argument("--json", action="store_true", help="an object a line")
    connection.add_options(listing)
    listing.set_defaults(run=_list)

    creating = commands.add_parser("create", help="create one", allow_abbrev=False)
    creating.add_argument("name", metavar="GROUP")
    creating.add_argument("--start", type=_position, default="oldest", help=f"{_START} (default: oldest)")
    creating.add_argument("--json", action="store_true", help="the group as JSON")
    connection.add_options(creating, admin=True)
    creating.set_defaults(run=_create)

    removing = commands.add_parser("remove", help="remove one for which nobody reads any more", allow_abbrev=False)
    resetting = commands.add_parser("reset", help="let one begin again elsewhere in the stream", allow_abbrev=False)
    for parser in (removing, resetting):
        parser.add_argument("name", metavar="GROUP")
        parser.add_argument("--force", action="store_true", help="also while it is being read")
        parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")
        parser.add_argument("--json", action="store_true", help="the group as it was, as JSON")
        connection.add_options(parser, admin=True)
    resetting.add_argument("--start", type=_position, required=True, help=_START)
    removing.set_defaults(run=_remove)
    resetting.set_defaults(run=_reset)


def _position(text: str) -> str:
    """As the sidecar takes it: an age is the id of a moment."""
    if text in _WORDS or _ID.fullmatch(text):
        return text
    try:
        return f"{int((time.time() - age(text)) * 1000)}-0"
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no position: write oldest, newest, an age such as 2h, or an id such as 1700000000000-0"
        ) from None


@without_traceback
def _list(options: argparse.Namespace) -> int:
    from modelready.v1 import queue_service_pb2 as pb

    with connection.connect(options) as sidecar:
        groups = sidecar.call(sidecar.stub.ListGroups, pb.ListGroupsRequest(name=options.name), timeout=20).groups
    if options.json:
        for group in groups:
            print(as_json(group, whole=True))
    elif groups:
        print("\n".join(_table(groups)))
    else:
        print("there are none", file=sys.stderr)
    return 0


def _table(groups: Sequence[pb.Group]) -> Iterator[str]:
    """Each group, and below it its consumers."""
    names = [f"  {consumer.name}" for group in groups for consumer in group.consumers]
    width = group_width([*(group.status.name for group in groups), *names])
    yield group_head(width)
    for group in groups:
        yield group_row(group.status, width)
        for consumer in group.consumers:
            idle = duration(consumer.idle.seconds) if consumer.HasField("idle") else "-"
            yield f"{f'  {legible(consumer.name)}':<{width}}{'':>9}{consumer.pending:>9,}{'':>24}{idle:>9}"


@without_traceback
def _create(options: argparse.Namespace) -> int:
    from modelready.v1 import queue_service_pb2 as pb

    with connection.connect(options) as sidecar:
        request = pb.CreateGroupRequest(name=options.name, start=options.start)
        group = sidecar.call(sidecar.stub.CreateGroup, request).group
    _say(options, group, f"is created: {count(group.depth, 'event')} to read")
    return 0


@without_traceback
def _remove(options: argparse.Namespace) -> int:
    from modelready.v1 import queue_service_pb2 as pb

    request = pb.RemoveGroupRequest(name=options.name, force=options.force)
    lost = "These are lost for the group, and its dead letters cannot go back to it. Remove it?"
    group = _change(options, "RemoveGroup", request, lost)
    _say(options, group, f"is removed: it had {_unacknowledged(group)}")
    return 0


@without_traceback
def _reset(options: argparse.Namespace) -> int:
    from modelready.v1 import queue_service_pb2 as pb

    request = pb.ResetGroupRequest(name=options.name, start=options.start, force=options.force)
    if options.start == "newest":
        where, lost = options.start, "They are lost for the group"
    elif options.start == "oldest":
        where, lost = options.start, "It gets every event again"
    else:
        where = f"entry {options.start}"
        lost = f"What is before {where} is lost for the group, and what is after it comes again"
    group = _change(options, "ResetGroup", request, f"{lost}. Begin again at {where}?")
    _say(options, group, f"begins again at {where}: it had {_unacknowledged(group)}")
    return 0


def _change(options: argparse.Namespace, method: str, request: Any, question: str) -> pb.GroupStatus:
    """Ask unless --yes is given, and do it. Returns the group as it was. Raises Failed."""
    if not (options.yes or sys.stdin.isatty()):
        raise Misused("there is no terminal to ask on: give --yes")
    with connection.connect(options) as sidecar:
        call = getattr(sidecar.stub, method)
        if not options.yes:
            request.dry_run = True
            _ask(f"{_state(sidecar.call(call, request).group)}. {question}")
            request.dry_run = False
        group: pb.GroupStatus = sidecar.call(call, request).group
        return group


def _ask(question: str) -> None:
    """Raises Failed unless the answer is yes."""
    print(f"{question} [y/N] ", end="", file=sys.stderr)
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Failed("nothing was changed")


def _say(options: argparse.Namespace, group: pb.GroupStatus, what: str) -> None:
    print(as_json(group, whole=True) if options.json else f"the group {legible(group.name)} {what}")


def _state(group: pb.GroupStatus) -> str:
    """What the group has, and when it was last read."""
    consumers = count(group.consumers, "consumer")
    read = f"{consumers}, last read {duration(group.idle.seconds)} ago" if group.HasField("idle") else consumers
    return f"the group {legible(group.name)} has {_unacknowledged(group)}, and {read}"


def _unacknowledged(group: pb.GroupStatus) -> str:
    return f"{count(group.depth, 'unacknowledged event')}, {group.pending:,} of them pending"
