"""Dead letters over gRPC: read in pages, replayed and discarded in batches, so that no call meets its deadline."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from modelready.v1 import queue_service_pb2 as pb
from sidecar.cli import connection

_BATCH = 500
_MAX_PAGE = 1000
_BATCH_SECONDS = 10.0  # how long a batch should take with a rate
_PATIENCE_SECONDS = 60.0  # for a page, which may read 10,000 entries; a batch has it in addition


class Done(NamedTuple):
    """The result of a step. `missing`: no longer there; `skipped`: cannot be put back and stays a dead letter."""

    done: int = 0
    missing: int = 0
    skipped: int = 0


@contextmanager
def opened(options: argparse.Namespace) -> Iterator[Letters]:
    """Connect as the options say. Raises Misused."""
    with connection.connect(options) as sidecar:
        yield Letters(sidecar, options)


class Letters:
    """The dead letters that the options select. All methods raise Failed."""

    def __init__(self, sidecar: connection.Sidecar, options: argparse.Namespace) -> None:
        self._sidecar = sidecar
        self._options = options

    def matching(self, limit: int | None) -> Iterator[pb.DeadLetter]:
        """At most `limit` dead letters, the oldest first, without their events."""
        request = pb.ListDeadLettersRequest(filter=self._filter())
        found = 0
        while limit is None or found < limit:
            request.page_size = _MAX_PAGE if limit is None else min(limit - found, _MAX_PAGE)
            page = self._sidecar.call(self._sidecar.stub.ListDeadLetters, request, timeout=_PATIENCE_SECONDS)
            yield from page.dead_letters
            found += len(page.dead_letters)
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    def get(self, letter_id: str) -> pb.DeadLetter:
        """One dead letter with its event."""
        request = pb.GetDeadLetterRequest(id=letter_id)
        return self._sidecar.call(self._sidecar.stub.GetDeadLetter, request).dead_letter

    def replay(self, ids: Sequence[str], *, everyone: bool, rate: float, dry_run: bool) -> Iterator[Done]:
        """Replay in batches, at most `rate` a second (0: no limit). Each step of the iterator makes one call."""
        target = pb.REPLAY_TARGET_ALL if everyone else pb.REPLAY_TARGET_ORIGIN
        requests = (
            pb.ReplayDeadLettersRequest(ids=pb.DeadLetterIds(ids=batch), target=target)
            for batch in _batches(ids, _most(rate, dry_run=dry_run))
        )
        return self._replay(requests, rate, dry_run=dry_run)

    def replay_list(self, name: str, *, rate: float, dry_run: bool) -> Iterator[Done]:
        """The same for messages that the consumers of a mirror list have given up."""
        everything = pb.ReplayDeadLettersRequest(list=pb.ListSelection(name=name))
        (counted,) = self._replay(iter([everything]), 0, dry_run=True)
        if dry_run:
            return iter([counted])
        most = _most(rate, dry_run=False)
        requests = (
            pb.ReplayDeadLettersRequest(list=pb.ListSelection(name=name, limit=min(most, counted.done - begun)))
            for begun in range(0, counted.done, most)
        )
        return self._replay(requests, rate, dry_run=False)

    def _replay(self, requests: Iterator[pb.ReplayDeadLettersRequest], rate: float, *, dry_run: bool) -> Iterator[Done]:
        began, replayed = time.monotonic(), 0
        for request in requests:
            if rate and not dry_run:
                time.sleep(max(began + replayed / rate - time.monotonic(), 0))
            request.dry_run, request.max_per_second = dry_run, rate
            size = len(request.ids.ids) or request.list.limit
            timeout = _PATIENCE_SECONDS + (size / rate if rate else 0)
            answer = self._sidecar.call(self._sidecar.stub.ReplayDeadLetters, request, timeout=timeout)
            replayed += answer.replayed
            yield Done(answer.replayed, answer.missing, answer.skipped)

    def discard(self, ids: Sequence[str], *, dry_run: bool) -> Iterator[Done]:
        """Discard in batches. Each step of the iterator makes one call."""
        for batch in _batches(ids, _BATCH):
            request = pb.DiscardDeadLettersRequest(ids=pb.DeadLetterIds(ids=batch), dry_run=dry_run)
            answer = self._sidecar.call(self._sidecar.stub.DiscardDeadLetters, request, timeout=_PATIENCE_SECONDS)
            yield Done(answer.discarded, answer.missing)

    def _filter(self) -> pb.DeadLetterFilter:
        options = self._options
        chosen = pb.DeadLetterFilter(reason=options.reason, model=options.model, origin=options.origin)
        if options.older_than is not None:
            chosen.older_than.FromMilliseconds(round(options.older_than * 1000))
        if options.newer_than is not None:
            chosen.newer_than.FromMilliseconds(round(options.newer_than * 1000))
        return chosen


def _most(rate: float, *, dry_run: bool) -> int:
    """The most to replay in one call."""
    return min(_BATCH, max(int(rate * _BATCH_SECONDS), 1)) if rate and not dry_run else _BATCH


def _batches(ids: Sequence[str], most: int) -> Iterator[list[str]]:
    """Each id once, the oldest first."""
    ordered = sorted(dict.fromkeys(ids), key=lambda one: tuple(map(int, one.split("-"))))
    for start in range(0, len(ordered), most):
        yield ordered[start : start + most]
