"""QueueService: how the queue, the spool and the dead letters stand."""

from __future__ import annotations

from modelready.v1 import queue_service_pb2 as pb
from sidecar.api.guard import Context, parse
from sidecar.errors import QueueError
from sidecar.publishing.interfaces import QueueInspector, QueueState, Spool

NAME = "modelready.v1.QueueService"


class QueueService:
    """The handlers."""

    def __init__(self, inspector: QueueInspector, spool: Spool) -> None:
        self._inspector = inspector
        self._spool = spool

    async def get_queue_status(self, raw: bytes, _context: Context) -> bytes:
        """The status, whether Redis is there or not."""
        parse(pb.GetQueueStatusRequest, raw)
        spool = pb.SpoolStatus(depth=self._spool.depth, bytes=self._spool.bytes, max_bytes=self._spool.max_bytes)
        if self._spool.oldest_ms is not None:
            spool.oldest_at.FromMilliseconds(self._spool.oldest_ms)
        response = pb.GetQueueStatusResponse(queue=self._inspector.name, stream=self._inspector.stream, spool=spool)
        try:
            _fill(response, await self._inspector.inspect())
        except QueueError as error:
            response.redis_error = str(error)
        else:
            response.redis_up = True
        return response.SerializeToString()


def _fill(response: pb.GetQueueStatusResponse, state: QueueState) -> None:
    response.stream_length = state.length
    response.dead_letters = state.dead_letters
    for group in state.groups:
        entry = response.groups.add(
            name=group.name, depth=group.depth, pending=group.pending, consumers=group.consumers
        )
        if group.oldest_ms is not None:
            entry.oldest_unacknowledged_at.FromMilliseconds(group.oldest_ms)
    if state.mirror is not None:
        mirror = state.mirror
        response.list.CopyFrom(
            pb.ListStatus(
                name=mirror.name, depth=mirror.depth, processing=mirror.processing, dead_letters=mirror.dead_letters
            )
        )
