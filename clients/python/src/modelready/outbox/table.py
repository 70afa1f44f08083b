"""The outbox table. Its columns are a contract: a program in any language fills it with one INSERT.

    INSERT INTO modelready_outbox (event_id, event) VALUES ('…', '{"model": {…}, "artifact": {…}}')

| column       | what                                                                                                  |
|--------------|-------------------------------------------------------------------------------------------------------|
| `id`         | the order in which events are published; the database counts it                                       |
| `event_id`   | the event's idempotency key, 1 to 128 characters, best a UUID                                         |
| `event`      | `modelready.v1.ModelReadyToDeploy` as protobuf JSON; an `eventId` in it is ignored                    |
| `created_at` | the database's time of the INSERT, in UTC; `occurredAt` of an event that has none                     |
| `failed_at`  | when the event was refused because it breaks a rule of the contract, in UTC; NULL while the row waits |
| `error`      | why it was refused                                                                                    |

A row stays until the relay has the receipt of its event.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    DDL,
    BigInteger,
    Column,
    DateTime,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_mock_engine,
    event,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import registry
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import FunctionElement

NAME = "modelready_outbox"
"""The name of the table, of its PostgreSQL channel, and of the lock that a relay holds."""

MYSQL = ("mysql", "mariadb")


class utc_now(FunctionElement[datetime]):  # noqa: N801 - reads like func.now()
    """The database's time in UTC, whatever the time zone of the session."""

    type = DateTime(timezone=True)
    inherit_cache = True


@compiles(utc_now)
def _utc_now(_element: utc_now, _compiler: SQLCompiler, **_: Any) -> str:
    return "CURRENT_TIMESTAMP"  # PostgreSQL: has a time zone; SQLite: always UTC


@compiles(utc_now, *MYSQL)
def _utc_now_mysql(_element: utc_now, _compiler: SQLCompiler, **_: Any) -> str:
    return "(UTC_TIMESTAMP(6))"


_Time = DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), *MYSQL)

metadata = MetaData()
"""Holds `table` alone: `outbox.metadata.create_all(engine)`."""

table = Table(
    NAME,
    metadata,
    # SQLite counts INTEGER alone.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("event_id", String(128), nullable=False),
    Column("event", Text().with_variant(mysql.MEDIUMTEXT, *MYSQL), nullable=False),
    Column("created_at", _Time, nullable=False, server_default=utc_now()),
    Column("failed_at", _Time),
    Column("error", Text),
    sqlite_autoincrement=True,  # an id that is used again could be deleted for the row that had it before
)

# So neither the relay nor `status` reads failed rows on the way to those that wait. PostgreSQL could not read the
# waiting rows of (failed_at, id) in order, and MySQL has no partial index.
_waiting, _failed = table.c.failed_at.is_(None), table.c.failed_at.is_not(None)
_PARTIAL: Any = ("postgresql", "sqlite")
_MYSQL: Any = MYSQL  # SQLAlchemy takes several dialects; its types name one
Index(f"{NAME}_waiting", table.c.id, postgresql_where=_waiting, sqlite_where=_waiting).ddl_if(dialect=_PARTIAL)
Index(f"{NAME}_failed", table.c.id, postgresql_where=_failed, sqlite_where=_failed).ddl_if(dialect=_PARTIAL)
Index(f"{NAME}_failed_waiting", table.c.failed_at, table.c.id).ddl_if(dialect=_MYSQL)

# The table fills and empties: by default dead rows may reach a fifth of its largest size before a vacuum.
_STORAGE = f"""\
ALTER TABLE {NAME} SET
(autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000)"""

# NOTIFY takes effect at the commit, once for all inserts of a transaction. In a trigger, so that other languages wake
# the relay, too.
_FUNCTION = f"""\
CREATE OR REPLACE FUNCTION {NAME}_notify() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN NOTIFY {NAME}; RETURN NULL; END $$"""
_TRIGGER = f"""\
CREATE TRIGGER {NAME}_notify AFTER INSERT ON {NAME}
FOR EACH STATEMENT EXECUTE FUNCTION {NAME}_notify()"""
_DROP = f"DROP FUNCTION IF EXISTS {NAME}_notify()"


def _on_postgresql(when: str, statement: str) -> None:
    element: DDL = DDL(statement)  # type: ignore[no-untyped-call]
    event.listen(table, when, element.execute_if(dialect="postgresql"))


_on_postgresql("after_create", _STORAGE)
_on_postgresql("after_create", _FUNCTION)
_on_postgresql("after_create", _TRIGGER)
_on_postgresql("after_drop", _DROP)


def ddl(dialect: str) -> list[str]:
    """The statements that create the table on "postgresql", "mysql", "mariadb" or "sqlite", for a migration."""
    statements: list[str] = []

    def note(element: ExecutableDDLElement, *_: object, **__: object) -> None:
        statements.append(str(element.compile(dialect=engine.dialect)).strip())

    engine = create_mock_engine(f"{dialect}://", note)
    metadata.create_all(engine, checkfirst=False)
    return statements


class OutboxEvent:
    """A row that is to be inserted; `outbox.add` makes it."""

    def __init__(self, event_id: str, event: str) -> None:
        self.event_id = event_id
        self.event = event


registry().map_imperatively(OutboxEvent, table, include_properties=["id", "event_id", "event"])
