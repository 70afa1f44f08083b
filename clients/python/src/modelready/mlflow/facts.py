"""What an event says of a model version of MLflow, within the limits of the contract. Without MLflow and a database.

What does not fit is cut or left out, and logged once: a long tag is no reason to refuse a registration, or its event.
"""

from __future__ import annotations

import json
import logging
import math
import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import yaml

from modelready.event import EventFields

logger = logging.getLogger("mlflow.modelready")
"""Below MLflow's own, which is the one that MLflow's server shows."""

OWN = "modelready."
"""Tags of this prefix are ours."""
DIGEST_TAG = "modelready.digest"
"""A version's tag, which the training sets: "sha256:" and 64 hexadecimal digits, or the digits alone."""
PROMPT_TAG = "mlflow.prompt.is_prompt"
MEDIA_TYPE = "application/vnd.mlflow.model"
MAX_LABELS, MAX_KEY, MAX_VALUE = 64, 128, 1024
MAX_METRICS, MAX_SIGNATURE, MAX_FRAMEWORK = 100, 32768, 128

_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_logged: set[str] = set()


def log_once(message: str, *values: object) -> None:
    """Log a warning of which this process has logged none."""
    if message not in _logged:
        _logged.add(message)
        logger.warning(f"{message}; this is logged once", *values)  # noqa: G004 - the values are not in it yet


_NAMESPACE = uuid.UUID("5d0c1f6e-6f3c-5f0e-8d53-0b6b0f6a2f11")


def event_id(source: str, kind: str, name: str, version: int | str, *change: int | str) -> str:
    """The id of a change's event where no tag holds one: a UUIDv5 of the JSON array of all these, as text.

    `change` is the creation time in ms for a new version. For an alias it is the alias and the count of its changes: a
    version gets its alias again after a rollback, and that is another event.
    """
    return str(uuid.uuid5(_NAMESPACE, json.dumps([source, kind, name, str(version), *map(str, change)])))


def marker(kind: str, key: str) -> str:
    """The version's tag in which the plug-in leaves the id of its event, for `modelready-reconcile`."""
    return f"{OWN}{kind}.{key}"


class Described(NamedTuple):
    """What the MLmodel file says."""

    framework: str = ""
    framework_version: str = ""
    signature: str = ""
    size_bytes: int = 0


def describe(mlmodel: str) -> Described:
    """Read the text of an MLmodel file; ValueError if it is none."""
    try:
        content = yaml.load(mlmodel, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
    except yaml.YAMLError as error:
        raise ValueError(f"not an MLmodel file: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("flavors"), dict):
        raise ValueError("not an MLmodel file: no flavors")  # noqa: TRY004 - the text is wrong, not its type
    flavors: dict[str, Any] = content["flavors"]
    # Every flavor but a few is a python_function, too.
    name = next((one for one in flavors if one != "python_function"), next(iter(flavors), ""))
    options = flavors.get(name) or {}
    versions = [str(value) for key, value in options.items() if key.endswith("_version") and key != "python_version"]
    signature = json.dumps(content["signature"]) if content.get("signature") else ""
    if len(signature) > MAX_SIGNATURE:
        log_once("a signature of %d bytes is left out of its event; the limit is %d", len(signature), MAX_SIGNATURE)
        signature = ""
    size = content.get("model_size_bytes")
    return Described(
        framework=str(name)[:MAX_FRAMEWORK],
        framework_version=(versions or [str(content.get("mlflow_version") or "")])[0][:MAX_FRAMEWORK],
        signature=signature,
        size_bytes=size if isinstance(size, int) and size > 0 else 0,
    )


def is_prompt(tags: Mapping[str, str]) -> bool:
    """MLflow keeps prompts as versions of models."""
    return tags.get(PROMPT_TAG, "").lower() == "true"


def fields(
    name: str,
    version: int | str,
    uri: str,
    *,
    described: Described,
    version_tags: Mapping[str, str],
    model_tags: Mapping[str, str],
) -> EventFields:
    """Those of `model_ready`, as far as they do not depend on the change."""
    return {
        "name": name,
        "version": version,
        "uri": uri,
        "model_uri": f"models:/{name}/{version}",
        "media_type": MEDIA_TYPE if described.framework else "",
        "digest": digest(version_tags),
        "size_bytes": described.size_bytes,
        "framework": described.framework,
        "framework_version": described.framework_version,
        "signature": described.signature,
        "labels": labels(version_tags, model_tags),
    }


def digest(tags: Mapping[str, str]) -> str:
    """The digest that DIGEST_TAG names; "" where there is none."""
    found = _DIGEST.fullmatch((tags.get(DIGEST_TAG) or "").strip().lower())
    return f"sha256:{found[1]}" if found else ""


def labels(*tags: Mapping[str, str | None]) -> dict[str, str]:
    """The users' tags as labels; of two with one key the first counts, and the first are kept where there are many."""
    kept: dict[str, str] = {}
    for key, value in (pair for some in tags for pair in sorted(some.items())):
        if key.startswith(("mlflow.", OWN)) or key in kept or not key:
            continue
        if len(key) > MAX_KEY or len(kept) == MAX_LABELS:
            log_once("tag %.100r is left out of its event; the limit is %d tags of %d", key, MAX_LABELS, MAX_KEY)
            continue
        if len(value or "") > MAX_VALUE:
            log_once("the value of tag %.100r is cut in its event; the limit is %d characters", key, MAX_VALUE)
        kept[key] = (value or "")[:MAX_VALUE]
    return kept


def metrics(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The finite ones, the first by name where there are many."""
    finite = sorted((key, value) for key, value in pairs if math.isfinite(value))
    if len(finite) > MAX_METRICS:
        log_once(
            "%d metrics of a run are left out of its event; the limit is %d", len(finite) - MAX_METRICS, MAX_METRICS
        )
    return dict(finite[:MAX_METRICS])
