"""The status command: GetQueueStatus as a table or as JSON."""

from __future__ import annotations

import os
import sys
import time

import grpc
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from modelready.v1 import queue_service_pb2 as pb
from modelready.v1 import queue_service_pb2_grpc

_TIMEOUT_SECONDS = 5.0


def show(address: str, token: str | None, *, as_json: bool) -> int:
    """Print the status; return 0 where Redis is up, 1 where it is not or the sidecar does not answer."""
    token = token or os.environ.get("SIDECAR_API_TOKEN", "")
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    try:
        with grpc.insecure_channel(address) as channel:
            stub = queue_service_pb2_grpc.QueueServiceStub(channel)
            status = stub.GetQueueStatus(pb.GetQueueStatusRequest(), timeout=_TIMEOUT_SECONDS, metadata=metadata)
    except grpc.RpcError as error:
        print(f"no status from {address}: {error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    print(json_format.MessageToJson(status, always_print_fields_with_no_presence=True) if as_json else table(status))
    return 0 if status.redis_up else 1


def table(status: pb.GetQueueStatusResponse) -> str:
    """The status for people."""
    redis = "up" if status.redis_up else f"AWAY ({status.redis_error})"
    spool = status.spool
    rows = [
        ("queue", f"{status.queue}   stream {status.stream}"),
        ("redis", redis),
        ("stream", f"{status.stream_length:,} entries" if status.redis_up else "not known"),
        ("dead letters", f"{status.dead_letters:,}" if status.redis_up else "not known"),
        ("spool", f"{spool.depth:,} events, {spool.bytes:,} of {spool.max_bytes:,} bytes{_age(spool, 'oldest_at')}"),
    ]
    if status.HasField("list"):
        mirror = status.list
        rows.append((
            "list",
            f"{mirror.name}: {mirror.depth:,}, in hand {mirror.processing:,}, given up {mirror.dead_letters:,}",
        ))  # fmt: skip
    lines = [f"{name:<14}{value}" for name, value in rows]
    if status.groups:
        lines += ["", f"{'group':<24}{'depth':>10}{'pending':>10}{'consumers':>11}   oldest unacknowledged"]
        lines += [
            f"{group.name:<24}{group.depth:>10,}{group.pending:>10,}{group.consumers:>11,}   "
            f"{_age(group, 'oldest_unacknowledged_at').removeprefix(', oldest ') or '-'}"
            for group in status.groups
        ]
    return "\n".join(lines)


def _age(message: pb.SpoolStatus | pb.GroupStatus, field: str) -> str:
    """`, oldest 12 s ago`, or nothing where the time is not set."""
    if not message.HasField(field):
        return ""
    moment: Timestamp = getattr(message, field)
    return f", oldest {max(time.time() - moment.seconds - moment.nanos / 1e9, 0):,.0f} s ago"
