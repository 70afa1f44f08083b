"""The baseline of the unary calls: a grpc.aio server that parses the message and answers with a receipt, made before.

`python -m bench.noop_server <port>`. The options are those of sidecar/rpc/server.py.
"""

from __future__ import annotations

import asyncio
import sys

import grpc
import uvloop

from modelready.v1 import publisher_service_pb2 as pb

_RECEIPT = pb.Receipt(
    event_id="0198c0de-0000-7000-8000-000000000000",
    correlation_id="0198c0de-0000-7000-8000-5eed5eed5eed",
    outcome=pb.OUTCOME_STORED,
    stream="{model-ready}:events",
    entry_id="1767323045678-0",
)
_RESPONSE = pb.PublishResponse(receipt=_RECEIPT).SerializeToString()


async def publish(raw: bytes, _: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    pb.PublishRequest.FromString(raw)
    return _RESPONSE


async def serve(port: int) -> None:
    server = grpc.aio.server(
        options=[
            ("grpc.server.max_pending_requests", 1_000_000),
            ("grpc.server.max_pending_requests_hard_limit", 1_000_000),
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", 4 * 1024 * 1024),
            ("grpc.max_send_message_length", 4 * 1024 * 1024),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 5000),
        ],
        maximum_concurrent_rpcs=12_000,
    )
    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {"Publish": grpc.unary_unary_rpc_method_handler(publish)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("modelready.v1.PublisherService", methods)])
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
