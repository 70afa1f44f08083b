"""AWS, played by a moto server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from .ports import LOOPBACK


def log_in_by_environment(patch: pytest.MonkeyPatch, none: Path, session_token: str = "") -> None:
    """The AWS libraries find this login and nothing else, no region either; `none`: a file that does not exist."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN"):
        patch.delenv(name, raising=False)
    patch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-real-key")
    if session_token:
        patch.setenv("AWS_SESSION_TOKEN", session_token)
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    patch.setenv("AWS_CONFIG_FILE", str(none))
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(none))


def start_moto(host: str = LOOPBACK, port: int = 0) -> Any:
    """A ThreadedMotoServer that answers; `stop()` ends it, and what it holds stays in this process."""
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 - its import takes half a second, in every worker

    server = ThreadedMotoServer(host, port, verbose=False)
    server.start()
    return server


@contextmanager
def aws_api(host: str = LOOPBACK) -> Iterator[int]:
    """The port of a server on that address, which holds nothing yet.

    All servers of a process are one account: what another one holds is gone, too.
    """
    server = start_moto(host)
    try:
        port = server.get_host_and_port()[1]
        urlopen(Request(f"http://{LOOPBACK}:{port}/moto-api/reset", method="POST"), timeout=10).close()
        yield port
    finally:
        server.stop()
