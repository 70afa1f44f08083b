"""Hooks without an outbox: the event follows the commit, and a rollback leaves none."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import grpc
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

import modelready.aio
from clients.python.tests.fake_sidecar import FakeSidecar, failure
from modelready import InvalidEvent, Publisher, PublishError, publishes_model_ready


def event(version: int) -> Any:
    return {"name": "fraud", "version": version, "uri": "s3://m/"}


def versions(sidecar: FakeSidecar) -> list[str]:
    return [sent.model.version for sent in sidecar.entries]


# -- publish_after


def test_an_event_is_published_after_the_commit(tmp_path: Path, sidecar: FakeSidecar) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/registry.db")
    seen: list[int] = []

    def hold() -> None:
        with engine.connect() as other:
            seen.append(other.execute(text("SELECT count(*) FROM versions")).scalar_one())

    sidecar.hold = hold
    with Publisher(sidecar.address) as publisher, Session(engine) as session:
        session.execute(text("CREATE TABLE versions (number INT)"))
        session.commit()
        session.execute(text("INSERT INTO versions VALUES (1)"))
        event_id = publisher.publish_after(session, **event(1))
        assert versions(sidecar) == []
        session.commit()
        assert [sent.event_id for sent in sidecar.entries] == [event_id]
        session.commit()
    assert versions(sidecar) == ["1"]
    assert seen == [1]


def test_what_is_rolled_back_closed_or_within_a_savepoint_taken_back_is_not_published(sidecar: FakeSidecar) -> None:
    with Publisher(sidecar.address) as publisher, Session(create_engine("sqlite://")) as session:
        publisher.publish_after(session, **event(1))
        session.rollback()
        session.commit()
        publisher.publish_after(session, **event(2))
        session.close()
        session.commit()
        publisher.publish_after(session, **event(3))
        savepoint = session.begin_nested()
        publisher.publish_after(session, **event(4))
        with session.begin_nested():
            publisher.publish_after(session, **event(5))
        savepoint.rollback()
        with session.begin_nested():
            publisher.publish_after(session, **event(6))
        assert versions(sidecar) == []
        session.commit()
        with session.begin_nested():
            publisher.publish_after(session, **event(7))
        session.rollback()
        session.commit()
    assert versions(sidecar) == ["3", "6"]


def test_a_failure_after_the_commit_is_reported_and_does_not_look_like_one_of_the_commit(
    sidecar: FakeSidecar, caplog: pytest.LogCaptureFixture
) -> None:
    errors: list[PublishError] = []
    sessions = scoped_session(sessionmaker(create_engine("sqlite://")))
    with Publisher(sidecar.address) as publisher:
        sidecar.failures += [failure(grpc.StatusCode.PERMISSION_DENIED)] * 2
        event_id = publisher.publish_after(sessions, **event(1))
        with caplog.at_level(logging.ERROR):
            sessions.commit()
        assert event_id in caplog.text
        publisher.publish_after(sessions, on_error=errors.append, **event(2))
        sessions.commit()
        with pytest.raises(InvalidEvent):
            publisher.publish_after(sessions, **event(3), signature="x" * (1 << 21))
    assert len(errors) == 1
    assert versions(sidecar) == []


async def test_an_asyncio_session_publishes_after_its_commit_too(sidecar: FakeSidecar) -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    async with modelready.aio.Publisher(sidecar.address) as publisher, AsyncSession(engine) as session:
        await session.execute(text("SELECT 1"))
        publisher.publish_after(session, **event(1))
        await session.rollback()
        publisher.publish_after(session, **event(2))
        await session.commit()
        assert versions(sidecar) == ["2"]
    await engine.dispose()


# -- publishes_model_ready


def test_a_registration_that_returns_is_published_and_one_that_raises_is_not(sidecar: FakeSidecar) -> None:
    errors: list[PublishError] = []
    with Publisher(sidecar.address) as publisher:

        @publishes_model_ready(publisher, lambda number: event(number) if number else None, on_error=errors.append)
        def register(number: int) -> int:
            """Registers."""
            if number < 0:
                raise ValueError(number)
            return number

        assert register(1) == 1
        assert register(0) == 0
        with pytest.raises(ValueError, match="-1"):
            register(-1)
        sidecar.failures.append(failure(grpc.StatusCode.PERMISSION_DENIED))
        assert register(2) == 2
        assert register.__doc__ == "Registers."
    assert versions(sidecar) == ["1"]
    assert len(errors) == 1


async def test_a_coroutine_function_takes_the_asyncio_publisher(sidecar: FakeSidecar) -> None:
    async with modelready.aio.Publisher(sidecar.address) as publisher:

        @publishes_model_ready(publisher, event)
        async def register(number: int) -> int:
            return number

        assert await register(1) == 1
        with pytest.raises(TypeError, match="coroutine function"):

            @publishes_model_ready(publisher, event)
            def blocking(number: int) -> int:
                return number

    assert versions(sidecar) == ["1"]
