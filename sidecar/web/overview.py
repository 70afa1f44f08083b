"""What the overview shows: the state in one line, figures, the last hour, and groups with the worst first."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from modelready.v1 import queue_service_pb2 as pb
from sidecar.format import count, duration, since
from sidecar.summary import depth, is_unread, lists, runbooks, summarize
from sidecar.web.history import Sample
from sidecar.web.plots import Plot, plot

_TABLE_SECONDS = 300


class Figure(NamedTuple):
    """`more`: in small letters below the value."""

    name: str
    value: str
    more: str = ""


def overview(
    status: pb.GetQueueStatusResponse, samples: Sequence[Sample], redis_at: str, *, whole: bool
) -> dict[str, Any]:
    """What the template needs, without dead letters. Unless `whole`, it says what /metrics and /readyz do and no more.

    `redis_at`: host and port.
    """
    deepest = depth(status)  # of a mirror list, too, which only some may see
    if not whole:
        status, redis_at = _without_redis(status), ""
    level, _, _ = (line := summarize(status)).partition(":")
    groups = sorted(status.groups, key=lambda group: (not is_unread(group), -group.depth, group.name))
    return {
        "level": level,
        "line": line,
        "runbooks": runbooks(status),
        "redis_up": status.redis_up,
        "figures": _figures(status, deepest, redis_at),
        "drawings": _plots(status, samples, deepest),
        "hour": _hour(samples),
        "groups": [(group, is_unread(group)) for group in groups],
    }


def _without_redis(status: pb.GetQueueStatusResponse) -> pb.GetQueueStatusResponse:
    """A copy that says nothing of the server and of the mirror lists."""
    less = pb.GetQueueStatusResponse()
    less.CopyFrom(status)
    for field in ("redis", "list", "lists"):
        less.ClearField(field)
    return less


def _plots(status: pb.GetQueueStatusResponse, samples: Sequence[Sample], deepest: int) -> list[Plot]:
    """Up to this moment, so that each says the same as the figure above it."""
    now = time.time()
    depths = [*((s.at, s.depth) for s in samples), (now, deepest if status.redis_up else None)]
    spooled = [*((s.at, s.spooled) for s in samples), (now, status.spool.depth)]
    return [
        plot("depth", "Depth of the slowest group", "events", depths, now),
        plot("rate", "Published", "events/s", [(s.at, s.rate) for s in samples], now, least=0.4),
        plot("spool", "Spooled on this task's disk", "events", spooled, now),
    ]


def _figures(status: pb.GetQueueStatusResponse, deepest: int, redis_at: str) -> list[Figure]:
    spool, retention = status.spool, status.trim.retention.seconds
    dead = f"oldest {since(status.oldest_dead_letter_at)} ago" if status.HasField("oldest_dead_letter_at") else ""
    figures = [
        Figure("Depth", f"{deepest:,}", "of the slowest group" if status.groups else ""),
        Figure("Dead letters", f"{status.dead_letters:,}", dead if status.dead_letters else ""),
        Figure("In the stream", f"{status.stream_length:,}", f"kept for {duration(retention)}" if retention else ""),
    ]
    if not status.redis_up:
        figures = [Figure(figure.name, "not known") for figure in figures]
    share = spool.bytes / spool.max_bytes if spool.max_bytes else 0.0
    figures.insert(2, Figure("Spooled", f"{spool.depth:,}", f"{share:.0%} of its room"))
    if status.HasField("outbox"):
        figures.append(Figure("Outbox", f"{status.outbox.depth:,}", _outbox(status.outbox)))
    figures.append(_redis(status, redis_at))
    for mirror in lists(status):
        more = f"{mirror.processing:,} in flight, {mirror.dead_letters:,} given up"
        figures.append(Figure(f"Mirror list {mirror.name}", f"{mirror.depth:,}", more))
    return figures


def _outbox(outbox: pb.OutboxStatus) -> str:
    oldest = f"oldest for {duration(outbox.oldest_age.seconds)}, " if outbox.depth else ""
    return f"{oldest}{outbox.refused:,} refused{', not being emptied' if outbox.error else ''}"


def _redis(status: pb.GetQueueStatusResponse, redis_at: str) -> Figure:
    redis = status.redis
    known = [redis_at] if redis_at else []
    if redis.HasField("latency"):
        known.append(f"round trip {redis.latency.ToNanoseconds() / 1e6:.1f} ms")
    if redis.role == "master":
        known.append(count(redis.replicas, "replica"))
    answers = "up" if status.redis_up else "away"
    return Figure("Redis", f"{redis.engine} {redis.version}".strip() or answers, ", ".join(known))


def _hour(samples: Sequence[Sample]) -> list[Sample]:
    """One in five minutes, the newest first."""
    chosen: list[Sample] = []
    for sample in reversed(samples):
        if not chosen or chosen[-1].at - sample.at >= _TABLE_SECONDS:
            chosen.append(sample)
    return chosen
