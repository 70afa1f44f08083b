"""The Redis of a queue: who we are to it and, in a cluster, which of its nodes owns the queue's slot.

One queue lives in one slot, so that even a cluster is reached through plain connections to one node: the owner of the
slot is looked up, and looked up again when a node answers MOVED or does not answer (docs/adr/0004).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from redis import exceptions
from redis.crc import key_slot

from modelready.credentials import CredentialSource, StaticCredentials, credential_source
from modelready.redis.certificates import tls_files
from modelready.redis.connection import Endpoint, NodeConnection, pack, time_limit
from modelready.redis.faults import AuthenticationError, RedisError, checked, is_transient
from modelready.redis.settings import RedisSettings, read_settings
from modelready.redis.sockets import Resolver

log = logging.getLogger(__name__)

_CONSUMER_SECONDS = 5.0


class Server:
    """How it is reached, by the sidecar or by a consumer. Connections are the pools' that use this."""

    def __init__(self, settings: RedisSettings, credentials: CredentialSource, *, key: str, client_name: str) -> None:
        """`key`: any key of the queue; in a cluster it decides the node. Raises SettingsError for TLS files."""
        self.credentials = credentials
        self.timeout = settings.timeout
        """The longest that a connection attempt may take, and a call that names no other, in seconds."""
        self.is_cluster = settings.cluster
        self.generation = 0
        """Connections of an earlier one are replaced before their next use."""
        self.tls = tls_files(settings) if settings.tls else None
        """None: plain TCP."""
        self._db = settings.db
        self._client_name = client_name
        self._resolver = Resolver()
        self._slot = key_slot(key.encode())
        self._seed = Endpoint(settings.host, settings.port)
        self._nodes: list[Endpoint] = []  # others of the cluster, for the time when the seed is away
        self._candidates: list[Endpoint] = []
        self._owner = self._seed
        self.is_owner_known = not settings.cluster
        """Where it is not, `find_owner` comes before `connect`."""

    @property
    def fixed_credentials(self) -> bool:
        """Whether they stay what they are until a person changes them."""
        return isinstance(self.credentials, StaticCredentials)

    @property
    def address(self) -> str:
        """host:port of the node that is used now."""
        return f"{self._owner.host}:{self._owner.port}"

    def renew(self) -> None:
        """Every connection is replaced before its next use: there are new credentials, or another owner."""
        self.generation += 1

    def forget_owner(self, candidate: tuple[str, int] | None = None) -> None:
        """In a cluster the next call asks for the owner: `candidate` first, as a node named it.

        It is not gone to at once: nodes name addresses, and certificates may be for names, which CLUSTER SLOTS has.
        """
        if self.is_cluster:
            self.is_owner_known = False
            if candidate is not None:
                self._candidates = [Endpoint(candidate[0] or self._owner.host, candidate[1])]

    async def connect(self) -> NodeConnection:
        """A connection to the owner, logged in. Raises RedisErrors."""
        generation = self.generation  # what is renewed meanwhile is too old
        connection = await self._open(self._owner)
        connection.generation = generation
        return connection

    async def find_owner(self) -> None:
        """In a cluster: ask a node who owns the queue's slot. Raises RedisErrors."""
        problems: list[RedisError] = []
        asked = list(dict.fromkeys([*self._candidates, self._seed, *self._nodes]))
        for node in asked:
            try:
                async with time_limit(self.timeout / len(asked)):
                    owner, nodes = await self._ask(node)
            except asyncio.TimeoutError:
                problems.append(exceptions.TimeoutError("CLUSTER SLOTS was not answered"))
                continue
            except AuthenticationError:  # the other nodes would refuse them, too
                raise
            except RedisError as error:
                problems.append(error)
                continue
            if self.is_owner_known:  # another task was quicker
                return
            self._nodes = nodes
            if owner is not None:
                self._move_to(owner)
                return
        # A node that cannot be used hides no other that may be back soon.
        problems.append(exceptions.ClusterDownError("no node serves the queue's slot", status_code="CLUSTERDOWN"))
        raise next(filter(is_transient, problems[:-1]), problems[0])

    def _move_to(self, owner: Endpoint) -> None:
        self.is_owner_known, self._candidates = True, []
        if owner != self._owner:
            log.info("the queue's slot is on node %s:%d", *owner)
            self._owner = owner
            self.renew()

    async def _open(self, node: Endpoint) -> NodeConnection:
        tls = self.tls.current if self.tls else None
        connection = NodeConnection(
            node,
            self.credentials,
            self._resolver,
            timeout=self.timeout,
            client_name=self._client_name,
            db=self._db,
            tls=tls,
        )
        await connection.open()
        return connection

    async def _ask(self, node: Endpoint) -> tuple[Endpoint | None, list[Endpoint]]:
        connection = await self._open(node)
        try:
            connection.write(pack([("CLUSTER", "SLOTS")]))
            slots = checked(await connection.read())
            return read_slots(slots, self._slot, node, by_name=self.tls is not None)
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise exceptions.InvalidResponse("its answer to CLUSTER SLOTS is none") from error
        finally:
            connection.drop()


def read_slots(
    slots: Sequence[Any], slot: int, asked: Endpoint, *, by_name: bool
) -> tuple[Endpoint | None, list[Endpoint]]:
    """The owner of the slot, None where it has none, and all nodes, by the reply to CLUSTER SLOTS.

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


def server_from_env(environ: Mapping[str, str], key: str) -> Server:
    """The Redis that the REDIS_... variables name, for a consumer. Raises SettingsError, which names the variable."""
    settings = read_settings(environ)
    # Nobody waits for a consumer, and a busy server is no reason to begin again.
    settings = replace(settings, timeout=max(settings.timeout, _CONSUMER_SECONDS))
    return Server(settings, credential_source(settings), key=key, client_name="modelready-consumer")
