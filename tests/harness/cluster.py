"""A real cluster: its slots move and its masters fail over."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

from redis.crc import key_slot
from redis.exceptions import ResponseError

from .certificates import TLSFiles
from .redis_server import ADMIN, ADMIN_PASSWORD, RedisServer
from .waiting import until

SLOTS = 16_384


@dataclass(frozen=True)
class Seen:
    """A node as another one sees it: a line of CLUSTER NODES."""

    id: str
    flags: frozenset[str]
    master: str
    slots: Sequence[range]

    @property
    def met(self) -> bool:
        return not self.flags & {"handshake", "noaddr"}


class Cluster:
    """`masters` masters that share all slots, each with `replicas` replicas. Clients may begin at `port`.

    A failover needs the votes of most masters: no fewer than three, if one is to die.
    """

    def __init__(
        self,
        masters: int = 3,
        *,
        replicas: int = 0,
        binary: str | None = None,
        password: str | None = None,
        acl: Sequence[str] = (),
        config: Mapping[str, str] | None = None,
        node_timeout_ms: int = 1000,
        tls: TLSFiles | None = None,
    ) -> None:
        directives = {
            "cluster-node-timeout": str(node_timeout_ms),
            "cluster-replica-validity-factor": "0",  # a replica of any age may take over
            **({"tls-cluster": "yes", "tls-replication": "yes"} if tls else {}),
            **(config or {}),
        }
        options: dict[str, Any] = {"binary": binary, "password": password, "acl": acl, "config": directives, "tls": tls}
        self._options = options
        self._masters = masters
        self._replicas = replicas
        self._stack = ExitStack()
        self._ids: dict[RedisServer, str] = {}

    @property
    def nodes(self) -> list[RedisServer]:
        """All of them: first those that began as masters, then those that began as their replicas."""
        return list(self._ids)

    @property
    def port(self) -> int:
        """Of a node that answers."""
        return self._answering()[0].port

    def owner(self, key: str | bytes | int) -> RedisServer:
        """The node that holds this slot, or this key's, by its own word; AssertionError if none that answers does."""
        slot = slot_of(key)
        for node in self._answering():
            if _owner_id(node, slot) == self._ids[node]:
                return node
        raise AssertionError(f"no node that answers owns slot {slot}")

    def another_master(self, node: RedisServer) -> RedisServer:
        """Some master that answers and is not this one."""
        return next(other for other in self._answering_masters() if other is not node)

    def replicas_of(self, node: RedisServer) -> list[RedisServer]:
        mine = {seen.id for seen in _view(node) if seen.master == self._ids[node]}
        return [other for other in self._answering() if self._ids[other] in mine]

    def move_slot(self, slot: int, target: RedisServer) -> None:
        """Move it with its keys; return when every node that answers knows the new owner."""
        with self.moving_slot(slot, target):
            pass

    @contextmanager
    def moving_slot(self, slot: int, target: RedisServer) -> Iterator[RedisServer]:
        """Stop halfway: inside, the owner, which is yielded, sends clients on by ASK for keys that it has not (any
        more: `move_keys`), and a script with keys on both sides meets TRYAGAIN. At the end: as `move_slot`.
        """
        source = self.owner(slot)
        target.execute("CLUSTER", "SETSLOT", slot, "IMPORTING", self._ids[source])
        source.execute("CLUSTER", "SETSLOT", slot, "MIGRATING", self._ids[target])
        yield source
        while keys := source.execute("CLUSTER", "GETKEYSINSLOT", slot, 100):
            self.move_keys(source, target, *keys)
        others = [node for node in self._answering_masters() if node not in {source, target}]
        for node in [target, source, *others]:  # the target first, or for a moment nobody owns the slot
            node.execute("CLUSTER", "SETSLOT", slot, "NODE", self._ids[target])
        until(lambda: self._agreed(slot, target), 10, f"every node knows who owns slot {slot}")

    def move_keys(self, source: RedisServer, target: RedisServer, *keys: str | bytes) -> None:
        """Of a slot that is being moved."""
        login = ("AUTH2", ADMIN, ADMIN_PASSWORD)
        source.execute("MIGRATE", target.host, target.port, "", 0, 5000, "REPLACE", *login, "KEYS", *keys)

    def fail_owner(self, key: str | bytes | int, seconds: float = 15) -> RedisServer:
        """Kill the owner of the slot, and return the replica that took over, when every node that answers knows it."""
        slot = slot_of(key)
        dead = self.owner(slot)
        assert self.replicas_of(dead), f"{dead.port} has no replica"
        dead.kill()
        return self.wait_for_heir(slot, seconds)

    def hand_over(self, key: str | bytes | int, seconds: float = 15) -> RedisServer:
        """A planned failover: a replica takes the slot's owner's place, which becomes its replica. Returns the heir."""
        slot = slot_of(key)
        owner = self.owner(slot)
        (heir, *_) = until(lambda: self.replicas_of(owner), seconds, "the owner has a replica")
        heir.execute("CLUSTER", "FAILOVER")
        until(
            lambda: self.owner(slot) is heir and self._agreed(slot, heir) and self._serving(), seconds, "it took over"
        )
        return heir

    def wait_for_heir(self, key: str | bytes | int, seconds: float = 15) -> RedisServer:
        """The owner of the slot among the nodes that answer, once they all agree on it and serve again."""
        slot = slot_of(key)

        def heir() -> RedisServer | None:
            node = self.owner(slot)
            return node if self._agreed(slot, node) and self._serving() else None

        return until(heir, seconds, f"a node owns slot {slot}")

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for _ in range(self._masters * (1 + self._replicas)):
                node = stack.enter_context(RedisServer(**self._options, cluster=True))
                self._ids[node] = node.execute("CLUSTER", "MYID").decode()
            self._join()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _join(self) -> None:
        masters, replicas = self.nodes[: self._masters], self.nodes[self._masters :]
        for number, node in enumerate(self.nodes):
            node.execute("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            for other in self.nodes[:number]:
                node.execute("CLUSTER", "MEET", other.host, other.port)
        for number, node in enumerate(masters):
            _add_slots(node, number * SLOTS // self._masters, (number + 1) * SLOTS // self._masters - 1)
        until(self._all_met, 15, "every node knows every other")
        for number, node in enumerate(replicas):
            node.execute("CLUSTER", "REPLICATE", self._ids[masters[number % self._masters]])
        until(self._serving, 15, "every node serves")
        until(lambda: all(len(self.replicas_of(m)) == self._replicas for m in masters), 15, "every replica is known")
        for node in replicas:
            until(partial(_linked, node), 10, "the replica is in sync")

    def _answering(self) -> list[RedisServer]:
        return [node for node in self._ids if node.answers]

    def _answering_masters(self) -> list[RedisServer]:
        return [node for node in self._answering() if node.info("replication")["role"] == "master"]

    def _all_met(self) -> bool:
        return all(sum(seen.met for seen in _view(node)) == len(self._ids) for node in self._ids)

    def _agreed(self, slot: int, owner: RedisServer) -> bool:
        return all(_owner_id(node, slot) == self._ids[owner] for node in self._answering())

    def _serving(self) -> bool:
        return all(b"cluster_state:ok" in node.execute("CLUSTER", "INFO") for node in self._answering())


def slot_of(key: str | bytes | int) -> int:
    """A key's slot; a number is a slot already."""
    return key if isinstance(key, int) else key_slot(key.encode() if isinstance(key, str) else key)


def _linked(replica: RedisServer) -> bool:
    return bool(replica.info("replication")["master_link_status"] == "up")


def _view(node: RedisServer) -> list[Seen]:
    lines = node.execute("CLUSTER", "NODES").decode().splitlines()
    return [_seen(line.split()) for line in lines]


def _seen(fields: Sequence[str]) -> Seen:
    bounds = [slots.split("-") for slots in fields[8:] if not slots.startswith("[")]  # [..]: on its way
    return Seen(
        id=fields[0],
        flags=frozenset(fields[2].split(",")),
        master=fields[3],
        slots=[range(int(bound[0]), int(bound[-1]) + 1) for bound in bounds],
    )


def _owner_id(node: RedisServer, slot: int) -> str | None:
    return next((seen.id for seen in _view(node) if any(slot in slots for slots in seen.slots)), None)


def _add_slots(node: RedisServer, first: int, last: int) -> None:
    try:
        node.execute("CLUSTER", "ADDSLOTSRANGE", first, last)
    except ResponseError:  # before Redis 7
        node.execute("CLUSTER", "ADDSLOTS", *range(first, last + 1))
