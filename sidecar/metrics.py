"""The metrics, as an object: nothing is global, so several sidecars can run in one process."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from sidecar import __version__

disable_created_metrics()  # type: ignore[no-untyped-call] # of the whole process: the time of each counter's start
# Each bound is at most two thirds above the one before, so that percentiles read from the buckets are useful.
_LATENCY = (
    0.0005, 0.0007, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3,
    0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0,
)  # fmt: skip
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """All metrics of one sidecar, in their own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._gauge("modelready_build_info", "1; the label has the sidecar's version.", "version").labels(
            __version__
        ).set(1)
        self.published = self._counter(
            "modelready_published_events", "Events by outcome: stored, duplicate, spooled, or the reason of a refusal.",
            "outcome",
        )  # fmt: skip
        self.rpc_seconds = self._histogram(
            "modelready_rpc_seconds", "Time from a call's or a frame's arrival to its answer.", _LATENCY, "method"
        )
        self.redis_seconds = self._histogram(
            "modelready_redis_append_seconds", "Time of one append of a group, including WAIT.", _LATENCY
        )
        self.group_size = self._histogram("modelready_group_events", "Events committed together.", _SIZES)
        self.retries = self._counter(
            "modelready_retries", "Attempts after the first, by the part of the sidecar that made them.", "by"
        )
        self.dead_letters = self._counter("modelready_dead_letters", "Dead letters written, by reason.", "reason")
        self.connection_failures = self._counter(
            "modelready_redis_connection_failures", "Failed commands or connections."
        )
        self.auth_failures = self._counter("modelready_redis_auth_failures", "Logins that Redis refused.")
        self.log_lines_left_out = self._counter(
            "modelready_log_lines_left_out",
            "Lines missing in the log: repeated too often within a second, or not read in time.",
            "reason",
        )
        self.redis_up = self._gauge("modelready_redis_up", "1 if an authenticated round trip succeeded recently.")
        self.redis_used_memory = self._gauge("modelready_redis_used_memory_bytes", "Memory that Redis uses.")
        self.redis_max_memory = self._gauge("modelready_redis_max_memory_bytes", "Its maxmemory; 0 without a limit.")
        self.eviction_policy = self._gauge("modelready_redis_eviction_policy", "1 for its maxmemory-policy.", "policy")
        self.pending = self._gauge("modelready_pending_events", "Events waiting in memory to be committed.")
        self.spool_depth = self._gauge("modelready_spool_events", "Events in the spool.")
        self.spool_bytes = self._gauge("modelready_spool_bytes", "Bytes in the spool.")
        self.spool_max_bytes = self._gauge("modelready_spool_max_bytes", "SPOOL_MAX_BYTES.")
        self.spool_free_bytes = self._gauge("modelready_spool_disk_free_bytes", "Free space on the spool's disk.")
        self.spool_age = self._gauge("modelready_spool_oldest_age_seconds", "Age of the oldest spooled event.")
        self.spool_damaged = self._gauge(
            "modelready_spool_damaged_files", "Damaged spool files set aside since the start."
        )
        self.outbox_waiting = self._gauge(
            "modelready_outbox_rows", "Rows that wait in the registry's outbox, counted up to 100,000."
        )
        self.outbox_age = self._gauge(
            "modelready_outbox_oldest_age_seconds",
            "Age of the oldest row that waits; grows while the database does not answer.",
        )
        self.outbox_refused = self._gauge("modelready_outbox_refused_rows", "Rows that broke a rule, and are kept.")
        self.outbox_failing = self._gauge("modelready_outbox_failing", "1 while the outbox is not being emptied.")
        self.queue_depth = self._gauge("modelready_queue_depth", "Entries that a group has not acknowledged.", "group")
        self.queue_pending = self._gauge(
            "modelready_queue_pending", "Entries that were delivered to a group and not acknowledged.", "group"
        )
        self.queue_age = self._gauge(
            "modelready_queue_oldest_age_seconds", "Age of the oldest entry a group has not acknowledged.", "group"
        )
        self.stream_length = self._gauge("modelready_stream_length", "Entries in the stream.")
        self.dead_letter_depth = self._gauge(
            "modelready_dead_letter_stream_length", "Entries in the dead-letter stream."
        )
        self.dead_letters_by_reason = self._gauge(
            "modelready_dead_letter_stream_reasons",
            "Entries in the dead-letter stream by reason, among its oldest 10,000.",
            "reason",
        )
        self.list_depth = self._gauge("modelready_list_depth", "Messages waiting in a mirror list.", "list")
        self.list_processing = self._gauge(
            "modelready_list_processing", "Messages of a mirror list that consumers are handling.", "list", "key"
        )
        self.list_dead_letters = self._gauge(
            "modelready_list_dead_letters", "Messages of a mirror list that consumers have given up.", "list", "key"
        )
        self.trimmed = self._counter(
            "modelready_trimmed_entries", "Entries removed, past their retention and acknowledged by every group."
        )
        self.held_back = self._gauge(
            "modelready_trim_held_back_seconds",
            "Age of the oldest entry past the retention that a group has not acknowledged.",
            "group",
        )

    def watch(self, gauge: Gauge, value: Callable[[], float]) -> None:
        """Let a gauge call `value` whenever it is read."""
        gauge.set_function(value)

    def render(self) -> bytes:
        """All metrics in the Prometheus text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, registry=self.registry, buckets=buckets)
