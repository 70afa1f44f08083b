"""The outbox with asyncio: AsyncSession, and the relay as a task."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from clients.python.tests.fake_sidecar import FakeSidecar
from modelready import outbox
from modelready.aio import Publisher
from modelready.outbox import aio
from tests.harness.database_server import DatabaseServer
from tests.harness.databases import on, status
from tests.harness.waiting import auntil

DRIVERS = on("sqlite+aiosqlite", "postgresql+asyncpg", "postgresql+psycopg", "mysql+aiomysql")


@pytest.fixture
async def async_engine(url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(outbox.metadata.drop_all)
        await connection.run_sync(outbox.metadata.create_all)
    yield engine
    await engine.dispose()


@pytest.fixture
async def relay(async_engine: AsyncEngine, sidecar: FakeSidecar) -> AsyncIterator[aio.Relay]:
    async with Publisher(sidecar.address) as publisher:
        yield aio.Relay(async_engine, publisher, poll_seconds=30)


@contextlib.asynccontextmanager
async def running(relay: aio.Relay) -> AsyncIterator[None]:
    task = asyncio.create_task(relay.run())
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def register(engine: AsyncEngine, *versions: int) -> None:
    async with AsyncSession(engine) as session:
        for version in versions:
            outbox.add(session, name="fraud", version=version, uri="s3://m/")
        await session.commit()


async def arrived(sidecar: FakeSidecar, *versions: int) -> None:
    expected = [str(version) for version in versions]
    await auntil(lambda: [event.model.version for event in sidecar.entries] == expected, 30, f"versions {expected}")


@DRIVERS
async def test_what_is_committed_is_sent_and_what_is_rolled_back_is_not(
    async_engine: AsyncEngine, relay: aio.Relay, sidecar: FakeSidecar
) -> None:
    await register(async_engine, 1, 2)
    async with AsyncSession(async_engine) as session:
        outbox.add(session, name="fraud", version=3, uri="s3://m/")
        await session.flush()
        await session.rollback()
    assert await relay.run_once() == 2
    assert await relay.run_once() == 0
    await arrived(sidecar, 1, 2)


@DRIVERS
async def test_a_commit_of_its_process_wakes_it(
    async_engine: AsyncEngine, relay: aio.Relay, sidecar: FakeSidecar
) -> None:
    async with running(relay):
        for version in range(3):
            await register(async_engine, version)
            await arrived(sidecar, *range(version + 1))


@on("postgresql+asyncpg", "postgresql+psycopg")
async def test_an_insert_of_another_process_wakes_it_by_notify_also_after_a_cut(
    async_engine: AsyncEngine, relay: aio.Relay, sidecar: FakeSidecar, postgresql: DatabaseServer
) -> None:
    other = create_engine(postgresql.url)

    def insert(version: int) -> None:
        with other.begin() as connection:
            connection.execute(outbox.insert(name="fraud", version=version, uri="s3://m/"))

    async def listening() -> bool:
        return await asyncio.to_thread(listens, other)

    async with running(relay):
        await auntil(listening, 30, "it listens")
        await asyncio.to_thread(insert, 1)
        await arrived(sidecar, 1)
        await asyncio.to_thread(terminate, other)
        await auntil(listening, 30, "it listens again")
        await asyncio.to_thread(insert, 2)
        await arrived(sidecar, 1, 2)
    other.dispose()


LISTENERS = "FROM pg_stat_activity WHERE query ILIKE 'LISTEN %' AND state = 'idle'"


def listens(engine: Engine) -> bool:
    with engine.connect() as connection:
        return bool(connection.execute(text(f"SELECT count(*) {LISTENERS}")).scalar())


def terminate(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"SELECT pg_terminate_backend(pid) {LISTENERS}"))


@on("mysql+aiomysql")
async def test_a_task_that_is_cancelled_while_it_publishes_gives_the_lock_up(
    async_engine: AsyncEngine, relay: aio.Relay, sidecar: FakeSidecar, mysql: DatabaseServer
) -> None:
    await register(async_engine, 1)
    held = asyncio.Event()
    loop = asyncio.get_running_loop()
    free = loop.create_future()

    def hold() -> None:
        loop.call_soon_threadsafe(held.set)
        asyncio.run_coroutine_threadsafe(wait(), loop).result(30)

    async def wait() -> None:
        await free

    sidecar.hold = hold
    async with running(relay):
        await held.wait()
    free.set_result(None)
    sidecar.hold = lambda: None
    await auntil(relay.run_once, 30, "the lock is free")
    await arrived(sidecar, 1)
    other = create_engine(mysql.url)
    assert (await asyncio.to_thread(status, other)).waiting == 0
    other.dispose()


@on("sqlite+aiosqlite")
async def test_a_task_that_is_cancelled_as_a_commit_wakes_it_ends(async_engine: AsyncEngine, relay: aio.Relay) -> None:
    task = asyncio.create_task(relay.run())
    await auntil(lambda: bool(relay._wakeup._waiters), 30, "it waits")
    relay._wakeup.set()
    task.cancel()
    await asyncio.wait({task}, timeout=30)
    assert task.cancelled()
