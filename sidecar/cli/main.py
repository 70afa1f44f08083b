"""The commands."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence

from sidecar import __version__
from sidecar.cli import completion, dead_letters, groups, health, manual, outbox, publish, status, tail, version


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0 done, 1 failed, 2 wrong usage or settings, 130 interrupted."""
    parser = build_parser()
    for argument in sys.argv[1:] if arguments is None else arguments:
        if any("\ud800" <= character <= "\udfff" for character in argument):  # so Python has bytes that are no UTF-8
            parser.error(f"{argument!r} is not UTF-8")
    options = parser.parse_args(arguments)
    code: int = options.run(options)
    return code


def build_parser() -> argparse.ArgumentParser:
    """All commands; `run` of what is parsed runs the one that was given."""
    parser = argparse.ArgumentParser(prog="modelready-sidecar")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    serve = commands.add_parser("serve", help="run the sidecar; its settings come from the environment")
    serve.add_argument("--embedded", action="store_true", help="with its own Valkey server, data below SPOOL_DIR")
    serve.set_defaults(run=_serve)
    for module in (health, status, tail, publish, dead_letters, groups, outbox):
        module.add(commands)
    doctor = commands.add_parser("doctor", help="find out why the sidecar does not connect, and what to do")
    doctor.add_argument("--json", action="store_true", help="as JSON")
    doctor.set_defaults(run=_doctor)
    demo = commands.add_parser("demo", help="see it work: publish, kill Redis, publish again, bring Redis back")
    demo.add_argument("--plain", action="store_true", help="no colour")
    demo.set_defaults(run=_demo)
    version.add(commands)
    completion.add(commands, parser)
    manual.explain(parser)
    return parser


def _doctor(options: argparse.Namespace) -> int:
    from sidecar.cli.doctor import run

    return run(as_json=options.json)


def _demo(options: argparse.Namespace) -> int:
    from sidecar.cli.demo import play

    return play(plain=options.plain)


def _serve(options: argparse.Namespace) -> int:
    gc.disable()  # until it serves: six collections of what is imported would take 50 ms and find next to nothing
    import uvloop

    while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
        pass  # stands for a closed standard stream: uvloop must not get its number
    os.close(descriptor)
    sys.setswitchinterval(0.0005)  # at 5 ms, the default, the spool's thread waits longer for the GIL than for the disk
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # else grpc's C core writes lines that are no JSON between ours
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")  # docs/adr/0021: a fifth less for a lone call
    from sidecar.errors import SettingsError, SpoolUnavailable

    try:
        return uvloop.run(_run(embedded=options.embedded))
    except (SettingsError, SpoolUnavailable) as error:
        print(f"modelready-sidecar: {error}", file=sys.stderr)
        return 2


async def _run(*, embedded: bool) -> int:
    """Serve until SIGTERM or SIGINT (exit code 0) or until a background task dies (1)."""
    import asyncio
    import logging
    import signal
    from contextlib import AsyncExitStack, redirect_stderr

    from sidecar import logs
    from sidecar.settings import Settings, misspelt

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        if embedded:
            from sidecar.embedded import embedded_redis

            environ = await stack.enter_async_context(embedded_redis(os.environ))
        else:
            environ = dict(os.environ)
        settings = Settings.from_env(environ)
        stack.enter_context(redirect_stderr(logs.Stream(logs.set_up(settings.log))))
        for sentence in misspelt(environ):
            logging.getLogger(__name__).warning("%s", sentence)
        if not settings.tracing.on:
            # Else redis-py imports its API and SDK, where installed, for its metrics: 50 ms at the start and 2 MB.
            sys.modules.setdefault("opentelemetry", None)  # type: ignore[arg-type]
        from sidecar.app import running

        sidecar = await stack.enter_async_context(running(settings))
        sidecar.failed.add_done_callback(lambda _: stop.set())
        await stop.wait()
        return 1 if sidecar.failed.done() else 0
