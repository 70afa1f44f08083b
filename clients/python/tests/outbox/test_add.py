"""`add` and `insert`: the event is sent if, and only if, its transaction was committed."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import Engine, event, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

from clients.python.tests.fake_sidecar import FakeSidecar, arrived
from modelready import InvalidEvent, outbox
from tests.harness.databases import SYNC, on, status


class Base(DeclarativeBase):
    """The registry's own tables."""


class Model(Base):
    """Sorts before the outbox by name; `Zoo` after it."""

    __tablename__ = "a_model"
    name: Mapped[str] = mapped_column(primary_key=True)
    latest: Mapped[int] = mapped_column(default=0)


class Zoo(Base):
    __tablename__ = "zoo"
    name: Mapped[str] = mapped_column(primary_key=True)


@on(*SYNC)
def test_an_event_is_sent_after_the_commit_whole_and_its_row_is_gone(
    engine: Engine, relay: outbox.Relay, sidecar: FakeSidecar
) -> None:
    with Session(engine) as session:
        event_id = outbox.add(
            session, name="fräud\0", version=7, uri="s3://m/7/", metrics={"auc": 0.5}, labels={"a": "b"}
        )
        session.flush()
        with engine.connect() as other:
            assert list(other.execute(select(outbox.table.c.id))) == []
        session.commit()
    assert relay.run_once() == 1
    (sent,) = sidecar.entries
    assert (sent.event_id, sent.model.name, sent.metrics["auc"]) == (event_id, "fräud\0", 0.5)
    assert sent.occurred_at.seconds
    assert status(engine) == (0, 0.0, 0)
    assert relay.run_once() == 0


@on(*SYNC)
def test_what_is_rolled_back_is_never_sent(engine: Engine, relay: outbox.Relay, sidecar: FakeSidecar) -> None:
    with Session(engine) as session:
        outbox.add(session, name="fraud", version=1, uri="s3://m/1/")
        session.flush()
        session.rollback()
        outbox.add(session, name="fraud", version=2, uri="s3://m/2/")
        session.rollback()
        session.commit()
    assert relay.run_once() == 0
    assert sidecar.entries == []


@on(*SYNC)
def test_a_savepoint_takes_its_own_events_back_and_no_other(
    engine: Engine, relay: outbox.Relay, sidecar: FakeSidecar
) -> None:
    with Session(engine) as session, session.begin():
        outbox.add(session, name="fraud", version=1, uri="s3://m/1/")
        session.execute(text("SELECT 1"))
        with session.begin_nested() as savepoint:
            outbox.add(session, name="fraud", version=2, uri="s3://m/2/")
            session.flush()
            savepoint.rollback()
        with session.begin_nested():
            outbox.add(session, name="fraud", version=3, uri="s3://m/3/")
    assert relay.run_once() == 2
    assert [sent.model.version for sent in sidecar.entries] == ["1", "3"]


@on(*SYNC)
def test_an_insert_of_any_language_is_sent_with_the_time_of_its_row(
    engine: Engine, relay: outbox.Relay, sidecar: FakeSidecar
) -> None:
    with engine.begin() as connection:
        if engine.dialect.name == "mysql":
            connection.execute(text("SET time_zone = '+05:00'"))
        elif engine.dialect.name == "postgresql":
            connection.execute(text("SET TIME ZONE 'Asia/Karachi'"))
        connection.execute(outbox.insert(name="fraud", version=7, uri="s3://m/7/"))
        connection.exec_driver_sql(
            "INSERT INTO modelready_outbox (event_id, event) VALUES "
            """('by-hand', '{"model": {"name": "fraud", "version": "8"}, "artifact": {"uri": "s3://m/8/"}}')"""
        )
        connection.execute(text("SELECT 1"))
    assert 0 <= status(engine).oldest_seconds < 600
    assert relay.run_once() == 2
    assert [sent.model.version for sent in sidecar.entries] == ["7", "8"]
    assert sidecar.entries[1].event_id == "by-hand"
    occurred = sidecar.entries[1].occurred_at.ToDatetime(timezone.utc)
    assert abs(datetime.now(timezone.utc) - occurred) < timedelta(minutes=10)


@on("sqlite")
def test_within_a_flush_its_row_is_written_last(engine: Engine) -> None:
    """So its id, which is its place, is taken when the transaction has its locks on the registry's rows."""
    Base.metadata.create_all(engine)
    written: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def _note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith("SELECT"):
            written.append(statement.split("(", maxsplit=1)[0].split(" SET", maxsplit=1)[0].strip())

    with Session(engine) as session:
        session.add(Model(name="fraud"))
        session.commit()
        written.clear()
        model = session.get_one(Model, "fraud")
        model.latest = 1
        outbox.add(session, name="fraud", version=1, uri="s3://m/1/")
        outbox.add(session, name="fraud", version=2, uri="s3://m/2/")
        session.add(Zoo(name="z"))
        session.commit()
        assert sorted(written[:-1]) == ["INSERT INTO zoo", "UPDATE a_model"]
        assert written[-1] == "INSERT INTO modelready_outbox"
        outbox.add(session, name="fraud", version=3, uri="s3://m/3/")
        session.commit()
    with engine.connect() as connection:
        events = connection.execute(select(outbox.table.c.event).order_by(outbox.table.c.id)).scalars()
        assert [f'"version": "{version}"' in one for version, one in enumerate(events, 1)] == [True] * 3


@on("sqlite")
def test_a_flush_that_fails_leaves_nothing_behind(engine: Engine, relay: outbox.Relay, sidecar: FakeSidecar) -> None:
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Model(name="fraud"))
        session.commit()
    with Session(engine) as session:
        session.add(Model(name="fraud"))
        outbox.add(session, name="fraud", version=1, uri="s3://m/1/")
        with pytest.raises(Exception, match="UNIQUE"):
            session.commit()
        session.rollback()
        outbox.add(session, name="fraud", version=2, uri="s3://m/2/")
        session.add(Zoo(name="z"))
        session.commit()
    assert relay.run_once() == 1
    assert [sent.model.version for sent in sidecar.entries] == ["2"]


@on("sqlite")
@pytest.mark.parametrize("when", ["before_flush", "after_flush", "before_commit"])
@pytest.mark.parametrize("all_sessions", [True, False])
def test_a_listener_of_the_registry_s_own_may_add(
    engine: Engine, relay: outbox.Relay, sidecar: FakeSidecar, when: str, all_sessions: bool
) -> None:
    class Sessions(Session):
        """Listeners to it are those of a registry."""

    def announce(session: Session, *_: object) -> None:
        if not session.info.get("announced"):
            session.info["announced"] = True
            outbox.add(session, name="fraud", version=1, uri="s3://m/1/")

    Base.metadata.create_all(engine)
    with Sessions(engine) as session:
        event.listen(Sessions if all_sessions else session, when, announce)
        session.add(Zoo(name="z"))
        session.commit()
    assert relay.run_once() == 1
    arrived(sidecar, 1)


@on("sqlite")
def test_a_scoped_session_adds_as_well(engine: Engine, relay: outbox.Relay, sidecar: FakeSidecar) -> None:
    sessions = scoped_session(sessionmaker(engine))
    outbox.add(sessions, name="fraud", version=1, uri="s3://m/1/")
    sessions.commit()
    sessions.remove()
    assert relay.run_once() == 1


@on("sqlite")
def test_an_event_that_no_sidecar_takes_is_refused_at_once(engine: Engine) -> None:
    with Session(engine) as session, pytest.raises(InvalidEvent, match="the limit is"):
        outbox.add(session, name="fraud", version=1, uri="s3://m/1/", signature="x" * (1 << 21))
