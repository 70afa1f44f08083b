"""The promise, kept with the servers that people run."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelready import Durability, Outcome, OutcomeUnknown, Publisher, SetupFault, model_ready
from modelready.consumer import Consumer
from modelready.v1 import queue_service_pb2 as pb
from modelready.v1.queue_service_pb2_grpc import QueueServiceStub
from tests.docker.container import PASSWORD, ContainerServer
from tests.harness.certificates import Authority
from tests.harness.rights import MIRROR, RIGHTS
from tests.harness.sidecar_process import SERVING, SidecarProcess
from tests.harness.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]

LIST = "deployments"  # the document's example


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """What is mounted into the container."""
    place = tmp_path / "conf"
    place.mkdir()
    return place


@pytest.fixture
def server(image: str, directory: Path) -> Iterator[ContainerServer]:
    with ContainerServer(image, directory, acl=[f"user registry >{PASSWORD} {RIGHTS} {MIRROR}"]) as running:
        yield running


def environment(server: ContainerServer, **more: str) -> dict[str, str]:
    return {"REDIS_HOST": server.host, "REDIS_PORT": str(server.port), "REDIS_AUTH_TOKEN": PASSWORD, **more}


def test_an_event_is_stored_once_however_often_it_is_published(server: ContainerServer) -> None:
    event = model_ready(name="fraud", version=7, uri="s3://models/fraud/7/")
    with SidecarProcess(environment(server)) as sidecar, Publisher(sidecar.address) as publisher:
        receipts = [publisher.publish_event(event) for _ in range(5)]
        sidecar.restart()
        receipts.append(publisher.publish_event(event))
    assert [receipt.outcome for receipt in receipts] == [Outcome.STORED] + [Outcome.DUPLICATE] * 5
    assert len({receipt.entry_id for receipt in receipts}) == 1
    assert [entry[b"ce_id"].decode() for entry in server.entries()] == [event.event_id]


def test_a_consumer_of_the_list_gets_the_same_events_first_in_first_out(server: ContainerServer) -> None:
    with (
        SidecarProcess(environment(server, QUEUE_LIST="models", QUEUE_LIST_FORMAT="payload")) as sidecar,
        Publisher(sidecar.address) as publisher,
        server.client() as client,
    ):
        events = [model_ready(name="fraud", version=n, uri=f"s3://models/fraud/{n}/") for n in range(1, 4)]
        for event in [*events, *events]:
            publisher.publish_event(event)
        messages = [json.loads(client.rpoplpush("models", "models:processing") or b"{}") for _ in events]
        assert [message["model_version"] for message in messages] == ["1", "2", "3"]
        assert client.llen("models") == 0
    assert server.versions() == ["fraud/1", "fraud/2", "fraud/3"]


def test_nothing_is_lost_while_the_container_is_killed_and_started_again(server: ContainerServer) -> None:
    def publish(version: int) -> Outcome:
        return publisher.publish(name="fraud", version=version, uri=f"s3://models/fraud/{version}/").outcome

    with SidecarProcess(environment(server)) as sidecar, Publisher(sidecar.address) as publisher:
        assert [publish(version) for version in range(5)] == [Outcome.STORED] * 5
        server.kill()
        assert [publish(version) for version in range(5, 10)] == [Outcome.SPOOLED] * 5
        server.start_again()
        until(lambda: len(server.entries()) == 10, 10, "the spool is emptied")
        until(lambda: sidecar.metrics()["modelready_spool_events"] == 0, 5, "the spool is empty")
        assert [publish(version) for version in range(10, 15)] == [Outcome.STORED] * 5
    assert server.versions() == [f"fraud/{version}" for version in range(15)]


@pytest.mark.parametrize("image", ["valkey/valkey:8", pytest.param("redis:8", marks=pytest.mark.soak)], indirect=True)
def test_a_replica_that_hangs_is_never_taken_for_a_confirmation(image: str, directory: Path, tmp_path: Path) -> None:
    """Redis 7.2+ and Valkey answer WAIT at once on a connection that wrote nothing: a retry must write."""
    elsewhere = tmp_path / "replica"
    elsewhere.mkdir()
    with ContainerServer(image, directory) as primary:
        follow = {"replicaof": f"{primary.address_in_network} 6379"}
        with ContainerServer(image, elsewhere, config=follow) as replica, primary.client() as client:
            until(lambda: client.info("replication")["slave0"]["state"] == "online", 20, "the replica follows")
            with SidecarProcess(environment(primary)) as sidecar:
                event = model_ready(name="fraud", version=7, uri="s3://models/fraud/7/")
                replica.pause()
                for _ in range(2):
                    with Publisher(sidecar.address) as publisher, pytest.raises(OutcomeUnknown):
                        publisher.publish_event(event, durability=Durability.REPLICATED, timeout=1.5)
                    sidecar.restart()  # so that the next attempt has connections that wrote nothing
                replica.unpause()
                with Publisher(sidecar.address) as publisher:
                    receipt = publisher.publish_event(event, durability=Durability.REPLICATED, timeout=10)
            assert (receipt.outcome, receipt.replicas) == (Outcome.DUPLICATE, 1)
            assert replica.versions() == ["fraud/7"]


def test_tls_with_an_authority_of_ones_own(image: str, directory: Path) -> None:
    certificate = Authority(directory).server()
    with ContainerServer(image, directory, tls=certificate) as server:
        trusting = environment(server, REDIS_TLS="true", REDIS_TLS_CA_FILE=str(certificate.ca))
        with SidecarProcess(trusting) as sidecar, Publisher(sidecar.address) as publisher:
            receipt = publisher.publish(name="fraud", version=7, uri="s3://x/", durability=Durability.PRIMARY)
            assert receipt.outcome is Outcome.STORED
            assert sidecar.health("redis") == SERVING
        sidecar = SidecarProcess(environment(server, REDIS_TLS="true"))
        sidecar.start("listening")
        with sidecar, Publisher(sidecar.address) as publisher, pytest.raises(SetupFault, match="certificate"):
            publisher.publish(name="fraud", version=8, uri="s3://x/")
        assert server.versions() == ["fraud/7"]


def test_a_least_privilege_user_is_enough(server: ContainerServer) -> None:
    env = environment(server, REDIS_USERNAME="registry", QUEUE_LIST=LIST)
    with (
        SidecarProcess(env) as sidecar,
        Publisher(sidecar.address) as publisher,
        server.client() as client,
    ):
        event = model_ready(name="fraud", version=7, uri="s3://x/")
        outcomes = [publisher.publish_event(event, durability=Durability.PRIMARY).outcome for _ in range(2)]
        assert outcomes == [Outcome.STORED, Outcome.DUPLICATE]
        with sidecar.channel() as channel:
            status = QueueServiceStub(channel).GetQueueStatus(pb.GetQueueStatusRequest(), timeout=5)
        assert (status.redis_error, status.stream_length, status.list.depth) == ("", 1, 1)
        assert sidecar.health("redis") == SERVING
        assert client.acl_log() == [], "something was tried that the user may not do"


def test_a_consumer_group_receives_what_was_published(server: ContainerServer) -> None:
    with (
        SidecarProcess(environment(server)) as sidecar,
        Publisher(sidecar.address) as publisher,
        Consumer.from_env(group="deployer", environ=environment(server), block_seconds=0.2) as consumer,
    ):
        for version in range(3):
            publisher.publish(name="fraud", version=version, uri="s3://x/")
        received = []
        for delivery in consumer:
            with delivery as event:
                received.append(event.model.version)
            if len(received) == 3:
                break
        assert received == ["0", "1", "2"]
        with server.client() as client:
            until(lambda: client.xpending("{model-ready}:events", "deployer")["pending"] == 0, 2, "all acknowledged")
