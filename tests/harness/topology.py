"""More than one server: a primary with its replica, here; a real cluster, in `cluster`."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import redis

from .cluster import Cluster
from .ports import LOOPBACK
from .redis_server import RedisServer
from .relay import Relay
from .waiting import until

__all__ = ["Cluster", "Replicated"]


class Replicated:
    """A primary, a replica, and an endpoint as ElastiCache gives one: a port that never changes.

    The replica replicates through the relay `link`, so replication can lag, stall, and die with the primary. Clients
    connect by the relay `endpoint`.
    """

    def __init__(
        self,
        *,
        binary: str | None = None,
        password: str | None = None,
        acl: Sequence[str] = (),
        config: Mapping[str, str] | None = None,
        appendonly: bool = False,
    ) -> None:
        self._options: dict[str, Any] = {
            "binary": binary, "password": password, "acl": acl, "config": config, "appendonly": appendonly,
        }  # fmt: skip
        self._stack = ExitStack()
        self.primary: RedisServer
        self.replica: RedisServer
        self.link: Relay
        self.endpoint: Relay

    @property
    def port(self) -> int:
        """The endpoint's."""
        return self.endpoint.port

    def wait_in_sync(self, seconds: float = 10) -> None:
        """Until the replica has all that the primary has written."""

        def confirmed(client: redis.Redis) -> bool:
            client.publish("harness", "in sync?")  # WAIT confirms writes of its own connection; this one leaves no key
            return bool(client.wait(1, 100))

        with self.primary.client() as client:
            until(lambda: confirmed(client), seconds, "the replica is in sync")

    def promote(self, *, flip: bool = True) -> None:
        """The primary's host dies, with what it had sent to the replica but not delivered; the replica takes over.

        `primary` is from then on the server that was promoted. With `flip=False` the endpoint still leads to the dead
        one, until `flip()`.
        """
        self.primary.freeze()  # or it would acknowledge writes while its link is being cut
        self.link.refuse()
        self.link.cut()
        self.primary.kill()
        self.replica.execute("REPLICAOF", "NO", "ONE")
        self._swap()
        if flip:
            self.flip()

    def demote(self) -> None:
        """A planned failover: the two change places, and clients stay connected to one that is READONLY.

        The endpoint leads new connections there too, until `flip()`.
        """
        self.wait_in_sync()
        self.replica.execute("REPLICAOF", "NO", "ONE")
        self._swap()
        self._follow()

    def rejoin(self) -> None:
        """After `promote()`: the one that died comes back as a replica, through the link; which is not stalled then."""
        self.replica.start()
        self.link.accept()
        self.link.resume()
        self._follow()

    def flip(self) -> None:
        """The endpoint's name is updated: new connections go to the primary. Open ones stay where they are."""
        self.endpoint.retarget(self.primary.port)

    def _follow(self) -> None:
        self.link.retarget(self.primary.port)
        self.replica.execute("REPLICAOF", LOOPBACK, self.link.port)
        self.wait_in_sync()

    def _swap(self) -> None:
        self.primary, self.replica = self.replica, self.primary

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.primary = stack.enter_context(RedisServer(**self._options))
            self.link = stack.enter_context(Relay(self.primary.port))
            self.replica = stack.enter_context(RedisServer(**self._options, replica_of=(LOOPBACK, self.link.port)))
            self.endpoint = stack.enter_context(Relay(self.primary.port))
            self.wait_in_sync()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
