"""What `publish` promises, of both publishers."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

import modelready.aio
from clients.python.tests.fake_sidecar import STREAM, FakeSidecar, failure
from modelready import (
    TLS,
    DeadlineExceeded,
    Durability,
    EventFields,
    InvalidEvent,
    Outcome,
    OutcomeUnknown,
    PermissionDenied,
    Publisher,
    PublishError,
    Receipt,
    ResourceExhausted,
    SetupFault,
    Unauthenticated,
    Unavailable,
    model_ready,
)
from tests.harness.waiting import until

Code = grpc.StatusCode
FRAUD = EventFields(name="fraud", version="7", uri="s3://models/fraud/7/")


def test_a_receipt_tells_where_the_event_is(publisher: Any, sidecar: FakeSidecar) -> None:
    receipt = publisher.publish(**FRAUD, correlation_id="from-the-caller")

    (event,) = sidecar.entries
    assert receipt == Receipt(event.event_id, "from-the-caller", Outcome.STORED, STREAM, "1-0", 0)
    assert event.artifact.uri == "s3://models/fraud/7/"


def test_the_same_id_makes_one_entry(publisher: Any, sidecar: FakeSidecar) -> None:
    first = publisher.publish(**FRAUD, event_id="once")
    second = publisher.publish(**FRAUD, event_id="once")

    assert (first.outcome, second.outcome) == (Outcome.STORED, Outcome.DUPLICATE)
    assert first.entry_id == second.entry_id
    assert len(sidecar.entries) == 1


@pytest.mark.parametrize(
    "passing",
    [
        failure(Code.UNAVAILABLE, reason="REDIS_UNAVAILABLE", retry_after=0.05),
        failure(Code.UNAVAILABLE, reason="OUTCOME_UNKNOWN"),
        failure(Code.RESOURCE_EXHAUSTED, reason="SPOOL_FULL", retry_after=0.05),
        failure(Code.RESOURCE_EXHAUSTED, message="Concurrent RPC limit exceeded!"),
        failure(Code.CANCELLED),
        failure(Code.INTERNAL, message="Received RST_STREAM with error code 2"),
    ],
    ids=lambda status: f"{status.code}-{len(status.details)}",
)
def test_what_passes_is_retried_with_the_same_event(publisher: Any, sidecar: FakeSidecar, passing: Any) -> None:
    sidecar.failures.extend([passing] * 2)
    receipt = publisher.publish(**FRAUD)

    assert receipt.outcome is Outcome.STORED
    assert len(sidecar.attempts) == 3
    assert all(attempt == sidecar.attempts[0] for attempt in sidecar.attempts)


def test_the_sidecar_s_delay_is_honoured(publisher: Any, sidecar: FakeSidecar) -> None:
    sidecar.failures.append(failure(Code.RESOURCE_EXHAUSTED, retry_after=0.4))
    began = time.monotonic()
    publisher.publish(**FRAUD)
    assert time.monotonic() - began >= 0.4


def test_a_delay_beyond_the_deadline_is_not_waited_for(publisher: Any, sidecar: FakeSidecar) -> None:
    sidecar.failures.append(failure(Code.RESOURCE_EXHAUSTED, reason="SPOOL_FULL", retry_after=60))
    with pytest.raises(ResourceExhausted) as refusal:
        publisher.publish(**FRAUD, event_id="mine")

    assert (refusal.value.reason, refusal.value.retry_after, refusal.value.event_id) == ("SPOOL_FULL", 60, "mine")


def test_that_an_attempt_may_have_succeeded_is_not_forgotten(publisher: Any, sidecar: FakeSidecar) -> None:
    sidecar.failures.append(failure(Code.UNAVAILABLE, reason="OUTCOME_UNKNOWN", retry_after=0.01))
    sidecar.failures.extend([failure(Code.UNAVAILABLE, reason="REDIS_UNAVAILABLE", retry_after=0.1)] * 20)
    with pytest.raises(OutcomeUnknown):
        publisher.publish(**FRAUD, timeout=1.5)
    assert len(sidecar.attempts) > 2


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (failure(Code.INVALID_ARGUMENT, violations=[("event.artifact.uri", "is required")]), InvalidEvent),
        (failure(Code.FAILED_PRECONDITION, reason="REDIS_SETUP"), SetupFault),
        (failure(Code.UNAUTHENTICATED), Unauthenticated),
        (failure(Code.PERMISSION_DENIED), PermissionDenied),
        (failure(Code.INTERNAL, reason="INTERNAL"), PublishError),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_no_retry_helps_is_raised_at_once(
    publisher: Any, sidecar: FakeSidecar, status: Any, kind: type[PublishError]
) -> None:
    sidecar.failures.append(status)
    with pytest.raises(kind) as refusal:
        publisher.publish(**FRAUD, event_id="mine")

    assert type(refusal.value) is kind
    assert refusal.value.event_id == "mine"
    assert len(sidecar.attempts) == 1


def test_a_deadline_leaves_the_outcome_open_and_the_id_known(publisher: Any, sidecar: FakeSidecar) -> None:
    sidecar.hold = lambda: time.sleep(0.5)
    with pytest.raises(DeadlineExceeded, match=r"may be in the queue.*with this id is safe") as late:
        publisher.publish(**FRAUD, timeout=0.2)
    sidecar.hold = lambda: None

    until(lambda: sidecar.entries, 5, "it is stored")
    again = publisher.publish(**FRAUD, event_id=late.value.event_id)
    assert again.outcome is Outcome.DUPLICATE
    assert len(sidecar.entries) == 1


def test_a_missing_sidecar_is_named_with_its_cause(twin: Any) -> None:
    with twin("127.0.0.1:1", timeout=0.4) as publisher, pytest.raises(Unavailable) as away:
        publisher.publish(**FRAUD, event_id="mine")
    assert str(away.value) == (
        "no sidecar at 127.0.0.1:1 (connection refused): is it running? The event's id is mine; publishing it again "
        "with this id is safe"
    )
    assert "Connection refused" in away.value.details


def test_a_restart_of_the_sidecar_is_not_noticed(publisher: Any, sidecar: FakeSidecar) -> None:
    publisher.publish(**FRAUD)
    sidecar.stop()
    back = threading.Timer(1.2, sidecar.start)
    back.start()
    publisher.publish(**FRAUD)
    back.join()
    assert len(sidecar.entries) == 2


def test_a_sidecar_that_dies_with_the_call_in_flight_is_not_noticed(publisher: Any, sidecar: FakeSidecar) -> None:
    arrived = threading.Event()

    def die() -> None:
        sidecar.hold = lambda: None
        arrived.set()
        time.sleep(0.3)

    def restart() -> None:
        arrived.wait()
        sidecar.stop()
        sidecar.start()

    sidecar.hold = die
    restarting = threading.Thread(target=restart)
    restarting.start()
    publisher.publish(**FRAUD)
    restarting.join()
    assert len(sidecar.attempts) == 2
    assert len(sidecar.entries) == 1


def test_the_least_durability_is_asked_for(twin: Any, sidecar: FakeSidecar) -> None:
    with twin(sidecar.address, durability=Durability.PRIMARY) as publisher:
        publisher.publish(**FRAUD)
        publisher.publish(**FRAUD, durability=Durability.REPLICATED)
        list(publisher.publish_many([model_ready(**FRAUD)]))
        list(publisher.publish_many([model_ready(**FRAUD)], durability=Durability("spooled")))
    assert sidecar.durabilities == [2, 3, 2, 1]


def test_the_source_is_the_publisher_s_unless_the_event_has_one(twin: Any, sidecar: FakeSidecar) -> None:
    with twin(sidecar.address, source="//registry") as publisher:
        publisher.publish(**FRAUD)
        publisher.publish(**FRAUD, source="//other")
        list(publisher.publish_many([model_ready(**FRAUD)]))
    assert [event.source for event in sidecar.entries] == ["//registry", "//other", "//registry"]


def test_it_speaks_over_a_unix_socket(twin: Any, tmp_path: Path) -> None:
    sidecar = FakeSidecar(f"unix:{tmp_path}/sidecar.sock")
    sidecar.start()
    with twin(sidecar.address) as publisher:
        assert publisher.publish(**FRAUD).outcome is Outcome.STORED
    sidecar.stop()


def test_a_proxy_of_the_environment_is_not_used(sidecar: FakeSidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("grpc_proxy", "http://127.0.0.1:1")
    with Publisher(sidecar.address) as publisher:
        assert publisher.publish(**FRAUD, timeout=2)


def test_tls_both_ways_with_a_token(twin: Any, tmp_path: Path) -> None:
    authority = trustme.CA()
    server, client = authority.issue_cert("sidecar.internal"), authority.issue_cert("registry")
    files = {"ca": authority.cert_pem, "cert": client.cert_chain_pems[0], "key": client.private_key_pem}
    for name, blob in files.items():
        blob.write_to_path(str(tmp_path / name))
    credentials = grpc.ssl_server_credentials(
        [(server.private_key_pem.bytes(), server.cert_chain_pems[0].bytes())],
        root_certificates=authority.cert_pem.bytes(),
        require_client_auth=True,
    )
    sidecar = FakeSidecar(credentials=credentials)
    sidecar.start()
    mutual = TLS(str(tmp_path / "ca"), str(tmp_path / "cert"), str(tmp_path / "key"), "sidecar.internal")
    with twin(sidecar.address, tls=mutual, token="s3cret") as publisher:
        publisher.publish(**FRAUD)
        list(publisher.publish_many([model_ready(**FRAUD)]))
    assert [sent["authorization"] for sent in sidecar.metadata] == ["Bearer s3cret", "Bearer s3cret"]

    stranger = TLS(ca_file=str(tmp_path / "ca"), server_name="sidecar.internal")
    wrong_name = TLS(str(tmp_path / "ca"), str(tmp_path / "cert"), str(tmp_path / "key"))
    for tls in (stranger, wrong_name, None):
        with twin(sidecar.address, tls=tls, timeout=0.3) as publisher, pytest.raises((Unavailable, DeadlineExceeded)):
            publisher.publish(**FRAUD)
    sidecar.stop()


def test_half_a_client_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cert_file and key_file together"):
        Publisher(tls=TLS(cert_file=str(tmp_path / "cert")))


@pytest.mark.parametrize("token", ["", "two words", "line-end\n"])
def test_a_token_that_no_header_carries_is_refused_without_being_shown(twin: Any, token: str) -> None:
    with pytest.raises(ValueError, match="visible ASCII") as refusal:
        twin(token=token)
    assert "words" not in str(refusal.value)
    assert "line-end" not in str(refusal.value)


def test_a_closed_publisher_says_so(twin: Any, sidecar: FakeSidecar) -> None:
    with twin(sidecar.address) as publisher:
        publisher.publish(**FRAUD)
    with pytest.raises(RuntimeError, match="the publisher is closed"):
        publisher.publish(**FRAUD)


def test_many_threads_share_one_publisher(sidecar: FakeSidecar) -> None:
    with Publisher(sidecar.address) as publisher, ThreadPoolExecutor(32) as threads:
        receipts = list(
            threads.map(lambda n: publisher.publish(name="m", version=n, uri="-", event_id=f"{n}"), range(500))
        )
    assert [receipt.event_id for receipt in receipts] == [f"{n}" for n in range(500)]
    assert len(sidecar.entries) == 500


FORKS = """
import os, sys
from modelready import Publisher
publisher = Publisher(sys.argv[1])
if sys.argv[2] == "used":
    publisher.publish(name="fraud", version="parent", uri="s3://m/")
child = os.fork()
if child == 0:
    publisher.publish(name="fraud", version="child", uri="s3://m/")
    publisher.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
publisher.publish(name="fraud", version="parent again", uri="s3://m/")
publisher.close()
"""


@pytest.mark.parametrize("state", ["made", "used"])
def test_a_forked_child_may_use_its_parent_s_publisher(sidecar: FakeSidecar, state: str) -> None:
    subprocess.run([sys.executable, "-c", FORKS, sidecar.address, state], check=True, timeout=20, env=os.environ)
    versions = [event.model.version for event in sidecar.entries]
    assert versions == ["parent", "child", "parent again"][state == "made" :]


def test_the_twins_have_the_same_surface() -> None:
    def surface(kind: type) -> dict[str, Callable[..., object]]:
        return {name: value for name, value in vars(kind).items() if not name.startswith("_") and callable(value)}

    sync, aio = surface(Publisher), surface(modelready.aio.Publisher)
    assert sync.keys() == aio.keys()
    for name in sync:
        assert list(inspect.signature(sync[name]).parameters) == list(inspect.signature(aio[name]).parameters)
