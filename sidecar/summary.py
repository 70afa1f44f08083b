"""The state of a queue in one line, for whoever is on call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sidecar.format import count, duration, legible, since

if TYPE_CHECKING:
    from modelready.v1 import queue_service_pb2 as pb

_NEARLY_FULL = 0.8
_UNREAD_SECONDS = 300


def is_well(status: pb.GetQueueStatusResponse) -> bool:
    """Whether Redis answers and keeps the queue, and events are accepted; an older sidecar does not say the last."""
    return status.redis_up and not _evicts_queues(status) and not _refuses(status)


def lists(status: pb.GetQueueStatusResponse) -> Sequence[pb.ListStatus]:
    """The mirror lists; an older sidecar has one, and says so elsewhere."""
    return status.lists or ([status.list] if status.HasField("list") else [])


def depth(status: pb.GetQueueStatusResponse) -> int:
    """Entries of the slowest group; without groups messages of the longest list, and without lists all entries."""
    return max((one.depth for one in status.groups or lists(status)), default=status.stream_length)


def verdict(status: pb.GetQueueStatusResponse) -> str:
    """`ok: ...`, `warning: ...`, or `failure: ...` where events are refused or may be lost; the worst comes first."""
    evicting = []
    if _evicts_queues(status):
        policy = legible(status.redis.eviction_policy)
        evicting.append(f"Redis deletes whole queues when its memory is full: {policy}, not noeviction")
    publishing = list(_publishing(status))
    found = [
        *(publishing + evicting if _refuses(status) else evicting + publishing),
        *_spool(status),
        *_redis(status),
        *_groups(status),
        *_dead_letters(status),
    ]
    if not found:
        return "ok: Redis answers, events go straight into the queue, and there are no dead letters"
    return f"{'failure' if evicting or _refuses(status) else 'warning'}: {'; '.join(found)}"


def _refuses(status: pb.GetQueueStatusResponse) -> bool:
    return status.HasField("promise") and not status.promise.accepting


def _evicts_queues(status: pb.GetQueueStatusResponse) -> bool:
    return status.redis.eviction_policy.startswith("allkeys")


def _publishing(status: pb.GetQueueStatusResponse) -> Iterator[str]:
    """What a caller gets, where it is not what it should be: the sidecar's own line."""
    promise = status.promise
    if status.HasField("promise") and (not promise.accepting or promise.spooling or status.spool.error):
        yield f"events are {legible(promise.summary)}"
    elif not status.redis_up:  # the sidecar has not met it yet
        yield f"Redis is away ({legible(status.redis_error)})"


def _spool(status: pb.GetQueueStatusResponse) -> Iterator[str]:
    spool = status.spool
    if spool.depth:
        oldest = f", the oldest for {since(spool.oldest_at)}" if spool.HasField("oldest_at") else ""
        yield f"{count(spool.depth, 'event')} in the spool{oldest}"
    if spool.max_bytes and spool.bytes >= _NEARLY_FULL * spool.max_bytes:
        yield f"the spool is {spool.bytes / spool.max_bytes:.0%} full"


def _redis(status: pb.GetQueueStatusResponse) -> Iterator[str]:
    redis = status.redis
    if redis.role == "slave":
        yield "the Redis node that answers is a replica"
    if redis.max_memory_bytes and redis.used_memory_bytes >= _NEARLY_FULL * redis.max_memory_bytes:
        yield f"the memory of Redis is {redis.used_memory_bytes / redis.max_memory_bytes:.0%} full"
    if redis.eviction_policy not in ("", "noeviction") and not _evicts_queues(status):
        yield f"Redis may evict what keeps events from being doubled: {legible(redis.eviction_policy)}, not noeviction"


def _groups(status: pb.GetQueueStatusResponse) -> Iterator[str]:
    trim = status.trim
    if trim.held_back_by:
        yield f"the group {legible(trim.held_back_by)} holds back entries older than {duration(trim.retention.seconds)}"
    for group in status.groups:
        name = legible(group.name)
        unread = not group.consumers or group.idle.seconds >= _UNREAD_SECONDS
        if group.depth and unread and group.name != trim.held_back_by:
            idle = f" since {duration(group.idle.seconds)}" if group.HasField("idle") else ""
            yield f"nobody reads for the group {name}{idle}, {count(group.depth, 'event')} unacknowledged"
        if trim.max_depth and group.depth >= _NEARLY_FULL * trim.max_depth:
            yield f"the group {name} has {group.depth:,} of at most {count(trim.max_depth, 'unacknowledged event')}"
    for mirror in () if status.groups else lists(status):
        if trim.max_depth and mirror.depth >= _NEARLY_FULL * trim.max_depth:
            yield f"the list {legible(mirror.name)} has {mirror.depth:,} of at most {count(trim.max_depth, 'message')}"


def _dead_letters(status: pb.GetQueueStatusResponse) -> Iterator[str]:
    if status.dead_letters:
        oldest = status.oldest_dead_letter_at if status.HasField("oldest_dead_letter_at") else None
        age = f", the oldest {since(oldest)} ago" if oldest else ""
        yield f"{count(status.dead_letters, 'dead letter')}{age}"
    for mirror in lists(status):
        if mirror.dead_letters:
            place = f", in {legible(mirror.dead_letters_key)}" if mirror.dead_letters_key else ""
            yield f"{count(mirror.dead_letters, 'message')} of the list given up{place}"
