"""The table stays small, however many events go through it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from sqlalchemy import Engine, create_engine, text

from modelready import PublishError, Receipt, outbox
from modelready.receipt import Durability, Outcome
from modelready.v1.event_pb2 import ModelReadyToDeploy
from tests.harness.databases import server

EVENTS, AT_ONCE, SAMPLE = 1_000_000, 2_000, 50_000
INSERT = text(
    "INSERT INTO modelready_outbox (event_id, event) SELECT gen_random_uuid()::text, "
    '\'{"model": {"name": "m\' || g % 50 || \'", "version": "\' || g || \'"}, "artifact": {"uri": "s3://m/"}}\' '
    "FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) g"
)


class Acknowledging:
    """A publisher whose sidecar is free, so that the table alone is what is looked at."""

    def publish_many(
        self, events: Iterable[ModelReadyToDeploy], *, durability: Durability, timeout: float
    ) -> Iterator[Receipt | PublishError]:
        for event in events:
            yield Receipt(event.event_id, "", Outcome.STORED, "", "", 0)


def size(engine: Engine) -> int:
    """With its indexes, in bytes."""
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT pg_total_relation_size('modelready_outbox')")).scalar_one())


@pytest.mark.soak
def test_a_million_events_leave_the_table_small() -> None:
    """They take minutes here and months elsewhere, so that autovacuum looks more often than once a minute."""
    with server("postgresql") as database:
        engine = create_engine(database.url)
        outbox.metadata.create_all(engine)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ALTER SYSTEM SET autovacuum_naptime = '2s'"))
            connection.execute(text("SELECT pg_reload_conf()"))
        relay = outbox.Relay(engine, Acknowledging())
        sizes: list[int] = []
        for first in range(0, EVENTS, AT_ONCE):
            with engine.begin() as connection:
                connection.execute(INSERT, {"first": first, "last": first + AT_ONCE - 1})
            while relay.run_once():
                pass
            if first % SAMPLE == 0:
                sizes.append(size(engine))
        with engine.connect() as connection:
            vacuums, left = connection.execute(
                text("SELECT autovacuum_count, n_live_tup FROM pg_stat_user_tables WHERE relname = 'modelready_outbox'")
            ).one()
            assert outbox.status(connection) == (0, 0.0, 0)
        engine.dispose()
    print(
        f"{EVENTS} events: KiB at each {SAMPLE}: {[size >> 10 for size in sizes]}; {vacuums} vacuums, {left} rows left"
    )
    # Unvacuumed they would be 300 MB. Measured: 12 to 13 MB at 25,000 events a second, 1 to 9 MB at 1,200.
    assert max(sizes) < 32 << 20
