"""Free loopback ports that stay ours, also while their server is down and while other test workers look for some."""

import random
import socket
from contextlib import closing

LOOPBACK = "127.0.0.1"
# Below every system's ephemeral range: no outgoing connection can take a port while its server is down, nor connect to
# itself. A cluster node's bus is 10,000 above its port, and still below.
FIRST, LAST, BUS = 12_000, 21_999, 10_000


class PortLease:
    """A port for one server, exclusive among all processes of this machine that use this class, until `release()`.

    The lease is a UDP socket bound to the same number: atomic, in no TCP server's way, and gone with this process.
    """

    def __init__(self, port: int = 0) -> None:
        for candidate in [port] if port else random.sample(range(FIRST, LAST + 1), LAST + 1 - FIRST):
            holder = _bound(candidate, socket.SOCK_DGRAM)
            if holder is None:
                continue
            if port or (_unused(candidate) and _unused(candidate + BUS)):
                self.port = candidate
                self._holder = holder
                return
            holder.close()
        raise OSError(f"port {port} is leased" if port else f"no free port in {FIRST}-{LAST}")

    def release(self) -> None:
        self._holder.close()


def _unused(port: int) -> bool:
    probe = _bound(port, socket.SOCK_STREAM)
    if probe is None:
        return False
    with closing(probe):
        return True


def _bound(port: int, kind: socket.SocketKind) -> socket.socket | None:
    end = socket.socket(socket.AF_INET, kind)
    if kind is socket.SOCK_STREAM:  # as a server does; on a UDP socket it would let two of us bind
        end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        end.bind((LOOPBACK, port))
    except OSError:
        end.close()
        return None
    return end
