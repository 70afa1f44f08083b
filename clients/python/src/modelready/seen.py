"""A guard in Redis against doing twice what an event asks for.

    guard = SeenGuard(client, "deployer")

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
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import NoScriptError

from modelready._lease import kept
from modelready._retries import backoff
from modelready.keys import Keys
from modelready.redis.faults import RedisError, is_transient
from modelready.redis.script import Script

if TYPE_CHECKING:
    import redis

T = TypeVar("T")

logger = logging.getLogger(__name__)

WEEK = 604_800


class SeenGuard:
    """Knows which events `group` has done. Safe in threads, as its client is.

    `client` is a redis.Redis. `ttl_seconds`: how long what is done is known; longer than an event can come again, which
    is the queue's retention and the time until somebody replays a dead letter. `lease_seconds`: how long an event stays
    reserved for a process that died. `wait_seconds`: the longest wait for Redis, or for another who has the event.
    """

    def __init__(
        self,
        client: redis.Redis,
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
        self._client = client
        self._group = group
        self._keys = Keys(queue)
        self._ttl_ms = int(ttl_seconds * 1000)
        self._lease_seconds = lease_seconds
        self._wait_seconds = wait_seconds
        self._reserve_script = Script("modelready.lua", "seen_reserve.lua")
        self._release_script = Script("modelready.lua", "seen_release.lua")

    @contextmanager
    def once(self, event_id: str) -> Iterator[bool]:
        """Yields True to the one that is to do it, and marks it as done at the end of the block; False when it is done.

        While another has the event this waits: for its end, or for its lease to run out if it died. A block that raises
        leaves the event to be done by whoever comes next. Raises TimeoutError when another has it for all of
        `wait_seconds`, and RedisError when Redis does not answer for that long, or refuses.
        """
        key = self._keys.done(self._group, event_id)
        token = uuid.uuid4().hex
        if not self._reserved(key, token, event_id):
            yield False
            return
        try:
            with kept(lambda: self._reserve(key, token) == 0, self._lease_seconds, f"event {event_id}"):
                yield True
        except BaseException:
            with suppress(RedisError):  # else its lease runs out
                self._call(self._release_script, key, token)
            raise
        # Whoever holds it now: it is done.
        self._patiently(lambda: self._client.set(key, "done", px=self._ttl_ms))

    def _reserved(self, key: str, token: str, event_id: str) -> bool:
        deadline = time.monotonic() + self._wait_seconds
        while (left_ms := self._patiently(lambda: self._reserve(key, token))) > 0:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"another has had event {event_id} for {self._wait_seconds:g} s")
            time.sleep(min(left_ms / 1000, 0.2))
        return left_ms == 0

    def _reserve(self, key: str, token: str) -> int:
        return self._call(self._reserve_script, key, token, int(self._lease_seconds * 1000))

    def _call(self, script: Script, key: str, *arguments: Any) -> int:
        client: Any = self._client  # whose annotations lack execute_command's
        try:
            return int(client.execute_command(*script.command([key], *arguments)))
        except NoScriptError:
            return int(client.execute_command(*script.command([key], *arguments, by_text=True)))

    def _patiently(self, command: Callable[[], T]) -> T:
        deadline = time.monotonic() + self._wait_seconds
        attempt = 0
        while True:
            try:
                return command()
            except RedisError as error:
                if not is_transient(error) or time.monotonic() >= deadline:
                    raise
                if attempt == 0:
                    logger.warning("waiting for Redis: %s", error)
            time.sleep(backoff(attempt))
            attempt += 1
