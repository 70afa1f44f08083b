"""How the sidecar logs in to the registry's database: by a password, by Secrets Manager, by an IAM token of RDS."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import boto3
import pytest
from sqlalchemy import Engine, create_engine, delete, text

from modelready import outbox
from modelready.redis.aws.iam import RdsCredentials
from modelready.redis.env import read
from sidecar.errors import SettingsError
from sidecar.outbox.database import connect
from sidecar.settings import OutboxSettings
from tests.harness.aws_api import aws_api, log_in_by_environment
from tests.harness.database_server import DatabaseServer
from tests.harness.databases import server
from tests.harness.redis_server import RedisServer
from tests.harness.secrecy import keep
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until
from tests.integration.calls import KEYS

REGION = "eu-west-1"
FIRST, SECOND = "the first password, 12345678", "the second password, 12345678"


@pytest.fixture(scope="module")
def postgresql() -> Iterator[DatabaseServer]:
    """With a user `registry` that needs a password."""
    with server("postgresql") as started:
        rules = started.directory / "data/pg_hba.conf"
        rules.write_text(f"host all registry 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        engine = create_engine(started.url)
        outbox.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(text(f"CREATE ROLE registry LOGIN PASSWORD '{FIRST}'"))
            connection.execute(text("GRANT SELECT, UPDATE, DELETE ON modelready_outbox TO registry"))
            connection.execute(text("SELECT pg_reload_conf()"))
        engine.dispose()
        yield started


@pytest.fixture
def engine(postgresql: DatabaseServer) -> Iterator[Engine]:
    engine = create_engine(postgresql.url)
    with engine.begin() as connection:  # a sidecar that was killed leaves the row that it published last
        connection.execute(delete(outbox.table))
    yield engine
    engine.dispose()


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as started:
        yield started


def serving(redis: RedisServer, postgresql: DatabaseServer, **env: str) -> SidecarProcess:
    keep(FIRST, SECOND)
    address = {"REDIS_HOST": redis.host, "REDIS_PORT": str(redis.port)}
    url = f"postgresql://registry@127.0.0.1:{postgresql.port}/postgres"
    return SidecarProcess({**address, "OUTBOX_URL": url, **env})


def add(engine: Engine, event_id: str) -> None:
    event = '{"model": {"name": "fraud", "version": "1"}, "artifact": {"uri": "s3://m/"}}'
    with engine.begin() as connection:
        statement = text("INSERT INTO modelready_outbox (event_id, event) VALUES (:id, :event)")
        connection.execute(statement, {"id": event_id, "event": event})


def arrived(redis: RedisServer, count: int) -> None:
    with redis.client() as client:
        until(lambda: client.xlen(KEYS.events) == count, 60, f"{count} events arrive")


def test_by_a_password(redis: RedisServer, postgresql: DatabaseServer, engine: Engine) -> None:
    add(engine, "by-password")
    with serving(redis, postgresql, OUTBOX_PASSWORD=f"{FIRST}\n"):
        arrived(redis, 1)


def test_by_secrets_manager_through_a_rotation(
    redis: RedisServer, postgresql: DatabaseServer, engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """New connections are refused with the old password; the sidecar reads the secret again, without a restart."""
    log_in_by_environment(monkeypatch, tmp_path / "none")
    with aws_api() as port:
        endpoint = f"http://127.0.0.1:{port}"
        client = boto3.client("secretsmanager", region_name=REGION, endpoint_url=endpoint)
        secret = '{"username": "registry", "password": "%s", "engine": "postgres"}'
        client.create_secret(Name="registry/database", SecretString=secret % FIRST)
        aws = {
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "not-a-real-key",
        }
        add(engine, "by-secret")
        with serving(redis, postgresql, OUTBOX_SECRET_ID="registry/database", **aws) as sidecar:
            arrived(redis, 1)
            client.put_secret_value(SecretId="registry/database", SecretString=secret % SECOND)
            with engine.begin() as connection:
                connection.execute(text(f"ALTER ROLE registry PASSWORD '{SECOND}'"))
                connection.execute(
                    text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'registry'")
                )
            add(engine, "after-the-rotation")
            arrived(redis, 2)
            assert sidecar.terminate() == 0
    with engine.begin() as connection:
        connection.execute(text(f"ALTER ROLE registry PASSWORD '{FIRST}'"))


async def test_an_iam_token_of_rds_is_the_one_that_boto3_makes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log_in_by_environment(monkeypatch, tmp_path / "none", "session/token+of=a task role")
    now = datetime(2026, 11, 27, 3, 4, 5, tzinfo=UTC)
    host, port, user = "registry.abc.eu-west-1.rds.amazonaws.com", 5432, "registry"
    with patch("botocore.auth.get_current_datetime", lambda *_, **__: now):
        found = await RdsCredentials(user, host, port, region=REGION).current()
        client = boto3.session.Session(region_name=REGION).client("rds")
        expected = client.generate_db_auth_token(host, port, user)
    assert found.username == user
    assert sorted(re.split("[?&]", found.token or "")) == sorted(re.split("[?&]", expected))


def test_what_cannot_be_a_database_ends_the_start_in_one_line_without_a_secret(redis: RedisServer) -> None:
    address = {"REDIS_HOST": redis.host, "REDIS_PORT": str(redis.port)}
    keep("a password of somebody")
    for env, expected in (
        ({"OUTBOX_URL": "registry:a password of somebody@db"}, "OUTBOX_URL is ***: it must be a URL of SQLAlchemy: "),
        ({"OUTBOX_URL": "postgresql://r:a%20password@db:port/x"}, "OUTBOX_URL is ***: it must be a URL of SQLAlchemy"),
        ({"OUTBOX_URL": "mysql+nothing://r@db/x"}, "OUTBOX_URL names a driver that SQLAlchemy does not know"),
        ({"OUTBOX_PASSWORD": "a password of somebody"}, "OUTBOX_PASSWORD is set and OUTBOX_URL is not"),
        (
            {"OUTBOX_URL": "mysql://r@db/x", "OUTBOX_IAM": "yes", "OUTBOX_SECRET_ID": "x"},
            "OUTBOX_SECRET_ID and OUTBOX_IAM are set: only one of them may be",
        ),
    ):
        sidecar = SidecarProcess({**address, **env})
        sidecar.start(wait_for=None)
        try:
            assert sidecar.wait() == 2
            assert f"modelready-sidecar: {expected}" in sidecar.logs()
        finally:
            sidecar.close()


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("postgresql://r@db/x", {"sslmode": "require"}),
        ("postgresql://r@db/x?sslmode=verify-full", {}),
        ("mysql://r@db/x", {"ssl": {"check_hostname": False}}),
    ],
)
def test_iam_never_sends_its_token_in_the_clear(
    url: str, wanted: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log_in_by_environment(monkeypatch, tmp_path / "none")
    settings = read(OutboxSettings, {"OUTBOX_URL": url, "OUTBOX_IAM": "true"})
    asked: list[dict[str, object]] = []

    def ask(work: object) -> object:
        work.close()  # type: ignore[attr-defined]
        return outbox_login

    outbox_login = type("Login", (), {"username": "r", "token": "a token"})
    engine, _ = connect(settings, ask, region=REGION, endpoint_url="")

    def note(*_: object, **options: object) -> object:
        asked.append(options)
        raise SettingsError("enough")

    monkeypatch.setattr(engine.dialect, "connect", note)
    with pytest.raises(SettingsError):
        engine.connect()
    (options,) = asked
    assert (options["user"], options["password"]) == ("r", "a token")
    assert {name: options[name] for name in wanted} == wanted
    assert options.get("sslmode") != "disable"
