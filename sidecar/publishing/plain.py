"""A quick look that most events pass, so that protovalidate need not judge them: 12 of 20 µs an event were its.

It knows less than the rules of the contract and is stricter than all of them: what it lets pass breaks none, and what
it does not is for protovalidate to judge. `tests/unit/test_plain.py` holds the two against each other.
"""

from __future__ import annotations

import re
from math import isfinite

from modelready.v1.event_pb2 import ModelReadyToDeploy

_MAX_TEXT = 128  # the least max_len in the contract
_MAX_URI = 2048
_MAX_PAIRS = 64
_MAX_DATASETS = 32
_DIGEST = re.compile(r"(sha256:[0-9a-f]{64})?")
_TRACEPARENT = re.compile(r"([0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})?")


def is_plain(event: ModelReadyToDeploy) -> bool:  # noqa: C901 - one look at each field
    """Whether the event breaks no rule, beyond doubt. False where there is doubt."""
    model, artifact, labels, metrics = event.model, event.artifact, event.labels, event.metrics
    name, version, uri, event_id = model.name, model.version, artifact.uri, event.event_id
    if not (name and version and uri) or " " in event_id:
        return False
    words = [name, version, event_id, event.correlation_id, event.source]
    texts = [artifact.media_type]
    uris = [uri, model.uri]
    if event.HasField("evaluation"):
        evaluation = event.evaluation
        texts.append(evaluation.metric_name)
        if not isfinite(evaluation.baseline_value + evaluation.current_value):
            return False
    if event.HasField("promotion"):
        promotion = event.promotion
        texts += (promotion.environment, promotion.alias, promotion.previous_version)
        texts += (promotion.approved_by, promotion.reason)
    if event.HasField("runtime"):
        runtime = event.runtime
        texts += (runtime.framework, runtime.framework_version, runtime.image, runtime.signature)
    if event.HasField("provenance"):
        provenance = event.provenance
        texts.append(provenance.run_id)
        uris.append(provenance.code_uri)
        if provenance.dataset_uris:
            if len(provenance.dataset_uris) > _MAX_DATASETS or "" in provenance.dataset_uris:
                return False
            uris += provenance.dataset_uris
    if labels:
        keys = list(labels)
        if len(keys) > _MAX_PAIRS or "" in keys:
            return False
        texts += keys
        texts += [labels[key] for key in keys]
    if metrics:
        keys = list(metrics)
        # A sum with a value that is not finite is not finite.
        if len(keys) > _MAX_PAIRS or "" in keys or not isfinite(sum([metrics[key] for key in keys])):
            return False
        texts += keys
    places = "".join(uris)
    legible = "".join(words) + places
    texts += words
    return (
        legible.isascii()
        and legible.isprintable()
        and "@" not in places
        and "?" not in places
        and len(max(texts, key=len)) <= _MAX_TEXT
        and len(max(uris, key=len)) <= _MAX_URI
        and _DIGEST.fullmatch(artifact.digest) is not None
        and _TRACEPARENT.fullmatch(event.traceparent) is not None
    )
