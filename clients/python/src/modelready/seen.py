"""A guard in Redis against doing twice what an event asks for.

    guard = SeenGuard.from_env(group="deployer")

    def deploy(event):
        with guard.once(event.event_id) as first:
            if first:
                start_rollout(event)

Delivery is at least once, so an event may come again. The guard makes its effect happen once, within these limits:

- A crash, or an outage of Redis of more than `wait_seconds`, after the effect and before it is marked as done, lets it
  happen again. No guard that stands apart from the effect can prevent that: let the effect itself carry the event's id
  where it can (a unique key, an idempotency token), or be the same when repeated.
- A process that is frozen for longer than `lease_seconds` while it holds an event may go on at the same time as the one
  that took over from it.
- What is done is known for `ttl_seconds`. An event that comes after that counts as new.
- What Redis loses in a failover, or evicts, is not known: it must replicate, and have maxmemory-policy noeviction.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from modelready._consumer.lease import kept
from modelready._retry import backoff
from modelready._thread import start
from modelready.event import checked_text
from modelready.keys import Keys
from modelready.redis.blocking import BlockingClient
from modelready.redis.cluster import server_from_env
from modelready.redis.faults import NoScriptError, RedisConnectionError, RedisError, is_transient
from modelready.redis.script import Script
from modelready.redis.settings import queue_name

if TYPE_CHECKING:
    import redis
    from typing_extensions import Self, Unpack

T = TypeVar("T")

logger = logging.getLogger(__name__)

WEEK = 604_800

_FIRST_SECONDS = 10.0
"""How long a guard that never had an answer waits: its client's address is wrong more often than Redis is away."""

_QUIET_SECONDS = 2.0
"""After this time without an answer the log names the Redis that is waited for."""

_LEAST_SECONDS = 1.0
"""The shortest time for an attempt, also for the last one."""


class GuardOptions(TypedDict, total=False):
    """The keywords of a guard besides its group."""

    queue: str
    ttl_seconds: float
    lease_seconds: float
    wait_seconds: float


class SeenGuard:
    """Knows which events `group` has done. Safe in threads, as its client is.

    `client` is a redis.Redis. `ttl_seconds`: how long a done event is remembered. Make it longer than the time in which
    an event can come again: the queue's retention, and the time until somebody replays a dead letter. `lease_seconds`:
    how long an event stays reserved for a process that died. `wait_seconds`: the longest wait for Redis, or for another
    holder of the event; for Redis at most 10 seconds until it has answered once. The client's own retries count within
    them.
    """

    def __init__(
        self,
        client: redis.Redis | BlockingClient,
        group: str,
        *,
        queue: str = "model-ready",
        ttl_seconds: float = 4 * WEEK,
        lease_seconds: float = 30.0,
        wait_seconds: float = 60.0,
    ) -> None:
        if not group:
            raise ValueError("a guard needs the name of its group")
        if ttl_seconds <= 0 or lease_seconds <= 0:
            raise ValueError("ttl_seconds and lease_seconds must be above 0")
        self._client: Any = client  # whose annotations lack execute_command's
        self._group = group
        self._keys = Keys(queue)
        self._ttl_ms = int(ttl_seconds * 1000)
        self._lease_seconds = lease_seconds
        self._wait_seconds = wait_seconds
        self._answered = False
        self._reserve_script = Script("modelready.lua", "seen_reserve.lua")
        self._release_script = Script("modelready.lua", "seen_release.lua")

    @classmethod
    def from_env(cls, *, group: str, environ: Mapping[str, str] | None = None, **options: Unpack[GuardOptions]) -> Self:
        """A guard in the Redis, and for the queue, that the environment names: as `Consumer.from_env` reads it.

        `options` are those of the class. It follows renewed certificates and rotated tokens, and finds a cluster's
        node. Raises ValueError, which names the variable or the option.
        """
        environ = os.environ if environ is None else environ
        options.setdefault("queue", queue_name(environ))
        key = Keys(options["queue"]).events
        return cls(BlockingClient(lambda: server_from_env(environ, key)), group, **options)

    def close(self) -> None:
        """Closes the connections that `from_env` made; a client of yours stays open."""
        if isinstance(self._client, BlockingClient):
            self._client.close()

    @contextmanager
    def once(self, event_id: str) -> Iterator[bool]:
        """Yields True where the event is to be done now, and marks it as done at the end of the block; else False.

        While another has the event this waits: for its end, or for its lease to run out if it died. A block that raises
        leaves the event to be done by the next one. Raises TimeoutError when another has it for all of `wait_seconds`,
        and RedisError when Redis does not answer for that long, or refuses.
        """
        if not checked_text("event_id", event_id):
            raise ValueError("a guard needs the event's id")
        keys = list(dict.fromkeys(named(self._group, event_id) for named in (self._keys.done, self._keys.done_before)))
        token = uuid.uuid4().hex
        if not self._reserved(keys, token, event_id):
            yield False
            return
        try:
            with kept(lambda: self._extended(keys, token), self._lease_seconds, f"event {event_id}"):
                yield True
        except BaseException:
            with suppress(RedisError):  # else its lease runs out
                self._within(_QUIET_SECONDS, lambda: self._call(self._release_script, keys[:1], token))
            raise
        # Whatever became of the lease: it is done.
        self._patiently(lambda: self._client.execute_command("SET", keys[0], "done", "PX", self._ttl_ms))

    def _reserved(self, keys: list[str], token: str, event_id: str) -> bool:
        deadline = time.monotonic() + self._wait_seconds
        while (left_ms := self._patiently(lambda: self._reserve(keys, token))) > 0:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"another has had event {event_id} for {self._wait_seconds:g} s")
            time.sleep(min(left_ms / 1000, 0.2))
        return left_ms == 0

    def _extended(self, keys: list[str], token: str) -> bool:
        return self._within(self._lease_seconds, lambda: self._reserve(keys, token)) == 0

    def _reserve(self, keys: list[str], token: str) -> int:
        return self._call(self._reserve_script, keys, token, int(self._lease_seconds * 1000))

    def _call(self, script: Script, keys: list[str], *arguments: Any) -> int:
        call = (len(keys), *keys, *arguments)
        try:
            return int(self._client.execute_command(*script.by_digest, *call))
        except NoScriptError:
            return int(self._client.execute_command(*script.by_text, *call))

    def _patiently(self, command: Callable[[], T]) -> T:
        """Repeats it until Redis does it, within `wait_seconds`."""
        patience = self._wait_seconds if self._answered else min(self._wait_seconds, _FIRST_SECONDS)
        deadline = time.monotonic() + patience
        attempt = 0
        while True:
            try:
                result = self._within(max(deadline - time.monotonic(), _LEAST_SECONDS), command)
            except RedisError as error:
                if not is_transient(error):
                    raise
                delay = backoff(attempt)
                if time.monotonic() + delay >= deadline:
                    raise RedisConnectionError(f"waited {patience:g} s for {self._where()}: {error}") from error
                if attempt == 0:
                    logger.warning("waiting for %s: %s", self._where(), error)
            else:
                self._answered = True
                return result
            time.sleep(delay)
            attempt += 1

    def _within(self, seconds: float, command: Callable[[], T]) -> T:
        """What it returns or raises; RedisError after `seconds`, though its client may go on trying for minutes.

        What it then still does is harmless: a reservation that nobody extends, or a mark that is true.
        """
        running = start("modelready-guard", command)
        quiet = min(seconds, _QUIET_SECONDS)
        if not wait([running], quiet).done and seconds > quiet:
            logger.warning("no answer yet from %s", self._where())
            wait([running], seconds - quiet)
        if not running.done():
            raise RedisConnectionError("no answer")
        return running.result()

    def _where(self) -> str:
        """Which Redis, for texts; never its credentials. A cluster's client has no one address."""
        if isinstance(self._client, BlockingClient):
            return f"Redis at {self._client.address}"
        options = getattr(getattr(self._client, "connection_pool", None), "connection_kwargs", {})
        address = options.get("path") or ":".join(str(options[name]) for name in ("host", "port") if name in options)
        return f"Redis at {address}" if address else "Redis"
