"""The plug-in's store on MariaDB, whose transactions do not see what others have committed since they began."""

from __future__ import annotations

import threading
from itertools import pairwise

from google.protobuf.json_format import Parse
from sqlalchemy import select

from modelready import mlflow as plugin
from modelready import outbox
from modelready.v1.event_pb2 import ModelReadyToDeploy
from tests.harness.databases import server


def test_concurrent_changes_all_succeed_and_each_names_the_version_before_it() -> None:
    failures: list[Exception] = []
    with server("mysql") as database:
        store = plugin.store(f"modelready+{database.url}")
        store.create_registered_model("fraud")
        for _ in range(4):
            store.create_model_version("fraud", "s3://models/fraud")
        store.set_registered_model_alias("fraud", "champion", 4)

        def change(offset: int) -> None:
            try:
                for number in range(20):
                    store.set_registered_model_alias("fraud", "champion", 1 + (number + offset) % 4)
            except Exception as error:  # noqa: BLE001 - none is expected
                failures.append(error)

        threads = [threading.Thread(target=change, args=(offset,)) for offset in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with store.engine.connect() as connection:
            rows = connection.scalars(select(outbox.table.c.event).order_by(outbox.table.c.id)).all()
        store.engine.dispose()
    events = [Parse(row, ModelReadyToDeploy()) for row in rows]
    assert failures == []
    assert len(events) >= 20
    for before, event in pairwise(events):
        assert event.promotion.previous_version == before.model.version != event.model.version
