"""The variables of the plug-in and of `modelready-reconcile`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

KINDS = ALIAS, VERSION, STAGE, TAG = ("alias", "version", "stage", "tag")
ARTIFACTS = ("proxied", "direct")
NOT_READY = ("None", "Archived", "Deleted_Internal")
"""Stages of versions that nobody deploys."""
PREFIX = "MODELREADY_MLFLOW_"


@dataclass(frozen=True)
class Trigger:
    """A kind of change, with a pattern of the alias, stage or tag and one of the tag's value."""

    kind: str
    key: str = "*"
    value: str = "*"

    def __str__(self) -> str:
        key = "" if self.key == "*" else f":{self.key}"
        return f"{self.kind}{key}" + ("" if self.value == "*" else f"={self.value}")

    def matches(self, kind: str, key: str, value: str) -> bool:
        """Whether such a change makes an event."""
        return kind == self.kind and fnmatchcase(key, self.key) and fnmatchcase(value, self.value)


@dataclass(frozen=True)
class Settings:
    """Which changes make events, and what these say."""

    triggers: tuple[Trigger, ...] = (Trigger(ALIAS),)
    models: tuple[str, ...] = ("*",)
    tags: tuple[tuple[str, str], ...] = ()
    source: str = ""
    artifacts: str = "proxied"
    mlmodel_seconds: float = 1.0

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """From os.environ, unless given. Raises ValueError, which names the variable, for a wrong value."""
        env = os.environ if environ is None else environ
        return cls(
            triggers=tuple(_trigger(one) for one in _listed(env, "EVENTS")) or cls.triggers,
            models=tuple(_listed(env, "MODELS")) or cls.models,
            tags=tuple(_key_and_pattern(one) for one in _listed(env, "TAGS")),
            source=env.get(f"{PREFIX}SOURCE", ""),
            artifacts=_one_of(env, "ARTIFACTS", ARTIFACTS),
            mlmodel_seconds=_seconds(env, "MLMODEL_SECONDS", cls.mlmodel_seconds),
        )

    def events(self) -> str:
        """The triggers, as MODELREADY_MLFLOW_EVENTS says them."""
        return ", ".join(map(str, self.triggers))

    def names(self, name: str) -> bool:
        """Whether changes of this model may make events."""
        return any(fnmatchcase(name, pattern) for pattern in self.models)

    def wants(self, kind: str, name: str, key: str = "", value: str = "") -> bool:
        """Whether such a change of this model makes an event, if its version has the tags and is ready."""
        if kind == STAGE and key in NOT_READY:
            return False
        return any(one.matches(kind, key, value) for one in self.triggers) and self.names(name)

    def admits(self, tags: Mapping[str, str]) -> bool:
        """Whether a version with these tags has all that are asked for."""
        return all(key in tags and fnmatchcase(tags[key], pattern) for key, pattern in self.tags)


def _listed(env: Mapping[str, str], name: str) -> list[str]:
    return [part for part in (part.strip() for part in env.get(f"{PREFIX}{name}", "").split(",")) if part]


def _key_and_pattern(text: str) -> tuple[str, str]:
    key, _, pattern = text.partition("=")
    return key, pattern or "*"


def _trigger(text: str) -> Trigger:
    kind, _, pattern = text.partition(":")
    if kind not in KINDS or (kind == VERSION and pattern) or (kind == TAG and not pattern):
        raise ValueError(
            f"{PREFIX}EVENTS: {text!r} is none of alias, alias:NAME, version, stage, stage:NAME, tag:KEY, tag:KEY=VALUE"
        )
    return Trigger(kind, *_key_and_pattern(pattern)) if kind == TAG else Trigger(kind, pattern or "*")


def _one_of(env: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    value = env.get(f"{PREFIX}{name}", "") or choices[0]
    if value not in choices:
        raise ValueError(f"{PREFIX}{name}: {value!r} is none of {', '.join(choices)}")
    return value


def _seconds(env: Mapping[str, str], name: str, default: float) -> float:
    value = env.get(f"{PREFIX}{name}", "")
    try:
        seconds = float(value) if value else default
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 30:
        raise ValueError(f"{PREFIX}{name}: {value!r} is no number of seconds from 0 to 30")
    return seconds
