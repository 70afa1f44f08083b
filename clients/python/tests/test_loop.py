"""The steps of a consumer at work, without a handler: what it gives, acknowledges, repeats and puts back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis import exceptions

from clients.python.tests.test_consumer import QUICK, STREAM, dead_letters, environ, publish
from clients.python.tests.test_consumer_group import names, server, shared, summary  # noqa: F401
from modelready import model_ready
from modelready._consumer.failures import Failures
from modelready._consumer.in_flight import Entry
from modelready._consumer.lanes import Lanes
from modelready._consumer.loop import Loop
from modelready._consumer.options import checked_options
from modelready.entry import encode
from modelready.keys import WAITING_CONSUMER
from modelready.redis.cluster import server_from_env
from tests.harness.redis_server import RedisServer
from tests.harness.waiting import until

DEADLINE = 20


class Worker:
    """A loop, and one worker that does what the test says."""

    def __init__(self, server: RedisServer, **options: Any) -> None:  # noqa: F811
        settings: dict[str, Any] = {"group": "deployer", "consumer_name": "one", **QUICK, **options}
        self._ready = asyncio.Event()
        self.loop = Loop(
            server_from_env(environ(server), STREAM),
            checked_options(**settings),
            self._ready.set,
            self._changed,
        )
        self.in_flight = self.loop.in_flight
        self.in_flight.hungry = 1

    def _changed(self) -> None:
        self.loop.changed()

    async def take(self) -> Entry:
        async def taken() -> Entry:
            while True:
                self._ready.clear()
                if entries := self.in_flight.take():
                    return entries[0]
                await self._ready.wait()

        return await asyncio.wait_for(taken(), DEADLINE)


@asynccontextmanager
async def at_work(server: RedisServer, **options: Any) -> AsyncIterator[Worker]:  # noqa: F811
    worker = Worker(server, **options)
    task = asyncio.create_task(worker.loop.run())
    try:
        yield worker
    finally:
        worker.loop.stop()
        await asyncio.wait_for(task, DEADLINE)


async def soon(condition: Any, what: str) -> None:
    await asyncio.to_thread(until, condition, DEADLINE, what)


def test_it_gives_a_model_s_events_in_order_and_acknowledges_each(server: RedisServer) -> None:  # noqa: F811
    ids = publish(server, 1, 2, 3)

    async def work() -> list[str]:
        async with at_work(server) as worker:
            taken = []
            for _ in ids:
                entry = await worker.take()
                taken.append(entry.id)
                worker.in_flight.done(entry)
            await soon(lambda: not summary(server), "all are acknowledged")
            return taken

    assert asyncio.run(work()) == ids
    assert names(server) == []


def test_a_stop_waits_for_what_was_begun(server: RedisServer) -> None:  # noqa: F811
    publish(server, 1, 2)

    async def work() -> None:
        async with at_work(server, batch=2) as worker:
            entry = await worker.take()
            worker.loop.stop()
            await soon(lambda: worker.in_flight.stopping, "it stops")
            assert summary(server) == {"one": 2}
            worker.in_flight.done(entry)

    asyncio.run(work())
    assert summary(server) == {WAITING_CONSUMER: 1}


def test_a_forced_stop_puts_back_what_was_begun_and_its_attempt_counts(server: RedisServer) -> None:  # noqa: F811
    (entry,) = publish(server, 1)

    async def work() -> None:
        async with at_work(server) as worker:
            await worker.take()
            worker.loop.stop(forced=True)

    asyncio.run(work())
    with server.client() as client:
        (pending,) = client.xpending_range(STREAM, "deployer", "-", "+", 10)
    assert (pending["message_id"], pending["consumer"]) == (entry.encode(), WAITING_CONSUMER.encode())
    assert pending["times_delivered"] == 1


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_after_a_lost_reply_it_gives_each_once_and_counts_no_attempt(
    server: RedisServer,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    lost: int,
) -> None:
    """Redis did what it was asked; the consumer does not know."""
    ids = publish(server, 1, 2) + publish(server, 1, name="other")
    calls = 0
    turn = Lanes.turn

    async def cut(lanes: Lanes, *args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        done = await turn(lanes, *args, **options)
        if calls == lost:
            raise exceptions.ConnectionError("its reply was lost")
        return done

    monkeypatch.setattr(Lanes, "turn", cut)

    async def work() -> list[tuple[str, int]]:
        async with at_work(server) as worker:
            taken = []
            for _ in ids:
                entry = await worker.take()
                taken.append((entry.id, entry.attempts))
                worker.in_flight.done(entry)
            await soon(lambda: not summary(server), "all are acknowledged")
            return taken

    assert sorted(asyncio.run(work())) == [(entry, 1) for entry in sorted(ids)]
    assert not dead_letters(server)
    assert caplog.messages.count("waiting for Redis: its reply was lost") == 1


def test_what_no_waiting_helps_against_is_raised(server: RedisServer) -> None:  # noqa: F811
    server.execute("SET", STREAM, "no stream")

    async def work() -> None:
        worker = Worker(server)
        await asyncio.wait_for(worker.loop.run(), DEADLINE)

    with pytest.raises(exceptions.ResponseError, match="WRONGTYPE"):
        asyncio.run(work())


def test_what_cannot_be_begun_holds_up_nothing(server: RedisServer) -> None:  # noqa: F811
    """An entry that is no event is a dead letter; one that is for another group is acknowledged."""
    with server.client() as client:
        client.xadd(STREAM, {"data": b"\xff", "partitionkey": "m"})
        client.xadd(STREAM, {**encode(model_ready(name="m", version=1, uri="s3://m/")), "replay_group": "another"})
    (last,) = publish(server, 2)

    async def work() -> str:
        async with at_work(server, batch=3) as worker:
            entry = await worker.take()
            worker.in_flight.done(entry)
            return entry.id

    assert asyncio.run(work()) == last
    (letter,) = dead_letters(server)
    assert letter[b"dl_reason"] == b"UNDECODABLE"
    assert not summary(server)


def test_pauses_between_attempts_grow_to_their_limit() -> None:
    options = checked_options(group="deployer", backoff_base_seconds=1.0, backoff_max_seconds=60.0)
    failures = Failures(None, None, options)  # type: ignore[arg-type]  # a pause needs neither
    for attempts, longest in [(1, 1), (2, 2), (4, 8), (7, 60), (2000, 60)]:
        pauses = [failures._pause(attempts) for _ in range(300)]
        assert 0 <= min(pauses) < longest / 4
        assert longest / 2 < max(pauses) <= longest
