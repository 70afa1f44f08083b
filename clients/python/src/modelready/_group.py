"""A consumer's place in its group: what to ask Redis for next, and what came. No I/O and no clock.

The entries that this consumer was given and has not acknowledged come first: when it starts, after every failed read
(its reply may have been lost, and Redis gives an entry to a group once), and again every `retry_seconds`, which is how
an event comes back whose handler raised. Then the new ones.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from typing import Any

from modelready._redis import entries_of
from modelready.entry import UndecodableEntry, decode
from modelready.keys import Keys
from modelready.v1.event_pb2 import ModelReadyToDeploy

logger = logging.getLogger(__name__)


class Group:
    """One consumer of one group of one queue."""

    def __init__(
        self,
        group: str,
        *,
        queue: str,
        consumer_name: str | None,
        batch: int,
        block_seconds: float,
        retry_seconds: float,
        start: str,
    ) -> None:
        if not group:
            raise ValueError("a consumer needs the name of its group")
        if start not in {"0", "$"}:
            raise ValueError(f'start is {start!r}; it may be "0" (all that is in the queue) or "$" (what comes)')
        if batch < 1 or block_seconds <= 0:
            raise ValueError("batch is at least 1 and block_seconds above 0")
        self.name = group
        self.stream = Keys(queue).events
        self._consumer = consumer_name or socket.gethostname()
        self._batch = batch
        self._block_ms = max(1, int(block_seconds * 1000))
        self._retry_seconds = retry_seconds
        self._start = start
        self._after: str | None = "0"
        self._again_at = 0.0
        self._undecodable: set[str] = set()

    def create(self, *, again: bool) -> dict[str, Any]:
        """The arguments of XGROUP CREATE. A group that is gone is made `again` at 0: better twice than not at all."""
        if again:
            logger.warning("group %s of %s is gone: made again, all in the stream comes again", self.name, self.stream)
        start = "0" if again else self._start
        return {"name": self.stream, "groupname": self.name, "id": start, "mkstream": True}

    def read(self, now: float) -> dict[str, Any]:
        """The arguments of XREADGROUP."""
        if self._after is None and now >= self._again_at:
            self._after = "0"
        return {
            "groupname": self.name,
            "consumername": self._consumer,
            "streams": {self.stream: self._after or ">"},
            "count": self._batch,
            "block": None if self._after else self._block_ms,
        }

    def rewind(self) -> None:
        """What is pending comes first at the next read."""
        self._after = "0"

    def received(self, reply: Any, now: float) -> Iterator[tuple[str, ModelReadyToDeploy]]:
        """The events of a reply by entry id. An entry that is no event is logged once and left pending."""
        entries = entries_of(reply)
        if self._after is not None:
            self._after = entries[-1][0] if entries else None
            self._again_at = now + self._retry_seconds
        for entry_id, fields in entries:
            if event := self._decode(entry_id, fields or {}):
                yield entry_id, event

    def _decode(self, entry_id: str, fields: dict[bytes, bytes]) -> ModelReadyToDeploy | None:
        try:
            return decode(fields)
        except UndecodableEntry as error:
            if entry_id not in self._undecodable:
                logger.error("entry %s of %s stays pending: %s", entry_id, self.stream, error)  # noqa: TRY400
                self._undecodable.add(entry_id)
            return None
