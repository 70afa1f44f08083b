"""The commands."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence

from sidecar import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0 done, 1 failed, 2 wrong usage or settings."""
    parser = argparse.ArgumentParser(
        prog="modelready-sidecar", description="Publishes 'this model version is ready' to Redis, and loses none."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    serve = commands.add_parser("serve", help="run the sidecar; settings come from the environment")
    serve.add_argument("--embedded", action="store_true", help="with a Valkey server of its own, data below SPOOL_DIR")
    health = commands.add_parser("health", help="exit 0 if the sidecar serves; for a container's health check")
    health.add_argument("--address", help="default: a unix socket of SIDECAR_LISTEN, else its first")
    health.add_argument("--service", default="", help="modelready.v1.PublisherService or redis; default: the process")
    health.add_argument("--timeout", type=float, default=2.0, help="seconds (default: 2)")
    status = commands.add_parser("status", help="show the queue, its groups, the spool and the dead letters")
    status.add_argument("--address", help="default: a unix socket of SIDECAR_LISTEN, else its first")
    status.add_argument("--token", help="default: SIDECAR_API_TOKEN")
    status.add_argument("--json", action="store_true", help="as JSON")
    demo = commands.add_parser("demo", help="see it work: publish, kill Redis, publish, bring it back")
    demo.add_argument("--plain", action="store_true", help="no colour")
    options = parser.parse_args(arguments)
    if options.command == "serve":
        return _serve(embedded=options.embedded)
    if options.command == "health":
        from sidecar.probe import check

        tls = bool(os.environ.get("SIDECAR_TLS_CERT_FILE"))
        return check(options.address or _own_address(), options.service, options.timeout, tls=tls)
    if options.command == "status":
        from sidecar.status import show

        return show(options.address or _own_address(), options.token, as_json=options.json)
    from sidecar.demo import play

    return play(plain=options.plain)


def _own_address() -> str:
    """Where the sidecar of this environment listens; a unix socket first, since TLS is not spoken there."""
    listen = [address.strip() for address in os.environ.get("SIDECAR_LISTEN", "").split(",") if address.strip()]
    return next((address for address in listen if address.startswith("unix:")), (*listen, "127.0.0.1:50051")[0])


def _serve(*, embedded: bool) -> int:
    import uvloop

    from sidecar.errors import SettingsError, SpoolUnavailable

    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its C core would write lines of its own, not JSON, between ours

    try:
        return uvloop.run(_run(embedded=embedded))
    except (SettingsError, SpoolUnavailable) as error:
        print(f"modelready-sidecar: {error}", file=sys.stderr)
        return 2


async def _run(*, embedded: bool) -> int:
    """Serve until SIGTERM or SIGINT (exit code 0) or until a background task dies (1)."""
    from contextlib import AsyncExitStack

    from sidecar import logs
    from sidecar.app import running
    from sidecar.settings import Settings

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        if embedded:
            from sidecar.storage.embedded import embedded_redis

            environ = await stack.enter_async_context(embedded_redis(os.environ))
        else:
            environ = dict(os.environ)
        settings = Settings.from_env(environ)
        logs.set_up(settings.log)
        sidecar = await stack.enter_async_context(running(settings))
        sidecar.failed.add_done_callback(lambda _: stop.set())
        await stop.wait()
        return 1 if sidecar.failed.done() else 0
