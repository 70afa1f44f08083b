"""The state of a queue in one line, and what to do: the same in `status`, `/readyz` and on the page."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from sidecar.format import count, duration, legible, shorten, shorten_name, since
from sidecar.operations import UNREAD_SECONDS

if TYPE_CHECKING:
    from modelready.v1 import queue_service_pb2 as pb

    _T = TypeVar("_T", pb.GroupStatus, pb.ListStatus)

_NEARLY_FULL = 0.8
_MAX_LENGTH = 200  # fits into an alarm's mail or a chat, and is read at one glance
_MAX_NAME = 40
_PROGRAM = "modelready-sidecar"

RUNBOOKS = {
    "publishes-refused": "doctor",
    "connection-failures": "doctor",
    "auth-failures": "doctor",
    "spool-growing": "doctor",
    "spool-filling": "doctor",
    "spool-disk": "doctor",
    "outbox-not-draining": "doctor",
    "outbox-refused": "outbox list",
    "redis-memory": "groups list",
    "eviction-policy": "doctor",
    "queue-not-draining": "groups list",
    "list-not-draining": "status --watch",
    "dead-letters": "dead-letters list",
    "list-dead-letters": "dead-letters replay --dry-run --list {name}",
}
"""Headings of docs/operations.md, and for each the command to run next. `{name}`: of what the problem is about."""
_RUNBOOK_OF = {
    "REDIS_UNAVAILABLE": "connection-failures",
    "REDIS_AUTH_FAILED": "auth-failures",
    "REDIS_OOM": "redis-memory",
    "QUEUE_FULL": "queue-not-draining",
}
"""By the reason why Redis does not take events."""


class Problem(NamedTuple):
    """One thing that is wrong. `runbook`: one of RUNBOOKS; `name`: of the list that it is about."""

    text: str
    runbook: str
    name: str = ""

    @property
    def command(self) -> str:
        """The command to run next, for a shell."""
        return f"{_PROGRAM} {RUNBOOKS[self.runbook].format(name=shlex.quote(legible(self.name)))}"


def is_well(status: pb.GetQueueStatusResponse) -> bool:
    """Whether Redis answers and keeps the queue, and events are accepted, if the sidecar is new enough to say so."""
    return status.redis_up and not _evicts_queues(status) and not _refuses(status)


def lists(status: pb.GetQueueStatusResponse) -> Sequence[pb.ListStatus]:
    """The mirror lists. An older sidecar has only one, in another field."""
    return status.lists or ([status.list] if status.HasField("list") else [])


def depth(status: pb.GetQueueStatusResponse) -> int:
    """Entries of the slowest group; without groups, messages of the longest list; without lists, too, all entries."""
    return max((one.depth for one in status.groups or lists(status)), default=status.stream_length)


def is_unread(group: pb.GroupStatus) -> bool:
    """Whether events wait for the group and none of its consumers has asked for events in the last five minutes."""
    return bool(group.depth) and (not group.consumers or group.idle.seconds >= UNREAD_SECONDS)


def summarize(status: pb.GetQueueStatusResponse) -> str:
    """`ok: ...`, `warning: ...`, or `failure: ...` if events are refused or may be lost.

    The worst problem comes first. Of each kind the worst case is named and the others are counted. The line has at
    most 200 characters.
    """
    found = [problem.text for problem in _problems(status)]
    if not found:
        return "ok: Redis answers and events go straight into the queue"
    return _fit("failure: " if _evicts_queues(status) or _refuses(status) else "warning: ", found)


def runbooks(status: pb.GetQueueStatusResponse) -> Mapping[str, str]:
    """The runbooks of all problems, the worst first, each with the command to run next; none where all is well."""
    found: dict[str, str] = {}
    for problem in _problems(status):
        found.setdefault(problem.runbook, problem.command)
    return found


def _problems(status: pb.GetQueueStatusResponse) -> Sequence[Problem]:
    evicting = []
    if _evicts_queues(status):
        policy = legible(status.redis.eviction_policy)
        text = f"Redis deletes whole queues when its memory is full: {policy}, not noeviction"
        evicting.append(Problem(text, "eviction-policy"))
    publishing = list(_publishing(status))
    return [
        *(publishing + evicting if _refuses(status) else evicting + publishing),
        *_spool(status),
        *_outbox(status),
        *_redis(status),
        *_groups(status),
        *_dead_letters(status),
    ]


def _fit(level: str, found: Sequence[str]) -> str:
    """The first problem, shortened if it is too long, and as many of the others as fit."""
    line = level + found[0]
    for shown, text in enumerate(found[1:], 1):
        rest = f"; and {count(len(found) - shown, 'more warning')}"
        last = shown == len(found) - 1
        if len(line) + len("; ") + len(text) + (0 if last else len(rest)) > _MAX_LENGTH:
            return shorten(line, _MAX_LENGTH - len(rest)) + rest
        line += f"; {text}"
    return shorten(line, _MAX_LENGTH)


def _refuses(status: pb.GetQueueStatusResponse) -> bool:
    return status.HasField("promise") and not status.promise.accepting


def _evicts_queues(status: pb.GetQueueStatusResponse) -> bool:
    return status.redis.eviction_policy.startswith("allkeys")


def _publishing(status: pb.GetQueueStatusResponse) -> Iterator[Problem]:
    """What a caller gets, in the sidecar's own words, if something is wrong with it."""
    promise = status.promise
    if status.HasField("promise") and (not promise.accepting or promise.spooling or status.spool.error):
        yield Problem(f"events are {legible(promise.summary)}", _runbook(status))
    elif not status.redis_up:  # the sidecar has not noticed yet
        yield Problem(f"Redis is away ({legible(status.redis_error)})", "connection-failures")


def _runbook(status: pb.GetQueueStatusResponse) -> str:
    """Of what keeps events from Redis, or from the spool."""
    promise = status.promise
    if not promise.accepting:
        return "publishes-refused"
    if not promise.spooling:
        return "spool-disk"
    if promise.reason == "QUEUE_FULL" and lists(status) and not status.groups:
        return "list-not-draining"
    return _RUNBOOK_OF.get(promise.reason, "spool-growing" if status.redis_up else "connection-failures")


def _spool(status: pb.GetQueueStatusResponse) -> Iterator[Problem]:
    spool = status.spool
    if spool.depth:
        oldest = f", the oldest for {since(spool.oldest_at)}" if spool.HasField("oldest_at") else ""
        yield Problem(f"{count(spool.depth, 'event')} in the spool{oldest}", "spool-growing")
    if spool.max_bytes and spool.bytes >= _NEARLY_FULL * spool.max_bytes:
        yield Problem(f"the spool is {spool.bytes / spool.max_bytes:.0%} full", "spool-filling")


def _outbox(status: pb.GetQueueStatusResponse) -> Iterator[Problem]:
    outbox = status.outbox
    if outbox.error:
        waiting = f", {count(outbox.depth, 'row')} for {duration(outbox.oldest_age.seconds)}" if outbox.depth else ""
        text = f"the outbox is not being emptied{waiting} ({legible(outbox.error)})"
        yield Problem(text, "outbox-not-draining")
    if outbox.refused:
        yield Problem(f"{count(outbox.refused, 'row')} of the outbox refused", "outbox-refused")


def _redis(status: pb.GetQueueStatusResponse) -> Iterator[Problem]:
    redis = status.redis
    if redis.role == "slave":
        yield Problem("the Redis node that answers is a replica", "connection-failures")
    if redis.max_memory_bytes and redis.used_memory_bytes >= _NEARLY_FULL * redis.max_memory_bytes:
        share = redis.used_memory_bytes / redis.max_memory_bytes
        yield Problem(f"the memory of Redis is {share:.0%} full", "redis-memory")
    if redis.eviction_policy not in ("", "noeviction") and not _evicts_queues(status):
        policy = legible(redis.eviction_policy)
        text = f"Redis may evict what keeps events from being doubled: {policy}, not noeviction"
        yield Problem(text, "eviction-policy")


def _groups(status: pb.GetQueueStatusResponse) -> Iterator[Problem]:
    trim, draining = status.trim, "queue-not-draining"
    if held := trim.held_back_by:
        text = f"the group {_name(held)} holds back entries older than {duration(trim.retention.seconds)}"
        yield Problem(text, draining)
    unread = _deepest(group for group in status.groups if is_unread(group) and group.name != trim.held_back_by)
    if unread:
        worst = unread[0]
        idle = f" since {duration(worst.idle.seconds)}" if worst.HasField("idle") else ""
        waiting = f"{count(worst.depth, 'event')} unacknowledged{_more(unread, 'group', ' without readers')}"
        yield Problem(f"nobody reads for the group {_name(worst.name)}{idle}, {waiting}", draining)
    limit = trim.max_depth
    if limit and (full := _deepest(group for group in status.groups if group.depth >= _NEARLY_FULL * limit)):
        of = f"{full[0].depth:,} of at most {count(limit, 'unacknowledged event')}"
        more = _more(full, "group", " near the limit")
        yield Problem(f"the group {_name(full[0].name)} has {of}{more}", draining)
    mirrors = () if status.groups else lists(status)
    if limit and (long := _deepest(mirror for mirror in mirrors if mirror.depth >= _NEARLY_FULL * limit)):
        of = f"{long[0].depth:,} of at most {count(limit, 'message')}"
        more = _more(long, "list", " near the limit")
        yield Problem(f"the list {_name(long[0].name)} has {of}{more}", "list-not-draining")


def _dead_letters(status: pb.GetQueueStatusResponse) -> Iterator[Problem]:
    if status.dead_letters:
        oldest = status.oldest_dead_letter_at if status.HasField("oldest_dead_letter_at") else None
        age = f", the oldest {since(oldest)} ago" if oldest else ""
        yield Problem(f"{count(status.dead_letters, 'dead letter')}{age}", "dead-letters")
    mirrors = sorted((one for one in lists(status) if one.dead_letters), key=lambda one: -one.dead_letters)
    if mirrors:
        worst = mirrors[0]
        place = f", in {_name(worst.dead_letters_key)}" if worst.dead_letters_key else ""
        more = _more(mirrors, "list", " with such messages")
        text = f"{count(worst.dead_letters, 'message')} of the list given up{place}{more}"
        yield Problem(text, "list-dead-letters", worst.name)


def _deepest(found: Iterable[_T]) -> list[_T]:
    """Those with the most events first; those with equally many by name."""
    return sorted(found, key=lambda one: (-one.depth, one.name))


def _more(found: Sequence[object], noun: str, about: str) -> str:
    return f", and {count(len(found) - 1, f'more {noun}')}{about}" if len(found) > 1 else ""


def _name(text: str) -> str:
    return shorten_name(legible(text), _MAX_NAME)
