"""What `modelready-reconcile` remembers of a registry, and how that differs from what the registry is now.

A slot is what holds one value at a time: an alias of a model holds a version, a version holds a stage. A slot whose
value differs from the one that is remembered has changed, once, however often it did in between.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from modelready.ids import milliseconds
from modelready.mlflow.facts import event_id
from modelready.mlflow.settings import ALIAS, STAGE, TAG, VERSION, Settings, Trigger

CLOCKS_MS = 10_000
"""By how much the clocks of MLflow's server and of the reconciliation may differ."""


class Slot(NamedTuple):
    """`key` is the alias for ALIAS, the version for VERSION and STAGE, the version and the tag for TAG."""

    kind: str
    name: str
    key: tuple[str, ...]


Snapshot = Mapping[Slot, str]
"""The version that has the alias, the version's stage, the tag's value, or the version's creation time in ms."""


class Change(NamedTuple):
    """A slot has this value now; it had `previous`, "" if it was empty. `number` counts the slot's changes."""

    slot: Slot
    value: str
    previous: str
    number: int

    @property
    def version(self) -> str:
        """The version that it makes ready."""
        return self.value if self.slot.kind == ALIAS else self.slot.key[0]

    @property
    def key(self) -> str:
        """The alias, stage or tag; "" for a new version."""
        kind = self.slot.kind
        return "" if kind == VERSION else self.value if kind == STAGE else self.slot.key[-1]

    def matched(self) -> tuple[str, str, str, str]:
        """What `Settings.wants` takes."""
        return self.slot.kind, self.slot.name, self.key, self.value if self.slot.kind == TAG else ""


@dataclass
class Remembered:
    """Of one slot: its value, "" if it is empty, and how often it changed."""

    value: str = ""
    changes: int = 0


@dataclass
class State:
    """What is kept between two runs.

    `scope` has the settings of the last run, `read_at` the time in ms at which it began to read. `pending` are events,
    as JSON, that were decided on and not yet acknowledged.
    """

    slots: dict[Slot, Remembered] = field(default_factory=dict)
    scope: Settings | None = None
    read_at: int = 0
    pending: list[str] = field(default_factory=list)

    def differences(self, snapshot: Snapshot) -> Iterator[Change]:
        """Remember the snapshot, and yield what it changed. Emptied slots are remembered, and make no change."""
        for slot, known in self.slots.items():
            if slot not in snapshot:
                known.value = ""
        for slot, value in snapshot.items():
            known = self.slots.setdefault(slot, Remembered())
            if known.value == value:
                continue
            previous, known.value, known.changes = known.value, value, known.changes + 1
            yield Change(slot, value, previous, known.changes)

    def event_id(self, change: Change, source: str, marked: str) -> str:
        """The id of the change's event: `marked`, which the plug-in left at the version, unless it is an old one's.

        The plug-in's ids begin with their time, and what changed has changed since the last run.
        """
        kind, name, _ = change.slot
        if kind == VERSION:
            return event_id(source, kind, name, change.version, change.value)
        if milliseconds(marked) >= max(self.read_at - CLOCKS_MS, 0):
            return marked
        return event_id(source, kind, name, change.version, change.key, change.number)

    def to_json(self) -> dict[str, Any]:
        """The form in which it is kept."""
        return {
            "format": 1,
            "scope": None if self.scope is None else {
                "triggers": [dataclasses.astuple(one) for one in self.scope.triggers],
                "models": self.scope.models,
            },
            "read_at": self.read_at,
            "pending": self.pending,
            "slots": [[*slot[:2], slot.key, *dataclasses.astuple(known)] for slot, known in self.slots.items()],
        }  # fmt: skip

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> State:
        """Raise ValueError where it is of another form."""
        if content.get("format") != 1:
            raise ValueError("not a state of modelready-reconcile, or one of a newer version")
        scope = content["scope"]
        return cls(
            slots={Slot(kind, name, tuple(key)): Remembered(*known) for kind, name, key, *known in content["slots"]},
            scope=scope
            and Settings(triggers=tuple(Trigger(*one) for one in scope["triggers"]), models=tuple(scope["models"])),
            read_at=int(content["read_at"]),
            pending=list(content["pending"]),
        )


def reconcile(
    state: State,
    snapshot: Snapshot,
    settings: Settings,
    event_of: Callable[[Change], str | None],
    *,
    read_at: int,
    publish_existing: bool = False,
) -> int:
    """Remember the snapshot, and add to `state.pending` the events of what changed; return how many.

    What the state did not watch, since it is new or the settings were other ones, is remembered without an event,
    unless `publish_existing`. `read_at` is when the reading of the snapshot began, in ms. `event_of` makes an event as
    JSON, or None where the change is to have none.
    """
    watched, added = state.scope, 0
    for change in state.differences(snapshot):
        was_watched = watched is not None and watched.wants(*change.matched())
        if settings.wants(*change.matched()) and (was_watched or publish_existing):
            event = event_of(change)
            if event is not None:
                state.pending.append(event)
                added += 1
    state.scope, state.read_at = settings, read_at
    return added
