"""The names of a queue's keys in Redis, in this one place.

All keys of a queue share a hash tag, so that one script call stays on one node of a cluster. A queue could be spread
over several slots by model name here.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote

REPLAY_CONSUMER = "replay"
"""Holds what was replayed to a group until one of the group's consumers takes it over. It never asks for anything."""
WAITING_CONSUMER = "waiting"
"""Holds what waits in the lanes of a group (docs/adr/0014)."""
NO_CONSUMERS = frozenset({REPLAY_CONSUMER.encode(), WAITING_CONSUMER.encode()})
"""Names in a group that no process has, as Redis returns them."""


class Keys(NamedTuple):
    """The keys of one queue."""

    queue: str

    @property
    def tag(self) -> str:
        """The part that all keys share and that alone decides the slot."""
        return f"{{{self.queue}}}"

    @property
    def events(self) -> str:
        """The stream of events."""
        return f"{self.tag}:events"

    @property
    def dead_letters(self) -> str:
        """The stream of dead letters, from the sidecar and from consumers."""
        return f"{self.tag}:dead-letters"

    @property
    def seen_prefix(self) -> str:
        """The prefix of the dedup keys."""
        return f"{self.tag}:seen:"

    def seen(self, event_id: str) -> str:
        """The dedup key of an event: holds the id of the entry that it got."""
        return self.seen_prefix + event_id

    def seen_dead(self, event_id: str) -> str:
        """The dedup key of an event's dead letter. The blank keeps it apart from every event id, which has none."""
        return f"{self.seen_prefix}dead {event_id}"

    def done(self, group: str, event_id: str) -> str:
        """Whether a group has done an event, or who is about to; for modelready.seen.

        A name with a colon is quoted, and the slash then separates the two: no two pairs share a key. Every key of
        `done_before` has a colon where these have none.
        """
        if ":" in group or ":" in event_id:
            return f"{self.tag}:done:{quote(group, safe='')}/{quote(event_id, safe='')}"
        return self.done_before(group, event_id)

    def done_before(self, group: str, event_id: str) -> str:
        """As earlier versions name it, where `team` with `x:1` and `team:x` with `1` share a key."""
        return f"{self.tag}:done:{group}:{event_id}"

    def lanes(self, group: str) -> str:
        """A hash: model -> the consumer of the group that has entries of it in flight."""
        return f"{self.tag}:lanes:{group}"

    def waiting(self, group: str) -> str:
        """A sorted set: the entries that wait behind others of their model, in order."""
        return f"{self.tag}:waiting:{group}"

    def free(self, group: str) -> str:
        """A set: the models whose entries wait for a consumer of the group that takes their lane."""
        return f"{self.tag}:free:{group}"

    def alive(self, group: str, consumer: str) -> str:
        """There while the consumer lives; it expires. A group with a colon is quoted: no two pairs share a key."""
        return f"{self.tag}:alive:{quote(group, safe='') if ':' in group or '%' in group else group}:{consumer}"

    @property
    def mirrored_since(self) -> str:
        """Since when, in Unix milliseconds, the events are mirrored to lists. The blank as for `seen_dead`."""
        return f"{self.seen_prefix}mirrored since"

    @property
    def trim_lock(self) -> str:
        """Held, until it expires, by the sidecar whose turn it is to trim."""
        return f"{self.tag}:trim-lock"

    def observed(self, what: str) -> str:
        """What one sidecar saw of the queue, for the others: `state` or `depth`."""
        return f"{self.tag}:observed:{what}"

    def observed_turn(self, what: str) -> str:
        """Held, until it expires, by the sidecar whose turn it is to look."""
        return f"{self.observed(what)}:turn"
