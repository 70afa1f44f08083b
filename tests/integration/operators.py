"""What operators use: QueueService by its generated stub; and dead letters as sidecars and consumers write them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from modelready.entry import encode
from modelready.v1 import queue_service_pb2 as pb
from modelready.v1.event_pb2 import ModelReadyToDeploy
from modelready.v1.queue_service_pb2_grpc import QueueServiceStub
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.integration.calls import KEYS

ALL, ORIGIN = pb.REPLAY_TARGET_ALL, pb.REPLAY_TARGET_ORIGIN


def selected(**fields: Any) -> pb.DeadLetterFilter:
    """A filter; ages in seconds."""
    for name in ("older_than", "newer_than"):
        if name in fields:
            age = Duration()
            age.FromMilliseconds(round(fields[name] * 1000))
            fields[name] = age
    return pb.DeadLetterFilter(**fields)


class Operator:
    """Calls of QueueService over one connection."""

    def __init__(self, channel: grpc.Channel, token: str = "") -> None:
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self.stub = QueueServiceStub(channel)

    def status(self) -> pb.GetQueueStatusResponse:
        return self.stub.GetQueueStatus(pb.GetQueueStatusRequest(), timeout=10, metadata=self._metadata)

    def page(self, size: int = 0, token: str = "", **fields: Any) -> pb.ListDeadLettersResponse:
        request = pb.ListDeadLettersRequest(filter=selected(**fields), page_size=size, page_token=token)
        return self.stub.ListDeadLetters(request, timeout=10, metadata=self._metadata)

    def list(self, size: int = 0, **fields: Any) -> list[pb.DeadLetter]:
        """All pages."""
        letters: list[pb.DeadLetter] = []
        token = ""
        while True:
            page = self.page(size, token, **fields)
            letters += page.dead_letters
            token = page.next_page_token
            if not token:
                return letters

    def get(self, letter_id: str) -> pb.DeadLetter:
        request = pb.GetDeadLetterRequest(id=letter_id)
        return self.stub.GetDeadLetter(request, timeout=10, metadata=self._metadata).dead_letter

    def replay(
        self,
        ids: Sequence[str] | None = None,
        *,
        target: pb.ReplayTarget = ORIGIN,
        dry_run: bool = False,
        max_per_second: float = 0,
        timeout: float = 30,
        **fields: Any,
    ) -> tuple[int, int, int]:
        """Replayed, missing, skipped."""
        request = pb.ReplayDeadLettersRequest(target=target, dry_run=dry_run, max_per_second=max_per_second)
        _select(request, ids, fields)
        done = self.stub.ReplayDeadLetters(request, timeout=timeout, metadata=self._metadata)
        return done.replayed, done.missing, done.skipped

    def discard(self, ids: Sequence[str] | None = None, *, dry_run: bool = False, **fields: Any) -> tuple[int, int]:
        """Discarded, missing."""
        request = pb.DiscardDeadLettersRequest(dry_run=dry_run)
        _select(request, ids, fields)
        done = self.stub.DiscardDeadLetters(request, timeout=30, metadata=self._metadata)
        return done.discarded, done.missing

    def tail(self, last: int = 0, group: str = "") -> Any:
        """The open call: answers to iterate over."""
        return self.stub.TailEvents(pb.TailEventsRequest(last=last, group=group), metadata=self._metadata)

    @contextmanager
    def tailing(self, last: int = 0, group: str = "") -> Iterator[Any]:
        """The same, cancelled after."""
        call = self.tail(last, group)
        try:
            yield call
        finally:
            call.cancel()


def _select(
    request: pb.ReplayDeadLettersRequest | pb.DiscardDeadLettersRequest,
    ids: Sequence[str] | None,
    fields: dict[str, Any],
) -> None:
    if ids is None:
        request.filter.CopyFrom(selected(**fields))
    else:
        request.ids.ids.extend(ids)
        request.ids.SetInParent()


@contextmanager
def operating(sidecar: SidecarProcess, token: str = "") -> Iterator[Operator]:
    with sidecar.channel() as channel:
        yield Operator(channel, token)


def bury(
    server: RedisServer,
    event: ModelReadyToDeploy,
    *,
    origin: str = "sidecar",
    reason: str = "TOO_OLD",
    entry_id: str = "",
    letter_id: str = "*",
    **fields: bytes,
) -> str:
    """Write a dead letter; its id."""
    now = str(time.time_ns() // 1_000_000)
    story = {
        "dl_reason": reason, "dl_detail": "a detail", "dl_attempts": "3", "dl_first_at": now, "dl_last_at": now,
        "dl_origin": origin, "dl_entry_id": entry_id,
    }  # fmt: skip
    with server.client() as client:
        written: Any = client.xadd(KEYS.dead_letters, {**encode(event), **fields, **story}, id=letter_id)
    return str(written.decode())


def give_up(server: RedisServer, group: str, reason: str = "HANDLER_FAILED", count: int = 1) -> list[str]:
    """Do as a consumer that was given entries and could not handle them; the ids of the dead letters."""
    letters = []
    with server.client() as client:
        reply: Any = client.xreadgroup(group, "c", {KEYS.events: ">"}, count=count)
        for entry_id, fields in next(iter(reply.values()))[0]:
            story = {
                "dl_reason": reason, "dl_detail": "ValueError: no", "dl_attempts": "3", "dl_first_at": "1700000000000",
                "dl_last_at": "1700000001000", "dl_origin": f"group:{group}", "dl_entry_id": entry_id,
            }  # fmt: skip
            written: Any = client.xadd(KEYS.dead_letters, {**fields, **story})
            letters.append(written.decode())
            client.xack(KEYS.events, group, entry_id)
    return letters
