"""What is refused before anything is sent: the text says what may stand there. Both publishers share these rules."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest

import modelready.aio
from clients.python.tests.fake_sidecar import FakeSidecar
from modelready import Durability, Publisher, model_ready
from modelready._unreached import text
from modelready.outbox.relay import RelayBase
from modelready.receipt import checked_durability

FRAUD: dict[str, Any] = {"name": "fraud", "version": "7", "uri": "s3://models/fraud/7/"}
ADDRESS = "it may be host:port, such as 127.0.0.1:50051 or [::1]:50051, or unix:/path"


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("", "''"),
        ("127.0.0.1", "'127.0.0.1', without a port"),
        ("sidecar", "'sidecar', without a port"),
        ("sidecar:", "'sidecar:'"),
        (":50051", "':50051'"),
        ("::1:50051", "'::1:50051'"),
        ("sidecar:0", "'sidecar:0'"),
        ("sidecar:99999", "'sidecar:99999'"),
        ("sidecar:http", "'sidecar:http', without a port"),
        ("http://127.0.0.1:50051", "'http://127.0.0.1:50051', with a scheme"),
        ("https://sidecar", "'https://sidecar', with a scheme"),
        ("redis://user:secret@redis:6379/0", "'***@redis:6379/0'"),
        ("unix:", "'unix:'"),
        ("sidecar:50051/", "'sidecar:50051/', without a port"),
        ("side car:50051", "'side car:50051'"),
        ("sidecar:\u0665\u0660", "'sidecar:\u0665\u0660'"),
    ],
)
def test_an_address_that_no_sidecar_has_is_refused_at_once(address: str, what: str) -> None:
    with pytest.raises(ValueError, match="address") as refused:
        Publisher(address)
    said = str(refused.value)
    assert said.startswith(f"the sidecar's address is {what}")
    assert said.endswith(ADDRESS)
    assert "secret" not in said


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:50051", "[::1]:50051", "[fe80::1%eth0]:1", "side_car.internal.:65535", "unix:/run/s.sock",
     "unix:s.sock", "unix:///run/s.sock", "unix-abstract:s", "dns:///sidecar:50051", "ipv4:127.0.0.1:50051"],
)  # fmt: skip
def test_an_address_that_grpc_knows_is_taken(address: str) -> None:
    Publisher(address).close()


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"target": 50051}, TypeError, "the sidecar's address is 50051: it may be"),
        ({"tls": True}, TypeError, "tls is True: it may be TLS(), which trusts the system's authorities"),
        ({"tls": "ca.pem"}, TypeError, "TLS(ca_file=...), or None for none"),
        ({"token": b"s3cret"}, TypeError, "the token is a bytes: it may be text, or None for none"),
        ({"timeout": "5"}, TypeError, "timeout is '5': it may be a number of seconds"),
        ({"timeout": float("nan")}, ValueError, "timeout is nan: it may be a number of seconds"),
        ({"source": None}, TypeError, "source is None: it may be text"),
        ({"durability": "disk"}, ValueError, "durability is 'disk': it may be a Durability, or its name: \"spooled\""),
        ({"durability": 2}, TypeError, '"spooled", "primary", "replicated"'),
    ],
)
def test_a_wrong_setting_says_what_it_may_be(options: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind) as refused:
        Publisher(**options)
    assert said in str(refused.value)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(("given", "taken"), [("PRIMARY", Durability.PRIMARY), ("spooled", Durability.SPOOLED)])
def test_a_durability_may_be_a_name(twin: Any, sidecar: FakeSidecar, given: str, taken: Durability) -> None:
    assert checked_durability(given) is checked_durability(taken) is taken
    with twin(sidecar.address, durability=given) as publisher:
        publisher.publish(**FRAUD)
        publisher.publish(**FRAUD, durability="Replicated")
        list(publisher.publish_many([model_ready(**FRAUD)], durability=given))
        with pytest.raises(ValueError, match="durability is 'both'"):
            publisher.publish(**FRAUD, durability="both")
    asked = ["", "spooled", "primary", "replicated"].index(taken.value)
    assert sidecar.durabilities == [asked, 3, asked]


def test_a_relay_takes_names_and_refuses_others_before_it_works() -> None:
    assert RelayBase("REPLICATED", 1, 1.0)._durability is Durability.REPLICATED
    with pytest.raises(ValueError, match="durability is 'disk'"):
        RelayBase("disk", 1, 1.0)


@pytest.mark.parametrize(
    ("keyword", "value", "may_be"),
    [
        ("labels", "a", 'a mapping of names to texts, such as {"team": "risk"}'),
        ("labels", {"team": 1}, "a mapping of names to texts"),
        ("metrics", "auc=1", 'a mapping of names to numbers, such as {"auc": 0.93}'),
        ("metrics", {"auc": "0.93"}, "a mapping of names to numbers"),
        ("dataset_uris", "s3://data", "a list of texts"),
        ("dataset_uris", [7], "a list of texts"),
        ("name", 7, "text"),
        ("uri", "\ud800", "text"),
        ("version", None, "text or an int"),
        ("version", 1.10, "text or an int"),
        ("version", True, "text or an int"),
        ("version", "\ud800", "text or an int"),
        ("previous_version", 1.9, "text or an int"),
        ("size_bytes", "5", "an int, 0 or more"),
        ("size_bytes", -1, "an int, 0 or more"),
        ("current_value", "0.93", "a number"),
        ("occurred_at", "2026-01-01", "a datetime with its time zone"),
    ],
)
def test_a_keyword_of_a_wrong_type_says_what_it_may_be(keyword: str, value: Any, may_be: str) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        model_ready(**{**FRAUD, keyword: value})
    assert str(refused.value).startswith(f"{keyword} is {value!r}: it may be {may_be}")


def test_what_is_not_known_may_be_none_and_numbers_of_any_kind_count() -> None:
    event = model_ready(
        **FRAUD,
        previous_version=None,
        digest=None,  # type: ignore[arg-type]
        metrics={"auc": Decimal("0.5")},  # type: ignore[dict-item]
        occurred_at=datetime(2026, 1, 1, tzinfo=timezone.utc),
    )
    assert not event.HasField("promotion")
    assert (event.artifact.digest, event.metrics["auc"]) == ("", 0.5)


def test_what_is_no_event_is_refused(publisher: Any) -> None:
    with pytest.raises(TypeError, match="the event is a dict: it may be a ModelReadyToDeploy, as model_ready"):
        publisher.publish_event(FRAUD)
    with pytest.raises(TypeError, match="the event is a str"):
        list(publisher.publish_many("abc"))


def test_a_second_event_loop_says_what_to_do(sidecar: FakeSidecar) -> None:
    publisher = modelready.aio.Publisher(sidecar.address)

    async def publish() -> None:
        await publisher.publish(**FRAUD)

    asyncio.run(publish())
    with pytest.raises(RuntimeError, match=r"another event loop.*make one in each loop.*async with Publisher"):
        asyncio.run(publish())
    asyncio.run(publisher.close())
    assert len(sidecar.entries) == 1


@pytest.mark.parametrize(
    ("details", "said"),
    [
        ("... CERTIFICATE_VERIFY_FAILED: self signed", "is not trusted: give its authority's, TLS(ca_file=...)"),
        ("Hostname Verification Check failed.", "TLS(server_name=...)"),
        ("SSL_ERROR_SSL: WRONG_VERSION_NUMBER", "does not speak TLS: make the publisher without `tls`"),
        ("Failed to create a security handshaker", "holds no PEM"),
        ("Socket closed", "closed the connection"),
        ("something new", "no connection to the sidecar at host:1: something new"),
    ],
)
def test_what_grpc_says_of_a_connection_is_said_in_our_words(details: str, said: str) -> None:
    assert said in text("host:1", details)
    assert "host:1" in text("host:1", details)
