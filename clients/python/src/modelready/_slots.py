"""Which node of a cluster owns a slot, by its reply to CLUSTER SLOTS; for the sidecar and for consumers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class Endpoint(NamedTuple):
    """A node's address."""

    host: str
    port: int


def read_slots(
    slots: Sequence[Any], slot: int, asked: Endpoint, *, by_name: bool
) -> tuple[Endpoint | None, list[Endpoint]]:
    """The owner of the slot, None where it has none, and all nodes.

    `asked` is the node that answered. `by_name`: take a node's hostname, where it has one, since certificates name it.
    """
    owner = None
    nodes = []
    for first, last, *members in slots:
        for index, member in enumerate(members):
            node = Endpoint(_host(member, asked, by_name=by_name), member[1])
            nodes.append(node)
            if index == 0 and first <= slot <= last:
                owner = node
    return owner, list(dict.fromkeys(nodes))


def _host(member: Sequence[Any], asked: Endpoint, *, by_name: bool) -> str:
    """Never nothing: a node that does not know its own address is the one that was asked."""
    metadata = member[3] if len(member) > 3 else {}
    pairs = metadata.items() if isinstance(metadata, dict) else zip(metadata[::2], metadata[1::2], strict=False)
    hostname = {bytes(key): bytes(value) for key, value in pairs}.get(b"hostname", b"").decode()
    host = (member[0] or b"").decode()
    if by_name and hostname:
        return hostname
    return host if host not in {"", "?"} else asked.host
