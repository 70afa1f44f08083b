"""doctor, the registry's outbox: each fault for real."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, text, update

from modelready import outbox
from modelready.outbox.table import utc_now
from modelready.redis.env import read
from sidecar.cli.doctor import outbox as check
from sidecar.cli.doctor.report import Report
from sidecar.settings import OutboxSettings
from tests.harness.database_server import DatabaseServer
from tests.harness.databases import status
from tests.harness.relay import Relay
from tests.integration.doctor_run import the_finding

INSERT = text("INSERT INTO modelready_outbox (event_id, event, created_at) VALUES ('a', '{}', :at)")


def checked(url: str, **env: str) -> Report:
    report = Report()
    check.check_outbox(report, read(OutboxSettings, {"OUTBOX_URL": url, **env}), {})
    return report


def test_an_outbox_that_is_well_or_not_wanted(url: str) -> None:
    engine = create_engine(url)
    outbox.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(INSERT, {"at": "2999-01-01 00:00:00.000000"})
    for one in (url, ""):
        (line,) = checked(one).lines
        assert line.status == "ok"
    assert status(engine).waiting == 1  # nothing was changed


def test_rows_that_wait_for_long_or_were_refused(url: str) -> None:
    engine = create_engine(url)
    outbox.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(INSERT, {"at": "2020-01-01 00:00:00.000000"})
    assert "1 row, the oldest for" in the_finding(checked(url), "outbox-waiting").found
    with engine.begin() as connection:
        connection.execute(update(outbox.table).values(failed_at=utc_now()))
    assert the_finding(checked(url), "outbox-refused").found == "1 row refused"


def test_a_database_without_the_table(url: str) -> None:
    the_finding(checked(url), "outbox-table")


def test_a_login_that_cannot_be_made() -> None:
    line = the_finding(checked("postgresql://localhost/registry", OUTBOX_IAM="true"), "outbox-settings")
    assert line.found == "OUTBOX_IAM needs a host and a user in OUTBOX_URL"


def test_a_user_without_the_rights(postgresql: DatabaseServer) -> None:
    engine = create_engine(postgresql.url)
    outbox.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(text("CREATE ROLE reader LOGIN"))
        connection.execute(text("GRANT SELECT ON modelready_outbox TO reader"))
    line = the_finding(checked(postgresql.url.replace("postgres@", "reader@")), "outbox-rights")
    assert line.found == "permission denied for table modelready_outbox"


def test_a_database_that_is_away_or_hangs(postgresql: DatabaseServer, monkeypatch: pytest.MonkeyPatch) -> None:
    the_finding(checked("postgresql://registry@127.0.0.1:1/registry"), "outbox-unreachable")
    monkeypatch.setattr(check, "_ANSWER_SECONDS", 1.0)
    with Relay(postgresql.port) as network:
        network.stall()
        report = checked(postgresql.url.replace(f":{postgresql.port}/", f":{network.port}/"))
        assert "does not answer within 1 s" in the_finding(report, "outbox-unreachable").found
