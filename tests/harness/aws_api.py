"""AWS, played by a moto server."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import Request, urlopen

from .ports import LOOPBACK


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
