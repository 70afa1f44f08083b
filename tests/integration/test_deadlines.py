"""Each caller is answered before its deadline, alone: neither a short one nor a slow disk changes what others get."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from grpc_status import rpc_status

from modelready.v1 import publisher_service_pb2 as pb
from modelready.v1.publisher_service_pb2_grpc import PublisherServiceStub
from sidecar.app import running
from sidecar.settings import Settings
from sidecar.spool.spool import SqliteSpool
from tests.harness.ports import LOOPBACK
from tests.harness.redis_server import RedisServer
from tests.harness.relay import Relay
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import auntil, until
from tests.integration.calls import (
    DEFAULT,
    DUPLICATE,
    PRIMARY,
    STORED,
    TO_DISK,
    calling,
    model_event,
    queued_ids,
    read_error,
    read_status,
)

T = TypeVar("T")
HASTY_SECONDS = 0.008


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def test_a_caller_with_a_short_deadline_changes_nothing_for_the_others(server: RedisServer) -> None:
    """A link of 20 ms, and two callers that give up after 8 ms, again and again."""
    stop = threading.Event()
    hasty: Counter[str] = Counter()
    kept: list[str] = []

    def hurry() -> None:
        with calling(sidecar) as caller:
            while not stop.is_set():
                try:
                    receipt = caller.publish(timeout=HASTY_SECONDS)
                except grpc.RpcError as error:
                    hasty[read_error(error).code.name] += 1
                else:
                    hasty[pb.Outcome.Name(receipt.outcome)] += 1
                    kept.append(receipt.event_id)

    with Relay(server.port) as relay, SidecarProcess(to_relay(relay)) as sidecar, calling(sidecar) as caller:
        caller.publish()
        relay.delay(0.01)
        threads = [threading.Thread(target=hurry) for _ in range(2)]
        for thread in threads:
            thread.start()
        until(lambda: sum(hasty.values()) > 50, 10, "they hurry")
        outcomes: dict[pb.Durability, Counter[int]] = {DEFAULT: Counter(), PRIMARY: Counter()}
        stored = []
        for _ in range(60):
            for durability, counts in outcomes.items():
                receipt = caller.publish(durability=durability, timeout=5)
                counts[receipt.outcome] += 1
                stored.append(receipt.event_id)
        stop.set()
        for thread in threads:
            thread.join()
        assert outcomes == {DEFAULT: {STORED: 60}, PRIMARY: {STORED: 60}}, hasty
        relay.delay(0)
        until(lambda: sidecar.metrics()["modelready_spool_events"] == 0, 10, "the copies are forwarded")
        ids = queued_ids(server)
        assert len(ids) == len(set(ids))
        assert {*stored, *kept} <= set(ids)
        assert [event_id for event_id in ids if event_id in set(stored)] == stored


def to_relay(relay: Relay) -> dict[str, str]:
    return {"REDIS_HOST": relay.host, "REDIS_PORT": str(relay.port)}


class Disk:
    """Stands before every commit of a spool, and takes `seconds` for its fsync."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        inner: Callable[..., Any] = SqliteSpool._transact

        def slow(spool: SqliteSpool, job: Callable[[Any], T]) -> T:
            time.sleep(self.seconds)
            return inner(spool, job)  # type: ignore[no-any-return]

        monkeypatch.setattr(SqliteSpool, "_transact", slow)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@asynccontextmanager
async def publishing(env: dict[str, str], spool: Path) -> AsyncIterator[Any]:
    """A sidecar in this process, so that its disk can be slow."""
    listen = {"SIDECAR_LISTEN": f"{LOOPBACK}:0", "SIDECAR_HTTP_LISTEN": f"{LOOPBACK}:0", "SPOOL_DIR": str(spool)}
    async with (
        running(Settings.from_env({**env, "SIDECAR_SHUTDOWN_SECONDS": "3", **listen})) as sidecar,
        grpc.aio.insecure_channel(sidecar.addresses[0]) as channel,
    ):
        yield PublisherServiceStub(channel)


async def answer(stub: Any, durability: pb.Durability, timeout: float, **fields: str) -> tuple[str, float]:
    """Its outcome or reason, and the seconds that it took."""
    began = time.monotonic()
    call = stub.Publish(pb.PublishRequest(event=model_event(**fields), durability=durability), timeout=timeout)
    try:
        said = pb.Outcome.Name((await call).receipt.outcome)
    except grpc.aio.AioRpcError as error:
        status = rpc_status.from_call(error)
        said = read_status(status).reason if status else error.code().name
    return said, time.monotonic() - began


async def test_a_disk_that_stalls_holds_no_answer_beyond_its_deadline(disk: Disk, tmp_path: Path) -> None:
    """Redis is away, the disk takes 5 s: what may be there is not called a failure, and PRIMARY learns why."""
    server = RedisServer()
    # The sidecar ends the calls before the callers do, so that its answers arrive on a busy machine, too.
    env = {"REDIS_HOST": server.host, "REDIS_PORT": str(server.port), "PUBLISH_TIMEOUT_SECONDS": "2"}
    try:
        async with publishing(env, tmp_path) as stub:
            assert (await answer(stub, DEFAULT, 5))[0] == "OUTCOME_SPOOLED"
            disk.seconds = 8
            answers = await asyncio.gather(
                *(answer(stub, durability, 7) for durability in (DEFAULT, PRIMARY) for _ in range(20))
            )
            assert max(seconds for _, seconds in answers) < disk.seconds
            assert {said for said, _ in answers[:20]} == {"OUTCOME_UNKNOWN"}
            assert {said for said, _ in answers[20:]} == {"REDIS_UNAVAILABLE"}
            disk.seconds = 0
            await auntil(lambda: spooled(stub), 10, "the disk is back")
    finally:
        server.close()


async def spooled(stub: Any) -> bool:
    return (await answer(stub, DEFAULT, 1))[0] == "OUTCOME_SPOOLED"


async def test_while_redis_answers_a_disk_that_stalls_is_noticed_by_nobody_who_does_not_need_it(
    server: RedisServer, disk: Disk, tmp_path: Path
) -> None:
    with Relay(server.port) as relay:
        async with publishing(to_relay(relay), tmp_path) as stub:
            assert (await answer(stub, DEFAULT, 5))[0] == "OUTCOME_STORED"
            relay.delay(0.05)
            disk.seconds = 4
            hasty = asyncio.ensure_future(answer(stub, DEFAULT, 0.05))
            await asyncio.sleep(0.06)
            for durability in (DEFAULT, PRIMARY):
                said, seconds = await answer(stub, durability, 3)
                assert (said, seconds < disk.seconds) == ("OUTCOME_STORED", True)
            assert (await hasty)[0] in {"OUTCOME_UNKNOWN", "DEADLINE_EXCEEDED"}
            disk.seconds = 0


async def test_calls_behind_frames_on_a_slow_disk_are_answered_in_time(disk: Disk, tmp_path: Path) -> None:
    """Sixteen frames are on their way to the disk, at 0.3 s each: more than the calls' 3 s."""
    server = RedisServer()
    # The sidecar ends the calls before the callers do, so that its answers arrive on a busy machine, too.
    env = {"REDIS_HOST": server.host, "REDIS_PORT": str(server.port), "PUBLISH_TIMEOUT_SECONDS": "3"}
    try:
        async with publishing(env, tmp_path) as stub:
            assert (await answer(stub, DEFAULT, 5))[0] == "OUTCOME_SPOOLED"
            disk.seconds = 0.3
            frames = stub.PublishStream(
                pb.PublishStreamRequest(sequence=n, events=[model_event(n * 300 + m) for m in range(300)])
                for n in range(16)
            )
            reading = asyncio.ensure_future(all_of(frames))
            await asyncio.sleep(0.3)
            answers = await asyncio.gather(*(answer(stub, d, 12) for d in (PRIMARY, DEFAULT) for _ in range(5)))
            assert not {said for said, _ in answers} & {"DEADLINE_EXCEEDED", "INTERNAL"}, answers
            results = [result for response in await reading for result in response.results]
            disk.seconds = 0
            outcomes = Counter(result.receipt.outcome for result in results)
            assert outcomes[TO_DISK] >= 300 * 3, outcomes
    finally:
        server.close()


async def all_of(call: Any) -> list[pb.PublishStreamResponse]:
    return [response async for response in call]


def test_a_redis_that_is_slower_than_a_deadline_is_waited_for_on_the_disk(server: RedisServer) -> None:
    """Copied to the disk at the deadline, and stored all the same: once, and known when it comes again."""
    with Relay(server.port) as relay, SidecarProcess(to_relay(relay)) as sidecar, calling(sidecar) as caller:
        caller.publish()
        relay.delay(0.5)
        event = model_event()
        assert caller.publish(event, timeout=0.8).outcome == TO_DISK
        assert caller.publish(timeout=5).outcome == STORED  # nobody has to queue behind the copy
        relay.delay(0)
        until(lambda: sidecar.metrics()["modelready_spool_events"] == 0, 10, "the copy is forwarded")
        assert queued_ids(server).count(event.event_id) == 1
        assert caller.publish(event).outcome == DUPLICATE
