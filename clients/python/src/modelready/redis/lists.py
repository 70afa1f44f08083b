"""The QUEUE_LIST variables: the lists that mirror the events, for the sidecar and for consumers of such a list."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from modelready.entry import LIST_FORMATS, ListFormat
from modelready.redis.env import SettingsError, choice, text, variable


class MirrorList(NamedTuple):
    """A list that mirrors the events, with the two companion lists that its consumers keep."""

    name: str
    format: ListFormat
    labels: frozenset[str] | None
    """The labels that go into its messages; None: all."""
    processing: str
    """The list of the messages that a consumer has in flight."""
    dead_letters: str
    """The list of the messages that a consumer gave up."""

    @property
    def keys(self) -> dict[str, str]:
        """All three keys, each by the variable that names it."""
        names = ("QUEUE_LIST", "QUEUE_LIST_PROCESSING", "QUEUE_LIST_DEAD_LETTERS")
        return dict(zip(names, (self.name, self.processing, self.dead_letters), strict=True))

    def lease(self, digest: str) -> str:
        """The key of a message's lease, by its hash. The consumer that handles the message holds the lease."""
        return f"{self.name}:lease:{digest}"


@dataclass(frozen=True, kw_only=True)
class ListSettings:
    """The mirror lists."""

    list_names: str = variable(
        "QUEUE_LIST",
        text("name or name=format, with a comma between several; any keys, in a cluster with the queue's hash tag"),
        "",
        "Lists that mirror the events, for consumers that read a list.",
        note="no mirror",
    )
    list_format: ListFormat = variable(
        "QUEUE_LIST_FORMAT",
        choice(*LIST_FORMATS),
        "envelope",
        "Format of the messages in lists for which `QUEUE_LIST` names none.",
    )
    list_labels: str = variable(
        "QUEUE_LIST_LABELS",
        text("label, or list=label for the choice of one list, with a comma between several"),
        "",
        "The labels of an event that go into the messages. `list=label` is for one list, which then gets no others;"
        " `list=` gives it none.",
        note="all",
    )
    list_processing: str = variable(
        "QUEUE_LIST_PROCESSING",
        text("any key; with several lists it must contain {list}, which stands for the list's name"),
        "{list}:processing",
        "The list where consumers keep the messages that they are handling.",
    )
    list_dead_letters: str = variable(
        "QUEUE_LIST_DEAD_LETTERS",
        text("the same"),
        "{list}:dlq",
        "The list where consumers put the messages that they have given up.",
    )

    @cached_property
    def lists(self) -> tuple[MirrorList, ...]:
        """The lists that QUEUE_LIST names. Raises SettingsError."""
        formats = self._formats()
        labels = self._labels(formats)
        return tuple(
            self.mirror(name, list_format, labels.get(name, labels.get(None))) for name, list_format in formats.items()
        )

    def mirror(self, name: str, list_format: ListFormat, labels: frozenset[str] | None) -> MirrorList:
        """The list of this name, with its companions."""
        companions = (each.replace("{list}", name) for each in (self.list_processing, self.list_dead_letters))
        return MirrorList(name, list_format, labels, *companions)

    def check(self) -> None:
        """Raise SettingsError where two values contradict each other."""
        values = {
            "QUEUE_LIST": self.list_names,
            "QUEUE_LIST_PROCESSING": self.list_processing,
            "QUEUE_LIST_DEAD_LETTERS": self.list_dead_letters,
        }
        taken: set[str] = set()
        for name, value in values.items():
            if len(self.lists) > 1 and name != "QUEUE_LIST" and "{list}" not in value:
                raise SettingsError(f"{name} is {value!r}: with several lists it must contain {{list}}")
            for mirror in self.lists:
                key = mirror.keys[name]
                if key in taken:
                    raise SettingsError(f"{name} is {value!r}: it must not make {key!r} the name of two lists")
                taken.add(key)

    def _formats(self) -> dict[str, ListFormat]:
        names = self.list_names
        formats: dict[str, ListFormat] = {}
        for part in names.split(",") if names else ():
            name, _, said = part.strip().rpartition("=") if "=" in part else (part.strip(), "", self.list_format)
            found = next((one for one in LIST_FORMATS if one == said), None)
            if not name or found is None:
                wanted = " or ".join(f"name={one}" for one in LIST_FORMATS)
                raise SettingsError(
                    f"QUEUE_LIST is {names!r}: it must be name or {wanted}, with a comma between several"
                )
            if name in formats:
                raise SettingsError(f"QUEUE_LIST is {names!r}: {name!r} is there twice")
            formats[name] = found
        return formats

    def _labels(self, lists: Mapping[str, ListFormat]) -> dict[str | None, frozenset[str]]:
        """The labels of each list that names its own; those of all other lists are under None."""
        labels = self.list_labels
        chosen: dict[str | None, set[str]] = {}
        for part in labels.split(",") if labels else ():
            name, equals, label = part.strip().rpartition("=")
            if (equals and name not in lists) or not (name or label):
                raise SettingsError(
                    f"QUEUE_LIST_LABELS is {labels!r}: it must be label, or list=label with a list of QUEUE_LIST, with"
                    " a comma between several"
                )
            chosen.setdefault(name if equals else None, set()).update({label} if label else ())
        return {name: frozenset(names) for name, names in chosen.items()}


def hash_tag(key: str) -> str:
    """The part of a key that decides its slot in a cluster: between the first { and the next }, or the whole key."""
    return (re.match(r"[^{]*\{([^}]+)\}", key) or (key, key))[1]
