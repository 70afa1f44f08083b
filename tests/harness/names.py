"""Names that lead where a test wants, and addresses that lead nowhere."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest


def own_names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What the names in the dictionary resolve to, in this process; empty at first."""
    known: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host not in known or options.get("flags"):
            return real(host, port, *args, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in known[host]]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


@contextmanager
def dead_addresses(port: int, count: int = 1) -> Iterator[list[str]]:
    """Where packets to this port vanish: the queues of connections are full, and nobody takes any."""
    addresses = [f"127.0.{number}.77" for number in range(1, count + 1)]
    with ExitStack() as stack:
        for address in addresses:
            stack.enter_context(socket.create_server((address, port), backlog=0))
            for _ in range(4):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex((address, port))
        with socket.socket() as one_more:
            one_more.settimeout(0.1)
            with pytest.raises(TimeoutError):
                one_more.connect((addresses[-1], port))
        yield addresses
