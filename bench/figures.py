"""All figures, in the order of the table."""

from __future__ import annotations

from bench import consuming, costs, growth, publishing, quota
from bench.rounds import Figure


def _nothing() -> str:
    return ""


FIGURES = (
    Figure(
        "unary", "unary Publish, 64 callers", "a grpc.aio server that does nothing", 0.85, "events/s", publishing.unary,
        reason="of some 145 µs of CPU for a call, about 100 are grpc.aio's, whose rate of calls this is; the sidecar's "
        "own are 36 to 40 a call and 48 for each group, in one thread of Python (docs/adr/0011, in process).",
    ),
    Figure(
        "one-caller", "unary Publish, one caller, p50", "the no-op's p50 + one XADD's p50", 1.25, "ms",
        publishing.one_caller, most=True,
        reason="some 0.13 ms are the sidecar's own. By stamps in its code, for a lone call, whose code is in no cache "
        "of the CPU any more: protovalidate 31 µs (7 where calls follow each other), the other steps in Python 75, "
        "append.lua some 20 more than an XADD. grpc's older listener saves 0.12 ms (docs/adr/0021); the no-op "
        "server has the default.",
    ),
    Figure(
        "stream", "PublishStream, frames of 100, dedup on", "redis-py asyncio pipelines of 100 XADDs, no dedup", 1.2,
        "events/s", publishing.stream,
        reason="17 to 18 µs of CPU an event, where the pipelines, which check and answer nothing, take 16 of their "
        "client. 6.5 are protovalidate's: 2.8 without any rule, since it reads each field from Python, and 0.5 "
        "for each of the four rules in CEL or on maps. Parsing, ids, arguments and answers are 5 together, grpc "
        "and the sockets the rest. A validator of our own was faster by 3 µs, and is withdrawn (docs/adr/0012).",
    ),
    Figure(
        "batch", "PublishBatch of 100, 4 callers, dedup on", "the same pipelines", 1.1, "events/s", publishing.batch,
        reason="as for the stream, and 1 µs for the call that each hundred is, 1 for the ids that the sidecar makes "
        "here.",
    ),
    Figure(
        "spooling", "unary Publish while Redis is away, 64 callers", "the same with Redis up", 0.95, "events/s",
        publishing.spooling,
        reason="SQLite takes 7 to 10 µs of CPU an event in groups of 32 to 64, in a thread that takes turns with the "
        "event loop, and each group waits for the disk.",
    ),
    Figure("draining", "draining the spool", "PublishStream", 0.8, "events/s", publishing.draining),
    Figure(
        "consuming", "Consumer.run_batches of 100, a handler that does nothing",
        "XREADGROUP, decode, XACK with redis-py, the same batches", 0.95, "events/s", consuming.batches,
        missing=_nothing,
        reason="the bare loop keeps no order. What keeps it costs Redis 7 µs an event instead of 2, most of it since "
        "what XREADGROUP gives passes through Lua, and the client 6 instead of 4; the two take turns. Without a "
        "look at the model of each event in the same step as the read, two consumers would deploy one model's "
        "versions at once (docs/adr/0014).",
    ),
    Figure(
        "consuming-singly", "Consumer.run, a handler that does nothing",
        "XREADGROUP of one, decode, XACK with redis-py", 0.8, "events/s", consuming.singles, missing=_nothing,
        reason="the client takes 155 µs of CPU an event and the bare loop 100: the event passes from the thread that "
        "speaks with Redis to the one that runs the handler, and its attempt is noted before it begins.",
    ),
    Figure(
        "slow-handler", "Consumer.run, a handler of 10 ms", "XREADGROUP, decode, the handler, XACK with redis-py", 0.9,
        "events/s", consuming.slow_handler, missing=_nothing,
    ),
    Figure(
        "redis-time", "Redis' own time an event, PublishStream, dedup on", "pipelines of 100 XADDs, no dedup", 2.2,
        "µs", costs.redis_time, most=True,
        reason="of 5.4 µs in the script XADD takes 1.2, two SETs 1.1, a GET 0.4 (INFO commandstats), and the rest is "
        "Lua's, which passes on 35 arguments an event. All GETs by one MGET, and names of commands in locals, "
        "changed nothing (0.98, docs/adr/0003).",
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
    Figure(
        "many-models", "PublishStream, events of many models", "of one", 0.95, "events/s", growth.models,
        reason="0.97, 0.96 and 0.95 in three runs. Neither the sidecar nor append.lua keeps anything for each model.",
    ),
    Figure("many-groups", "PublishStream, many consumer groups", "none", 0.95, "events/s", growth.groups),
    Figure("many-pending", "PublishStream, many entries pending in a group", "none", 0.95, "events/s", growth.pending),
    Figure(
        "many-spooled", "PublishStream while Redis is away, many events in the spool", "none", 0.95, "events/s",
        growth.spooled,
    ),
    Figure(
        "consuming-models", "Consumer.run_batches of 100, events of many models", "of 50", 0.95, "events/s",
        consuming.many_models, missing=_nothing,
        reason="of 50 models a batch has two events each, of many one: so a batch has twice as many lanes to open and "
        "to close. More models than events in a batch cost no more.",
    ),
)  # fmt: skip
