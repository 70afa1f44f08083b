"""The check of the ACL: every command that the sidecar sends, tried on every key that it sends it for.

A server checks rights before it executes a command, so each is tried in a form that changes nothing: with an impossible
id, for a group that does not exist, or on a key of our own. A test compares the rights with docs/redis-acl.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import uuid4

from modelready.keys import Keys
from sidecar.cli.doctor.auth import LoggedIn
from sidecar.cli.doctor.report import Report
from sidecar.errors import SetupFault, Unavailable
from sidecar.redisstream.connection import RedisConnection
from sidecar.settings import Settings

_NONE = "doctor-none"  # a group, or a consumer, that does not exist
# What a server answers only after it has checked the rights.
_AFTER_THE_RIGHTS = {"REDIS_READONLY", "REDIS_MASTERDOWN", "REDIS_CLUSTERDOWN", "REDIS_OOM", "REDIS_MISCONF"}


class Right(NamedTuple):
    """A right by its name in an ACL, and how to try it: a command, once for each kind of key that {key} stands for."""

    name: str
    command: tuple[str, ...]
    keys: tuple[str, ...] = ("",)


_STREAMS = ("events", "dead-letters")
_ALL = (*_STREAMS, "seen")
_SET = ("SET", "{key}", "doctor", "NX", "XX")  # which sets nothing
ALWAYS = (
    Right("hello", ("HELLO",)),
    Right("ping", ("PING",)),
    Right("client|setname", ("CLIENT", "SETNAME", "modelready-sidecar")),
    Right("eval", ("EVAL", "return 0", "1", "{key}"), _ALL),
    Right("evalsha", ("EVALSHA", "0" * 40, "1", "{key}"), _ALL),
    Right("xadd", ("XADD", "{key}", "NOMKSTREAM", "0-0", "field", "value"), _STREAMS),
    Right("get", ("GET", "{key}"), ("seen",)),
    Right("set", _SET, ("seen",)),
    Right("xlen", ("XLEN", "{key}"), _STREAMS),
    Right("xrange", ("XRANGE", "{key}", "0-1", "0-1"), _STREAMS),
    Right("xinfo|groups", ("XINFO", "GROUPS", "{key}"), ("events",)),
    Right("xpending", ("XPENDING", "{key}", _NONE), ("events",)),
    Right("wait", ("WAIT", "0", "1")),
)
MIRROR = (
    Right("llen", ("LLEN", "{key}"), ("list", "processing", "given up")),
    Right("lpush", ("LPUSH", "{key}", "doctor"), ("seen",)),  # there it cannot push, see _try_to_push
)
CLUSTER = (Right("cluster|slots", ("CLUSTER", "SLOTS")),)
OPERATING = (
    Right("xrevrange", ("XREVRANGE", "{key}", "0-1", "0-1"), _STREAMS),
    Right("xdel", ("XDEL", "{key}", "0-1"), ("dead-letters",)),
    Right("del", ("DEL", "{key}"), ("seen", "lanes", "waiting", "free")),
    Right("xclaim", ("XCLAIM", "{key}", _NONE, _NONE, "0", "0-1"), ("events",)),
    Right("xtrim", ("XTRIM", "{key}", "MINID", "0"), ("events",)),
    Right("set", _SET, ("trim lock", "observed")),
    Right("get", ("GET", "{key}"), ("observed",)),
    Right("xinfo|stream", ("XINFO", "STREAM", "{key}"), ("events",)),
    Right("xinfo|consumers", ("XINFO", "CONSUMERS", "{key}", _NONE), ("events",)),
    Right("xgroup|create", ("XGROUP", "CREATE", "{key}", _NONE, "none"), ("events",)),
    Right("xgroup|destroy", ("XGROUP", "DESTROY", "{key}", _NONE), ("events",)),
    Right("xgroup|delconsumer", ("XGROUP", "DELCONSUMER", "{key}", _NONE, _NONE), ("events",)),
    Right("info", ("INFO", "memory")),
    Right("lrange", ("LRANGE", "{key}", "0", "0"), ("given up",)),
    Right("lpos", ("LPOS", "{key}", _NONE), ("given up",)),
    Right("lrem", ("LREM", "{key}", "1", _NONE), ("given up",)),
)
"""Events are published without these; trimming, dead letters, groups and the status need them."""


class _Lacking:
    """What is refused, in the form of an access string."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.keys: list[str] = []

    def note(self, right: str, pattern: str, said: str) -> None:
        found, what = (self.keys, f"~{pattern}") if "permissions to access" in said else (self.commands, f"+{right}")
        if what not in found:
            found.append(what)


async def check_acl(report: Report, settings: Settings, logged_in: LoggedIn) -> None:
    """Try every right. Raises Unavailable."""
    user = f"the user {logged_in.user}"
    if logged_in.hello is None:
        report.add("acl-commands", f"{user} lacks +client|setname, without which it cannot begin")
        return
    keys, lists = _keys(settings), settings.queue.lists
    publishing = [*ALWAYS, *(MIRROR if lists else ()), *(CLUSTER if settings.redis.cluster else ())]
    operating = [right for right in OPERATING if lists or right.keys != ("given up",)]
    needed = await _lacking(logged_in.connection, publishing, keys)
    wanted = await _lacking(logged_in.connection, operating, keys)
    if needed.commands:
        report.add("acl-commands", f"{user} lacks {' '.join(needed.commands)}")
    if needed.keys:
        report.add("acl-keys", f"{user} lacks {' '.join(needed.keys)}")
    only_wanted = [what for what in wanted.commands + wanted.keys if what not in needed.commands + needed.keys]
    if only_wanted:
        report.add("acl-operating", f"{user} lacks {' '.join(only_wanted)}")
    if not needed.commands and not needed.keys and not only_wanted:
        count = len({right.name for right in (*publishing, *operating)})
        report.ok("acl", f"{user} has the rights to all {count} commands and to the queue's keys")


def _keys(settings: Settings) -> dict[str, list[tuple[str, str]]]:
    """The keys of each kind, each with the pattern that an access string has for it."""
    names, lists = Keys(settings.queue.name), settings.queue.lists
    of_kind = {
        "": [""],
        "events": [names.events],
        "dead-letters": [names.dead_letters],
        "trim lock": [names.trim_lock],
        "list": [mirror.name for mirror in lists],
        "processing": [mirror.processing for mirror in lists],
        "given up": [mirror.dead_letters for mirror in lists],
    }
    patterns = {
        "seen": (names.seen(f"doctor-{uuid4()}"), f"{names.seen_prefix}*"),
        "observed": (names.observed("depth"), names.observed("*")),
        "lanes": (names.lanes(_NONE), names.lanes("*")),
        "waiting": (names.waiting(_NONE), names.waiting("*")),
        "free": (names.free(_NONE), names.free("*")),
    }
    return {kind: [(key, key) for key in keys] for kind, keys in of_kind.items()} | {
        kind: [pair] for kind, pair in patterns.items()
    }


async def _lacking(
    connection: RedisConnection, rights: Sequence[Right], keys: Mapping[str, Sequence[tuple[str, str]]]
) -> _Lacking:
    """Try each right on each of its keys."""
    lacking = _Lacking()
    for right in rights:
        for key, pattern in [pair for kind in right.keys for pair in keys[kind]]:
            said = await _refusal(connection, right, key, lacking.commands)
            if said:
                lacking.note(right.name, pattern, said)
    return lacking


async def _refusal(connection: RedisConnection, right: Right, key: str, lacking: list[str]) -> str:
    """Why the server refuses the command for its rights; else empty."""
    command = tuple(key if part == "{key}" else part for part in right.command)
    try:
        if right.name != "lpush":
            await connection.execute(*command)
        elif "+set" not in lacking:
            await _try_to_push(connection, command)
    except SetupFault as error:
        return str(error) if error.reason == "REDIS_NO_PERMISSION" else ""
    except Unavailable as error:
        if error.reason not in _AFTER_THE_RIGHTS:
            raise
    return ""


async def _try_to_push(connection: RedisConnection, command: tuple[str, ...]) -> None:
    """Onto a key of our own that holds a string and expires at once."""
    key = command[1]
    await connection.pipeline([("SET", key, "doctor", "PX", "10000"), command, ("SET", key, "doctor", "PX", "1")])
