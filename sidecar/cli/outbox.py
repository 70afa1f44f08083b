"""The outbox command: what operates the table of OUTBOX_URL, with the login of the sidecar's environment."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from sidecar.settings import OutboxSettings


def add(parsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The parser of the command."""
    help_text = "show the rows of the registry's outbox; retry or discard those that were refused"
    parser = parsers.add_parser("outbox", help=help_text, allow_abbrev=False)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="status|list|retry|discard|ddl ...")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Return 0 when it is done, 1 where the database failed, 2 for wrong usage or settings."""
    from sidecar.errors import SettingsError

    try:
        from modelready.outbox.__main__ import main
    except ImportError as error:
        print(f"modelready-sidecar: this needs the extra modelready-sidecar[outbox]: {error}", file=sys.stderr)
        return 2
    try:
        return main(options.arguments, engine=_engine, prog="modelready-sidecar outbox")
    except SettingsError as error:
        print(f"modelready-sidecar: {error}", file=sys.stderr)
        return 2


def _engine() -> Engine:
    from modelready.redis.env import read
    from sidecar.errors import SettingsError
    from sidecar.settings import OutboxSettings

    settings = read(OutboxSettings, os.environ)
    if not settings.url:
        raise SettingsError("OUTBOX_URL is not set: it must name the registry's database")
    return engine_of(settings, os.environ)


def engine_of(settings: OutboxSettings, environ: Mapping[str, str]) -> Engine:
    """The engine of these settings, for a process without an event loop. Raises SettingsError and ImportError."""
    import asyncio
    import threading

    from sidecar.outbox.database import connect

    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="credentials", daemon=True).start()

    def ask(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    region, endpoint_url = (environ.get(name, "") for name in ("AWS_REGION", "AWS_ENDPOINT_URL"))
    return connect(settings, ask, region=region, endpoint_url=endpoint_url)[0]
