"""AWS, played by a moto server."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import Request, urlopen

from moto.server import ThreadedMotoServer

from .ports import LOOPBACK


@contextmanager
def aws_api(host: str = LOOPBACK) -> Iterator[int]:
    """The port of a server on that address, which holds nothing yet.

    All servers of a process are one account: what another one holds is gone, too.
    """
    server = ThreadedMotoServer(host, 0, verbose=False)
    server.start()
    try:
        port = server.get_host_and_port()[1]
        urlopen(Request(f"http://{LOOPBACK}:{port}/moto-api/reset", method="POST"), timeout=10).close()
        yield port
    finally:
        server.stop()
