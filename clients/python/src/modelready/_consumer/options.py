"""The options of a consumer, and which of them are refused."""

from __future__ import annotations

import os
import secrets
import socket
from typing import NamedTuple, TypedDict

from modelready.keys import NO_CONSUMERS


class ConsumerOptions(TypedDict, total=False):
    """The keywords of a consumer besides its group."""

    queue: str
    consumer_name: str | None
    concurrency: int
    batch: int | None
    max_attempts: int
    backoff_base_seconds: float
    backoff_max_seconds: float
    claim_seconds: float
    block_seconds: float
    start: str


class Options(NamedTuple):
    """Of one consumer; see `modelready.consumer.Consumer`."""

    group: str
    queue: str
    consumer_name: str
    concurrency: int
    batch: int
    max_attempts: int
    backoff_base_seconds: float
    backoff_max_seconds: float
    claim_seconds: float
    block_seconds: float
    start: str


def checked_options(
    *,
    group: str,
    queue: str = "model-ready",
    consumer_name: str | None = None,
    concurrency: int = 1,
    batch: int | None = None,
    max_attempts: int = 5,
    backoff_base_seconds: float = 1.0,
    backoff_max_seconds: float = 60.0,
    claim_seconds: float = 60.0,
    block_seconds: float = 2.0,
    start: str = "0",
) -> Options:
    """With the defaults. Raises ValueError, which names the option."""
    if not group:
        raise ValueError("a consumer needs the name of its group")
    if consumer_name is not None and consumer_name.encode() in NO_CONSUMERS:
        raise ValueError(f"consumer_name is {consumer_name!r}, which is reserved")
    if start not in {"0", "$"}:
        raise ValueError(f'start is {start!r}; it may be "0" (all that is in the queue) or "$" (what comes)')
    batch = concurrency if batch is None else batch
    if concurrency < 1 or max_attempts < 1 or batch < concurrency:
        raise ValueError("concurrency and max_attempts are at least 1, and batch is not below concurrency")
    if min(backoff_base_seconds, backoff_max_seconds) < 0 or block_seconds <= 0 or claim_seconds < 0.5:
        raise ValueError("backoffs are not below 0, block_seconds is above 0, claim_seconds at least 0.5")
    return Options(
        group=group,
        queue=queue,
        consumer_name=consumer_name or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}",
        concurrency=concurrency,
        batch=batch,
        max_attempts=max_attempts,
        backoff_base_seconds=backoff_base_seconds,
        backoff_max_seconds=backoff_max_seconds,
        claim_seconds=claim_seconds,
        block_seconds=block_seconds,
        start=start,
    )
