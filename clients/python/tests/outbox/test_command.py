"""python -m modelready.outbox."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from clients.python.tests.fake_sidecar import FakeSidecar, arrived, failure
from modelready import outbox
from modelready.outbox.__main__ import _parser, main
from tests.harness.child import Child
from tests.harness.database_server import DatabaseServer, PgBouncer
from tests.harness.databases import DATABASES, on, require, status
from tests.harness.waiting import until

ROOT = Path(__file__).parents[4]


@pytest.fixture
def outbox_url(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("OUTBOX_URL", url)
    return url


@on(*DATABASES)
def test_refused_rows_are_counted_listed_retried_and_discarded(
    engine: Engine,
    relay: outbox.Relay,
    sidecar: FakeSidecar,
    outbox_url: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def out(*arguments: str) -> list[str]:
        assert main(arguments) == 0
        return capsys.readouterr().out.splitlines()

    sidecar.refuse = lambda _: failure(grpc.StatusCode.INVALID_ARGUMENT, violations=[("event", "is\nrefused")])
    with Session(engine) as session:
        ids = [outbox.add(session, name="fraud", version=version, uri="s3://m/") for version in range(3)]
        session.commit()
    assert out("status")[0].startswith("3 waiting, the oldest for ")
    relay.run_once()
    assert out("status") == ["0 waiting, the oldest for 0.0 s; 3 refused"]
    assert json.loads(out("status", "--json")[0]) == {"waiting": 0, "oldest_seconds": 0.0, "failed": 3}
    listed = [line.split(" ", 3) for line in out("list")]
    assert [line[2] for line in listed] == ids
    assert listed[0][3] == r"event: is\nrefused"
    assert json.loads(out("list", "--json", "--limit", "1")[0])["event_id"] == ids[0]
    assert out("discard", listed[1][0]) == ["1 rows are deleted"]
    sidecar.refuse = lambda _: None
    assert out("retry", listed[2][0]) == ["1 rows wait again"]
    assert relay.run_once() == 1
    assert out("retry", "--all") == ["1 rows wait again"]
    assert out("discard", "--all") == ["0 rows are deleted"]
    assert out("retry", "--all", "--json") == ['{"rows": 0}']
    assert relay.run_once() == 1
    arrived(sidecar, 2, 0)


def test_what_it_cannot_do_is_one_line_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OUTBOX_URL", raising=False)
    assert main(["status"]) == 2
    assert "OUTBOX_URL is missing" in capsys.readouterr().err
    monkeypatch.setenv("OUTBOX_URL", f"sqlite:///{tmp_path}/empty.db")
    for command in ("status", "run"):
        assert main([command]) == 1
        assert capsys.readouterr().err == "modelready.outbox: no such table: modelready_outbox\n"
    with pytest.raises(SystemExit) as ended:
        main(["retry"])
    assert ended.value.code == 2


@pytest.mark.parametrize("dialect", ["postgresql", "mysql", "mariadb", "sqlite"])
def test_it_prints_the_statements(dialect: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ddl", dialect]) == 0
    printed = capsys.readouterr().out
    assert printed.count(";\n\n") == len(outbox.ddl(dialect))
    assert printed.startswith("CREATE TABLE modelready_outbox")


def command(url: str, sidecar: FakeSidecar, log: Path) -> Child:
    env = {**os.environ, "OUTBOX_URL": url, "PYTHONPATH": str(ROOT)}
    return Child([sys.executable, "-m", "modelready.outbox", "run", "--sidecar", sidecar.address], log, env)


@pytest.fixture
def bouncer(postgresql: DatabaseServer) -> Iterator[PgBouncer]:
    require(PgBouncer)
    with PgBouncer(postgresql) as started:
        yield started


@on("postgresql+psycopg")
def test_it_runs_behind_a_pgbouncer_that_pools_transactions(
    engine: Engine, bouncer: PgBouncer, sidecar: FakeSidecar, tmp_path: Path
) -> None:
    """There LISTEN hears nothing: the poll finds the rows."""
    relays = [command(bouncer.url, sidecar, tmp_path / f"log-{number}") for number in range(2)]
    writer = create_engine(bouncer.url, connect_args={"prepare_threshold": None})
    try:
        for relay in relays:
            relay.start()
        until(lambda: all("the relay publishes" in relay.output() for relay in relays), 60, "they run")
        for version in range(30):
            with Session(writer) as session:
                outbox.add(session, name="fraud", version=version, uri="s3://m/")
                session.commit()
        arrived(sidecar, *range(30))
        until(lambda: status(engine).waiting == 0, 30, "the outbox is empty")
        assert [relay.terminate(30) for relay in relays] == [0, 0]
        assert "not being emptied" not in "".join(relay.output() for relay in relays)
    finally:
        for relay in relays:
            relay.kill()
        writer.dispose()


def test_it_starts_while_the_database_is_away_and_ends_at_sigterm(
    postgresql: DatabaseServer, sidecar: FakeSidecar, tmp_path: Path
) -> None:
    relay = command(postgresql.url.replace(f":{postgresql.port}/", ":1/"), sidecar, tmp_path / "log")
    relay.start()
    try:
        until(lambda: "the outbox is not being emptied" in relay.output(), 30, "it tries")
        assert relay.terminate(30) == 0
    finally:
        relay.kill()


@pytest.mark.parametrize("command", ["run", "status", "list", "retry", "discard", "ddl"])
def test_help_has_the_exit_codes_and_an_example_that_is_right(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    said = capsys.readouterr().out
    assert "\nExit codes: 0 done, 1 the database failed, 2 wrong usage or settings.\n" in said
    (example,) = re.findall(r"^    python -m modelready\.outbox (.*)$", said, re.MULTILINE)
    assert _parser("", runs=True).parse_args(example.split())
    assert example.startswith(command)
