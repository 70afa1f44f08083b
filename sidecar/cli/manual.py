"""What `--help` says of each command beside its options: what it does, its exit codes, an example."""

from __future__ import annotations

import argparse
import textwrap
from typing import NamedTuple

from sidecar.cli.completion import commands

_WIDTH = 80
_USAGE = "2 wrong usage"


class Page(NamedTuple):
    """Of one command. `what`: a paragraph; `exits`: the exit codes; `example`: a command line, or several lines."""

    what: str
    exits: str
    example: str


PAGES = {
    "": Page(
        "Publishes 'this model version is ready' to Redis, and loses no event. `serve` is the sidecar; the other"
        " commands ask the sidecar of this environment, so run them in its container.",
        "0 done, 1 failed, 2 wrong usage or settings, 130 interrupted",
        "modelready-sidecar serve --embedded",
    ),
    "serve": Page(
        "Run the sidecar until SIGTERM. Its settings come from the environment; docs/configuration.md has them all.",
        "0 stopped by SIGTERM or SIGINT, 1 a part of it failed, 2 wrong settings or a spool that cannot be used",
        "REDIS_HOST=redis.example.internal REDIS_AUTH_TOKEN=... modelready-sidecar serve",
    ),
    "health": Page(
        "Check that the sidecar's process lives and is not stopping; for a container's health check. It succeeds while"
        " Redis is away, since a restart would not help. --service modelready.v1.PublisherService checks that an event"
        " would be accepted now, --service redis that Redis has answered recently.",
        "0 serving, 1 not serving or no answer",
        "modelready-sidecar health --service modelready.v1.PublisherService",
    ),
    "status": Page(
        "Show the queue, its groups, the spool and the dead letters. The first line is the state.",
        "0 Redis answers and events are accepted; 1 Redis is away or may evict the queue, events are refused, or the"
        f" sidecar does not answer; {_USAGE}",
        "modelready-sidecar status --watch 10",
    ),
    "tail": Page(
        "Follow the events of the queue, until Ctrl-C. A line has the time, the entry's id, model/version, environment,"
        " event id and correlation id; - stands for what an event lacks. It acknowledges nothing.",
        f"0 its reader has ended, 1 the sidecar does not answer or refuses the call, {_USAGE}, 130 Ctrl-C",
        "modelready-sidecar tail --last 20 --json | jq .event.model",
    ),
    "publish": Page(
        "Publish the event that the flags describe or, with -, those on standard input: protobuf JSON, an event a line;"
        " an event may also stand alone over several lines, the first of which is {. A line that is no event, and an"
        " event that is not acknowledged, is reported on standard error by its line's number, and the others are"
        " published all the same. Prints a receipt for each: outcome, entry id, event id, correlation id.",
        f"0 all are acknowledged, 1 one or more are not, {_USAGE}",
        "modelready-sidecar publish --name fraud --version 7 --uri s3://models/fraud/7/",
    ),
    "dead-letters": Page(
        "List, show, replay or discard events that failed permanently.",
        f"0 done, 1 failed, {_USAGE}",
        "modelready-sidecar dead-letters list --reason HANDLER_FAILED",
    ),
    "dead-letters list": Page(
        "List dead letters, the oldest first, with their reasons and where they failed.",
        f"0 listed, also if there are none; 1 the sidecar or Redis does not answer; {_USAGE}",
        "modelready-sidecar dead-letters list --origin group:deployer --newer-than 1d",
    ),
    "dead-letters show": Page(
        "Show one dead letter, with its history and its event.",
        f"0 shown, 1 it is not there or the sidecar does not answer, {_USAGE}",
        "modelready-sidecar dead-letters show 1700000000000-0",
    ),
    "dead-letters replay": Page(
        "Put dead letters back into the queue. It counts them and asks first.",
        f"0 done, 1 some were left, you said no, or the sidecar does not answer, {_USAGE}",
        "modelready-sidecar dead-letters replay --reason HANDLER_FAILED --rate 10 --yes",
    ),
    "dead-letters discard": Page(
        "Delete dead letters; their events are gone then. It counts them and asks first.",
        f"0 done, 1 some were left, you said no, or the sidecar does not answer, {_USAGE}",
        "modelready-sidecar dead-letters discard --older-than 30d --dry-run",
    ),
    "groups": Page(
        "List, create, remove or reset consumer groups.",
        f"0 done, 1 failed or refused, {_USAGE}",
        "modelready-sidecar groups list",
    ),
    "groups list": Page(
        "List the consumer groups with their consumers: what is pending with each, and since when it is idle.",
        f"0 listed, also if there are none; 1 the sidecar or Redis does not answer; {_USAGE}",
        "modelready-sidecar groups list deployer --json",
    ),
    "groups create": Page(
        "Create a consumer group. Until it is read, it keeps all later events in the stream.",
        f"0 created, 1 it is there already or the sidecar does not answer, {_USAGE}",
        "modelready-sidecar groups create deployer --start newest",
    ),
    "groups remove": Page(
        "Remove a group for which nobody reads any more. It says what is lost and asks first. It is refused while a"
        " consumer of the group has asked for events within the last five minutes.",
        f"0 removed, 1 refused, you said no, or the sidecar does not answer, {_USAGE}",
        "modelready-sidecar groups remove auditor",
    ),
    "groups reset": Page(
        "Let a group begin again elsewhere in the stream, with nothing pending. It says what is lost and asks first. It"
        " is refused while a consumer of the group has asked for events within the last five minutes.",
        f"0 done, 1 refused, you said no, or the sidecar does not answer, {_USAGE}",
        "modelready-sidecar groups reset deployer --start 2h",
    ),
    "outbox": Page(
        "Show the rows of the registry's outbox; retry or discard those that were refused. The database is that of the"
        " OUTBOX_ variables. `modelready-sidecar outbox COMMAND --help` has the options of each.",
        f"0 done, 1 the database failed, {_USAGE} or settings",
        "modelready-sidecar outbox list --json",
    ),
    "doctor": Page(
        "Find out why the sidecar does not connect, and what to do. It checks, in this order: the settings, the name,"
        " the connection, TLS, the login, the rights, the server's version, mode, role, replicas, eviction policy and"
        " memory, the latency, an event that is appended and removed; and the spool and the outbox. It works beside a"
        " running sidecar or without one, and leaves nothing changed.",
        "0 all is well, or there are warnings; 1 a check failed; 2 the settings are wrong",
        "modelready-sidecar doctor --json | jq '.checks[] | select(.status == \"failure\")'",
    ),
    "demo": Page(
        "See it work: publish three model versions, kill Redis, publish three more, bring Redis back, and check that a"
        " consumer got all six, once and in order. It needs the extra `embedded`, and no Redis.",
        "0 all six arrived, 1 they did not or it cannot run here, 130 interrupted",
        "modelready-sidecar demo",
    ),
    "completion": Page(
        "Print what a shell reads to complete the commands and options.",
        f"0 printed, {_USAGE}",
        "source <(modelready-sidecar completion bash)",
    ),
    "version": Page(
        "Print the versions of the sidecar, its client, Python and the libraries that it speaks with.",
        f"0 printed, {_USAGE}",
        "modelready-sidecar version --json",
    ),
}


def explain(root: argparse.ArgumentParser) -> None:
    """Give each command its page."""
    for command, parser in commands(root):
        page = PAGES.get(command)
        if page is not None:
            parser.formatter_class = argparse.RawDescriptionHelpFormatter
            parser.description = textwrap.fill(page.what, _WIDTH)
            parser.epilog = f"{textwrap.fill(f'Exit codes: {page.exits}.', _WIDTH)}\n\nExample:\n\n    {page.example}"
