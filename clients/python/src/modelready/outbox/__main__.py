"""python -m modelready.outbox: the relay as a process of its own, and what operates the table.

The database is that of OUTBOX_URL, SQLAlchemy's URL, e.g. postgresql+psycopg://user:password@host/registry. Exit codes:
0 done, 1 the database failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError

from modelready._environment import add_options, options_of
from modelready.outbox import store
from modelready.outbox.engine import create
from modelready.outbox.relay import Relay, logger
from modelready.outbox.table import ddl
from modelready.publisher import Publisher
from modelready.receipt import Durability

_EXITS = "Exit codes: 0 done, 1 the database failed, 2 wrong usage or settings."


def main(
    arguments: Sequence[str] | None = None,
    *,
    engine: Callable[[], Engine] | None = None,
    prog: str = "python -m modelready.outbox",
) -> int:
    """Run a command; return its exit code.

    `engine` makes the engine, in the place of OUTBOX_URL; then there is no command `run`.
    """
    options = _parser(prog, runs=engine is None).parse_args(arguments)
    options.engine = engine or _engine
    try:
        code: int = options.run(options)
    except BrokenPipeError:  # whatever reads the list has read enough
        return 0
    except (SQLAlchemyError, ModuleNotFoundError) as error:
        print(f"{prog.removeprefix('python -m ')}: {getattr(error, 'orig', None) or error}", file=sys.stderr)
        return 2 if isinstance(error, (ArgumentError, ModuleNotFoundError)) else 1
    return code


def _parser(prog: str, *, runs: bool) -> argparse.ArgumentParser:
    described = __doc__ if runs else "What operates the table of OUTBOX_URL."
    parser = argparse.ArgumentParser(
        prog=prog, description=described, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(metavar="command", required=True)

    def command(
        name: str, run: Callable[[argparse.Namespace], int], text: str, example: str
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=f"{_EXITS}\n\nExample:\n\n    {prog} {name} {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        added.set_defaults(run=run)
        return added

    if runs:
        _add_run(
            command(
                "run",
                _run,
                "publish what is in the outbox until SIGTERM; token: SIDECAR_API_TOKEN, if set",
                "--source //registry.prod",
            )
        )
    status = command("status", _status, "how many rows wait, the age of the oldest, how many were refused", "--json")
    listing = command("list", _list, "the rows that were refused: id, time, event id, reason", "--limit 20")
    listing.add_argument("--limit", type=int, default=100, metavar="N", help="at most N rows (default: %(default)s)")
    for one in (status, listing):
        one.add_argument("--json", action="store_true", help="one JSON object a line")
    retry = command("retry", _retry, "publish refused rows again, after their cause was removed", "--all")
    discard = command("discard", _discard, "delete refused rows", "17 18")
    for one in (retry, discard):
        which = one.add_mutually_exclusive_group(required=True)
        which.add_argument("ids", nargs="*", type=int, metavar="ID", default=[], help="from the list")
        which.add_argument("--all", action="store_true", help="every refused row")
        one.add_argument("--json", action="store_true", help="the number of rows as JSON")
    statements = command("ddl", _ddl, "print the statements that create the table", "postgresql")
    statements.add_argument("dialect", choices=("postgresql", "mysql", "mariadb", "sqlite"))
    return parser


def _add_run(run: argparse.ArgumentParser) -> None:
    add_options(run)
    levels = [level.value for level in Durability if level is not Durability.UNSPECIFIED]
    run.add_argument("--durability", choices=levels, default="primary", help="the least to delete a row for")
    run.add_argument("--source", default="", help="the registry's name in events that have none, e.g. //registry.prod")


def _engine() -> Engine:
    url = os.environ.get("OUTBOX_URL")
    if not url:
        raise ArgumentError("OUTBOX_URL is missing, e.g. postgresql+psycopg://user:password@host/registry")
    return create(url)


def _run(options: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        publisher = Publisher.from_env(**{**options_of(options), "source": options.source})
    except (OSError, ValueError) as error:
        print(f"modelready.outbox: {error}", file=sys.stderr)
        return 2
    engine: Engine = options.engine()
    try:
        connection = engine.connect()
    except OperationalError as error:
        logger.warning("the database is away: %s", error.orig)
    else:
        with connection:
            store.oldest(connection, 1)  # a missing table or right ends the start
    with publisher:
        relay = Relay(engine, publisher, durability=Durability(options.durability))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: relay.stop())
        logger.info("the relay publishes through %s", publisher.target)
        relay.run()
    return 0


def _status(options: argparse.Namespace) -> int:
    with options.engine().connect() as connection:
        status = store.status(connection)
    if options.json:
        print(json.dumps(status._asdict()))
    else:
        print(f"{status.waiting} waiting, the oldest for {status.oldest_seconds:.1f} s; {status.failed} refused")
    return 0


def _list(options: argparse.Namespace) -> int:
    with options.engine().connect() as connection:
        for row in store.failed(connection, options.limit):
            if options.json:
                print(json.dumps({**row._asdict(), "failed_at": f"{row.failed_at:%Y-%m-%dT%H:%M:%SZ}"}))
            else:
                print(
                    row.id,
                    f"{row.failed_at:%Y-%m-%dT%H:%M:%SZ}",
                    ascii(row.event_id)[1:-1],
                    ascii(row.error or "")[1:-1],
                )
    return 0


def _retry(options: argparse.Namespace) -> int:
    return _change(store.retry, "wait again", options)


def _discard(options: argparse.Namespace) -> int:
    return _change(store.discard, "are deleted", options)


def _change(change: Callable[[Connection, Sequence[int] | None], int], past: str, options: argparse.Namespace) -> int:
    with options.engine().begin() as connection:
        rows = change(connection, None if options.all else options.ids)
    print(json.dumps({"rows": rows}) if options.json else f"{rows} rows {past}")
    return 0


def _ddl(options: argparse.Namespace) -> int:
    print("".join(f"{statement};\n\n" for statement in ddl(options.dialect)), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
