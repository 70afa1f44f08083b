"""The calls of QueueService for consumer groups."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from modelready.v1 import queue_service_pb2 as pb
from sidecar.operations.groups import Groups
from sidecar.operations.interfaces import GroupState
from sidecar.rpc.auth import Context, parse

_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_999  # the years 1 to 9999


class GroupCalls:
    """The handlers."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups

    async def list_groups(self, raw: bytes, _context: Context) -> bytes:
        """All, or one."""
        request = parse(pb.ListGroupsRequest, raw)
        response = pb.ListGroupsResponse()
        for group in await self._groups.list(request.name):
            added = response.groups.add()
            fill_group(added.status, group.state)
            for consumer in group.consumers:
                entry = added.consumers.add(name=consumer.name, pending=consumer.pending)
                if consumer.idle is not None:
                    set_seconds(entry.idle, consumer.idle)
        return response.SerializeToString()

    async def create_group(self, raw: bytes, _context: Context) -> bytes:
        """Create one."""
        request = parse(pb.CreateGroupRequest, raw)
        response = pb.CreateGroupResponse()
        fill_group(response.group, await self._groups.create(request.name, request.start))
        return response.SerializeToString()

    async def remove_group(self, raw: bytes, _context: Context) -> bytes:
        """Remove one."""
        request = parse(pb.RemoveGroupRequest, raw)
        response = pb.RemoveGroupResponse()
        before = await self._groups.remove(request.name, force=request.force, dry_run=request.dry_run)
        fill_group(response.group, before)
        return response.SerializeToString()

    async def reset_group(self, raw: bytes, _context: Context) -> bytes:
        """Let one begin again elsewhere."""
        request = parse(pb.ResetGroupRequest, raw)
        response = pb.ResetGroupResponse()
        before = await self._groups.reset(request.name, request.start, force=request.force, dry_run=request.dry_run)
        fill_group(response.group, before)
        return response.SerializeToString()


def fill_group(into: pb.GroupStatus, group: GroupState) -> None:
    """The state of a group as a message."""
    into.name, into.depth, into.pending = group.name, group.depth, group.pending
    into.consumers, into.undelivered = group.consumers, group.undelivered
    set_time(into.oldest_unacknowledged_at, group.oldest_ms)
    if group.idle is not None:
        set_seconds(into.idle, group.idle)


def set_time(moment: Timestamp, unix_ms: int | None) -> None:
    """Leaves it unset where it is not known, or no time that a Timestamp holds: other programs and damaged disks."""
    if unix_ms is not None and _FIRST_MS <= unix_ms <= _LAST_MS:
        moment.FromMilliseconds(unix_ms)


def set_seconds(duration: Duration, seconds: float) -> None:
    """Set it, to the nanosecond."""
    duration.FromNanoseconds(round(seconds * 1e9))
