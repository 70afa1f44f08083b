"""The environment of a consumer: what a sidecar refuses it refuses, in the same words, and hints at the same slips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import exceptions

from clients.python.tests.twins import CONSUMERS
from modelready.consumer import ListConsumer
from modelready.redis.env import SettingsError
from modelready.redis.faults import Kind, fault, is_transient
from sidecar.app import running
from sidecar.cli.doctor import examine
from sidecar.settings import Settings, misspelt
from tests.harness.certificates import Authority
from tests.harness.redis_server import RedisServer
from tests.integration.test_redis_tls import TLS_SERVERS

SECRET = "a-secret-that-nobody-may-see"
FROM_ENV: dict[str, Callable[[dict[str, str]], Any]] = {
    **{name: lambda env, twin=twin: twin.from_env(group="g", environ=env) for name, twin in CONSUMERS.items()},  # type: ignore[misc]
    "list": lambda env: ListConsumer.from_env("deployments", environ=env),
}

WRONG = [
    {"REDIS_HOST": f"redis://user:{SECRET}@redis"},
    {"REDIS_HOST": "redis:6379"},
    {"REDIS_PORT": "0"},
    {"REDIS_PORT": "99999"},
    {"REDIS_TLS": "on", "REDIS_TLS_CERT_FILE": __file__},
    {"REDIS_TLS": "on", "REDIS_TLS_CA_FILE": "/none/ca.pem"},
    {"REDIS_TLS": "on", "REDIS_TLS_CA_FILE": __file__},
    {"REDIS_TLS": "on", "REDIS_TLS_CERT_FILE": __file__, "REDIS_TLS_KEY_FILE": __file__},
    {"REDIS_TIMEOUT_SECONDS": "nan"},
    {"REDIS_USERNAME": "reader"},
    {"REDIS_AUTH_TOKEN": SECRET, "REDIS_IAM_CLUSTER": "cache"},
    {"REDIS_AUTH_TOKEN": f"{SECRET}\udcff"},
    {"REDIS_CLUSTER": "true", "REDIS_DB": "1"},
    {"AWS_ENDPOINT_URL": "moto:5000"},
]


async def sidecar_says(environ: dict[str, str], directory: Path) -> str:
    listen = {"SIDECAR_LISTEN": "127.0.0.1:0", "SIDECAR_HTTP_LISTEN": "127.0.0.1:0", "SPOOL_DIR": str(directory)}
    with pytest.raises(SettingsError) as raised:
        async with running(Settings.from_env(environ | listen)):
            pass
    return str(raised.value)


@pytest.mark.parametrize("wrong", WRONG, ids=str)
@pytest.mark.parametrize("kind", list(FROM_ENV))
async def test_a_consumer_refuses_what_a_sidecar_refuses(kind: str, wrong: dict[str, str], tmp_path: Path) -> None:
    environ = {"REDIS_HOST": "127.0.0.1", **wrong}
    with pytest.raises(SettingsError) as raised:
        FROM_ENV[kind](environ)
    assert str(raised.value) == await sidecar_says(environ, tmp_path)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("name", ["a b{c}", "-q", "{q}"])
@pytest.mark.parametrize("kind", list(CONSUMERS))
async def test_the_queue_s_name_is_checked_by_both(kind: str, name: str, tmp_path: Path) -> None:
    environ = {"REDIS_HOST": "127.0.0.1", "QUEUE_NAME": name}
    with pytest.raises(ValueError, match="QUEUE_NAME is ") as raised:
        FROM_ENV[kind](environ)
    assert str(raised.value) == await sidecar_says(environ, tmp_path)


@pytest.mark.parametrize(
    ("name", "meant"),
    {
        "REDIS_PASSWORD": "REDIS_AUTH_TOKEN",
        "REDIS_TOKEN": "REDIS_AUTH_TOKEN",
        "REDIS_URL": "REDIS_HOST",
        "REDIS_SSL": "REDIS_TLS",
        "REDIS_USER": "REDIS_USERNAME",
        "REDIS_HOSTS": "REDIS_HOST",
    }.items(),
)
def test_other_names_are_hinted_at(name: str, meant: str, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    environ = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": "1", "SPOOL_DIR": str(tmp_path), name: SECRET}
    said = f"nothing reads {name!r}: is {meant} meant?"
    assert misspelt(environ) == [f"nothing reads {name!r}: is {meant} meant?"]
    for from_env in FROM_ENV.values():
        caplog.clear()
        from_env(environ)
        assert [record.getMessage() for record in caplog.records] == [said]
    report = examine(environ).as_text(colour=False)
    assert said in report
    assert SECRET not in report + caplog.text


def test_a_missing_host_is_hinted_at_first(caplog: pytest.LogCaptureFixture) -> None:
    for from_env in FROM_ENV.values():
        caplog.clear()
        with pytest.raises(ValueError, match="REDIS_HOST is not set: it must name the Redis host"):
            from_env({"REDIS_URL": f"redis://:{SECRET}@redis:6379/0"})
        assert "nothing reads 'REDIS_URL': is REDIS_HOST meant?" in caplog.text
        assert SECRET not in caplog.text


@pytest.mark.parametrize("binary", TLS_SERVERS)
@pytest.mark.parametrize("kind", list(CONSUMERS))
def test_a_client_certificate_that_redis_refuses_is_no_reason_to_wait(kind: str, binary: str, tmp_path: Path) -> None:
    """A sidecar calls it a fault of set-up: test_redis_tls."""
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger").client()
    with RedisServer(binary=binary, tls=authority.server()) as server:
        server.execute("CONFIG", "SET", "tls-auth-clients", "yes")
        environ = {
            "REDIS_HOST": server.host,
            "REDIS_PORT": str(server.port),
            "REDIS_TLS": "true",
            "REDIS_TLS_CA_FILE": str(authority.ca),
            "REDIS_TLS_CERT_FILE": str(stranger.cert),
            "REDIS_TLS_KEY_FILE": str(stranger.key),
        }
        with pytest.raises(exceptions.ConnectionError, match="UNKNOWN_CA"):
            FROM_ENV[kind](environ).run(print)


@pytest.mark.parametrize("kind", ["clients", "clients + cluster connections"])
def test_too_many_clients_are_transient(kind: str) -> None:
    words = f"max number of {kind} reached"
    for error in (exceptions.ResponseError(f"ERR {words}"), exceptions.ConnectionError(words, status_code="ERR")):
        found = fault(error)
        assert (found.kind, found.reason, found.answered) == (Kind.TRANSIENT, "REDIS_MAXCLIENTS", True)
        assert is_transient(error)
