"""A transactional outbox: the event commits with the model version, or neither does.

    outbox.add(session, name="fraud", version="7", uri="s3://models/fraud/7/")  # in the registry's transaction
    session.commit()

    outbox.Relay(engine, Publisher("127.0.0.1:50051")).start()  # in each worker, or in a process of its own

`add` writes a row. A relay publishes it, and deletes it when it has the receipt. Both work with SQLAlchemy 2 on
PostgreSQL, MySQL, MariaDB and SQLite. `modelready.outbox.aio.Relay` is the relay for asyncio, and
`python -m modelready.outbox` the one for a process of its own.
"""

try:
    from modelready.outbox.relay import PublishesMany, Relay
    from modelready.outbox.store import Status, status
    from modelready.outbox.table import OutboxEvent, ddl, metadata, table
    from modelready.outbox.writer import add, insert
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "sqlalchemy":
        raise
    raise ImportError("the outbox needs SQLAlchemy: pip install 'modelready[sqlalchemy]'") from error

__all__ = [
    "OutboxEvent",
    "PublishesMany",
    "Relay",
    "Status",
    "add",
    "ddl",
    "insert",
    "metadata",
    "status",
    "table",
]
