"""`Publisher.from_env` and `SeenGuard.from_env`: which sidecar and which Redis the environment names."""

from __future__ import annotations

import argparse
import os
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

import modelready.aio
from clients.python.tests.fake_sidecar import FakeSidecar
from modelready import Publisher, model_ready, reconcile
from modelready._environment import add_options, options_of, sidecar_options
from modelready.outbox.__main__ import main as relay
from modelready.seen import SeenGuard
from tests.harness.redis_server import RedisServer
from tests.harness.waiting import until

FRAUD: dict[str, Any] = {"name": "fraud", "version": "7", "uri": "s3://models/fraud/7/"}


def test_without_variables_it_is_the_one_beside_us() -> None:
    for environ in ({}, {"MODELREADY_SIDECAR": "", "SIDECAR_API_TOKEN": "", "MODELREADY_TLS_CA_FILE": ""}):
        for kind in (Publisher, modelready.aio.Publisher):
            publisher = kind.from_env(environ=environ)
            assert (publisher.target, publisher._metadata, publisher._credentials) == ("127.0.0.1:50051", (), None)


def test_address_token_and_tls_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    server, client = authority.issue_cert("sidecar.internal"), authority.issue_cert("registry")
    files = {"ca": authority.cert_pem, "cert": client.cert_chain_pems[0], "key": client.private_key_pem}
    for name, blob in files.items():
        blob.write_to_path(str(tmp_path / name))
        monkeypatch.setenv(f"MODELREADY_TLS_{name.upper()}_FILE", str(tmp_path / name))
    credentials = grpc.ssl_server_credentials(
        [(server.private_key_pem.bytes(), server.cert_chain_pems[0].bytes())],
        root_certificates=authority.cert_pem.bytes(),
        require_client_auth=True,
    )
    sidecar = FakeSidecar(credentials=credentials)
    sidecar.start()
    monkeypatch.setenv("MODELREADY_SIDECAR", sidecar.address)
    monkeypatch.setenv("SIDECAR_API_TOKEN", "s3cret")
    monkeypatch.setenv("MODELREADY_TLS_SERVER_NAME", "sidecar.internal")
    with Publisher.from_env(source="//registry") as publisher:
        publisher.publish(**FRAUD, timeout=20)
    sidecar.stop()
    (sent,) = sidecar.metadata
    assert (sent["authorization"], sidecar.entries[0].source) == ("Bearer s3cret", "//registry")


def test_what_is_given_counts_before_the_environment() -> None:
    environ = {"MODELREADY_SIDECAR": "sidecar:1", "SIDECAR_API_TOKEN": "theirs", "MODELREADY_TLS": "on"}
    assert sidecar_options(environ, {})["tls"] == modelready.TLS()
    given = sidecar_options(environ, {"target": "mine:1", "token": None, "tls": None, "timeout": 1.0})
    assert given == {"target": "mine:1", "token": None, "tls": None, "timeout": 1.0}
    assert sidecar_options(environ | {"MODELREADY_TLS": "off", "MODELREADY_TLS_CA_FILE": __file__}, {})["tls"] is None

    parser = argparse.ArgumentParser()
    add_options(parser)
    assert options_of(parser.parse_args([])) == {}
    options = options_of(parser.parse_args(["--sidecar", "mine:1", "--ca-file", "ca.pem"]))
    assert options == {"target": "mine:1", "tls": modelready.TLS(ca_file="ca.pem")}


WRONG = [
    ("MODELREADY_SIDECAR", "http://sidecar:50051", "the sidecar's address is 'http://sidecar:50051', with a scheme"),
    ("SIDECAR_API_TOKEN", "two words", "the token must be visible ASCII"),
    ("MODELREADY_TLS", "maybe", "it is 'maybe'; it may be true or false"),
    ("MODELREADY_TLS_CA_FILE", "/none/ca.pem", "'/none/ca.pem' cannot be read (No such file or directory)"),
]


@pytest.mark.parametrize(("name", "value", "why"), WRONG)
def test_a_wrong_variable_is_named(
    name: str, value: str, why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=name) as refused:
        Publisher.from_env(environ={name: value})
    assert str(refused.value).startswith(f"{name}: {why}")
    assert "two words" not in str(refused.value)

    monkeypatch.setenv(name, value)
    assert relay(["run"]) == 2
    assert capsys.readouterr().err == f"modelready.outbox: {refused.value}\n"


def test_half_a_certificate_names_both_variables() -> None:
    with pytest.raises(ValueError, match="MODELREADY_TLS_CERT_FILE and MODELREADY_TLS_KEY_FILE must be set together"):
        Publisher.from_env(environ={"MODELREADY_TLS_KEY_FILE": __file__})


def test_a_server_name_alone_is_refused_since_the_token_would_go_without_tls() -> None:
    environ = {"MODELREADY_TLS_SERVER_NAME": "sidecar.internal"}
    with pytest.raises(ValueError, match="MODELREADY_TLS_SERVER_NAME is set without TLS"):
        Publisher.from_env(environ=environ)
    Publisher.from_env(environ={**environ, "MODELREADY_TLS": "false"}).close()


def test_the_commands_take_the_same_options() -> None:
    text = reconcile._parser().format_help()
    for option in ("--sidecar", "--ca-file", "--cert-file", "--key-file"):
        assert option in text


def test_a_guard_of_the_environment_is_that_of_its_group_and_queue(server: RedisServer) -> None:
    environ = {"REDIS_HOST": server.host, "REDIS_PORT": f"{server.port}", "QUEUE_NAME": "deploys"}
    guard = SeenGuard.from_env(group="deployer", environ=environ, ttl_seconds=100)
    firsts = []
    for event in ("one", "two", "one"):
        with guard.once(event) as first:
            firsts.append(first)
    assert firsts == [True, True, False]
    assert server.execute("GET", "{deploys}:done:deployer:one") == b"done"
    assert guard._where() == f"Redis at {server.host}:{server.port}"

    client: Any = guard._client
    client.close()
    client._opened = 0, None, None  # as in a child: its process has another number
    with pytest.raises(LookupError), guard.once("three"):
        raise LookupError
    assert client._opened[0] == os.getpid()
    guard.close()
    until(lambda: "modelready-redis" not in {thread.name for thread in threading.enumerate()}, 20, "its thread ends")
    assert server.execute("GET", "{deploys}:done:deployer:three") is None


def test_a_guard_of_a_wrong_environment_names_the_variable() -> None:
    with pytest.raises(ValueError, match="REDIS_HOST is not set"):
        SeenGuard.from_env(group="deployer", environ={})
    with pytest.raises(ValueError, match="QUEUE_NAME is"):
        SeenGuard.from_env(group="deployer", environ={"REDIS_HOST": "localhost", "QUEUE_NAME": "a b"})
    with pytest.raises(ValueError, match="name of its group"):
        SeenGuard.from_env(group="", environ={"REDIS_HOST": "localhost"})


@pytest.mark.parametrize(
    ("event_id", "kind", "said"),
    [
        ("", ValueError, "the event's id"),
        (None, TypeError, "event_id is None"),
        (model_ready(**FRAUD), TypeError, "text"),
    ],
)
def test_a_guard_refuses_what_is_no_event_id_before_it_asks_redis(event_id: Any, kind: Any, said: str) -> None:
    guard = SeenGuard.from_env(group="deployer", environ={"REDIS_HOST": "localhost", "REDIS_PORT": "1"})
    with pytest.raises(kind, match=said), guard.once(event_id):
        pytest.fail("it was let in")
