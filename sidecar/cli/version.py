"""The version command."""

from __future__ import annotations

import argparse
import json

from sidecar import __version__
from sidecar.cli.exits import without_traceback

_LIBRARIES = ("grpcio", "protobuf", "redis")


def add(parsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The parser of the command."""
    parser = parsers.add_parser("version", help="print the versions of the sidecar and of what it runs with")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=_run)


@without_traceback
def _run(options: argparse.Namespace) -> int:
    import platform
    from importlib.metadata import version

    versions = {"modelready-sidecar": __version__, "modelready": version("modelready")}
    versions |= {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}
    print(json.dumps(versions) if options.json else "\n".join(f"{name:<20}{one}" for name, one in versions.items()))
    return 0
