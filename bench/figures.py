"""All figures, in the order of the table."""

from __future__ import annotations

from bench import consuming, costs, growth, publishing, quota
from bench.rounds import Figure


def _nothing() -> str:
    return ""


FIGURES = (
    Figure(
        "unary", "unary Publish, 64 callers", "a grpc.aio server that does nothing", 0.85, "events/s", publishing.unary,
    ),
    Figure(
        "one-caller", "unary Publish, one caller, p50", "the no-op's p50 + one XADD's p50", 1.25, "ms",
        publishing.one_caller, most=True,
    ),
    Figure(
        "stream", "PublishStream, frames of 100, dedup on", "redis-py asyncio pipelines of 100 XADDs, no dedup", 1.2,
        "events/s", publishing.stream,
    ),
    Figure(
        "batch", "PublishBatch of 100, 4 callers, dedup on", "the same pipelines", 1.1, "events/s", publishing.batch,
    ),
    Figure(
        "spooling", "unary Publish while Redis is away, 64 callers", "the same with Redis up", 0.95, "events/s",
        publishing.spooling,
    ),
    Figure("draining", "draining the spool", "PublishStream", 0.8, "events/s", publishing.draining),
    Figure(
        "consuming", "Consumer.run_batches of 100, a handler that does nothing",
        "XREADGROUP, decode, XACK with redis-py, the same batches", 0.95, "events/s", consuming.batches,
        missing=_nothing,
    ),
    Figure(
        "consuming-singly", "Consumer.run, a handler that does nothing",
        "XREADGROUP of one, decode, XACK with redis-py", 0.8, "events/s", consuming.singles, missing=_nothing,
    ),
    Figure(
        "slow-handler", "Consumer.run, a handler of 10 ms", "XREADGROUP, decode, the handler, XACK with redis-py", 0.9,
        "events/s", consuming.slow_handler, missing=_nothing,
    ),
    Figure(
        "redis-time", "Redis' own time an event, PublishStream, dedup on", "pipelines of 100 XADDs, no dedup", 2.2,
        "µs", costs.redis_time, most=True,
    ),
    Figure(
        "start", "CPU of a start until SERVING", "that of the grpc.aio server that does nothing", 3.3, "ms",
        costs.start, most=True, missing=_nothing,
    ),
    Figure(
        "start-quarter", "time of a start until SERVING on 0.25 vCPU", "the grpc.aio server that does nothing", 3.3,
        "s", costs.start_on_a_quarter, most=True, missing=quota.missing,
    ),
    Figure(
        "many-entries", "PublishStream, many entries in the stream", "none", 0.95, "events/s", growth.entries,
    ),
    Figure("many-models", "PublishStream, events of many models", "of one", 0.95, "events/s", growth.models),
    Figure("many-groups", "PublishStream, many consumer groups", "none", 0.95, "events/s", growth.groups),
    Figure("many-pending", "PublishStream, many entries pending in a group", "none", 0.95, "events/s", growth.pending),
    Figure(
        "many-spooled", "PublishStream while Redis is away, many events in the spool", "none", 0.95, "events/s",
        growth.spooled,
    ),
    Figure(
        "consuming-models", "Consumer.run_batches of 100, events of many models", "of 50", 0.95, "events/s",
        consuming.many_models, missing=_nothing,
    ),
)  # fmt: skip
