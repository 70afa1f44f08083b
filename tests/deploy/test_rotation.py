"""The rotation of the token, for real: the function, Secrets Manager (moto), a Valkey server with TLS, and a sidecar.

The test plays what moto lacks: the call of the function, and an ElastiCache group that takes tokens.
"""

import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from modelready.v1 import publisher_service_pb2 as pb
from tests.chaos.check import verify
from tests.chaos.load import Load
from tests.deploy.account import REGION, Client
from tests.deploy.fake_elasticache import GROUP, PlayedCache
from tests.deploy.template import RESOURCES
from tests.harness.certificates import Authority
from tests.harness.redis_server import RedisServer
from tests.harness.relay import Relay
from tests.harness.sidecar_process import SidecarProcess

FIRST = "the-first-token-of-all"
STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")


class Context:
    """What Lambda says of the time that is left."""

    def __init__(self, seconds: float = 60) -> None:
        self._end = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        return int((self._end - time.monotonic()) * 1000)


class Rotation:
    """Secrets Manager's side: it stages an empty version and calls the function's steps, in order."""

    def __init__(self, aws: Client, function: ModuleType, cache: PlayedCache) -> None:
        self.store, self.function, self.cache = aws("secretsmanager"), function, cache
        self.arn = self.store.create_secret(Name="redis", SecretString=json.dumps({"user": "x", "password": FIRST}))[
            "ARN"
        ]
        os.environ["SECRET_ARN"] = self.arn
        from moto.secretsmanager.models import secretsmanager_backends  # noqa: PLC0415 - its import is slow

        self._secret: Any = secretsmanager_backends["123456789012"][REGION].secrets[self.arn]
        self.enable()

    def enable(self, *, on: bool = True) -> None:
        self._secret.rotation_requested, self._secret.rotation_enabled = True, on

    def begin(self) -> str:
        """As RotateSecret does it; moto would run the function in a container. The new version's id."""
        version = str(uuid.uuid4())
        self._secret.remove_version_stages_from_old_versions(["AWSPENDING"])
        self._secret.versions[version] = {
            "createdate": int(time.time()), "version_id": version, "version_stages": ["AWSPENDING"],
        }  # fmt: skip
        return version

    def step(self, step: str, version: str, **event: str) -> None:
        self.function.handler({"Step": step, "SecretId": self.arn, "ClientRequestToken": version} | event, Context())

    def whole(self) -> str:
        """A rotation from its begin to its end; the new token."""
        version = self.begin()
        for step in STEPS:
            self.step(step, version)
        return self.token("AWSCURRENT")

    def value(self, stage: str) -> dict[str, str]:
        found = self.store.get_secret_value(SecretId=self.arn, VersionStage=stage)
        value: dict[str, str] = json.loads(found["SecretString"])
        return value

    def token(self, stage: str) -> str:
        return self.value(stage)["password"]

    def versions(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = self.store.describe_secret(SecretId=self.arn)["VersionIdsToStages"]
        return found

    def stages(self, of: str) -> set[str]:
        """All of the version that has this one."""
        (found,) = [stages for stages in self.versions().values() if of in stages]
        return set(found)

    def without_stage(self, stage: str, version: str) -> None:
        """What a person does to get rid of a rotation that does not go on."""
        self.store.update_secret_version_stage(SecretId=self.arn, VersionStage=stage, RemoveFromVersionId=version)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer(password=FIRST) as running:
        yield running


@pytest.fixture
def endpoint(server: RedisServer, authority: Authority) -> Iterator[Relay]:
    """The server by TLS."""
    with Relay(server.port, tls=authority.server()) as running:
        yield running


@pytest.fixture
def cache(aws: Client, server: RedisServer, endpoint: Relay) -> PlayedCache:
    return PlayedCache(server, ("localhost", endpoint.port), FIRST)


@pytest.fixture
def rotation(
    aws: Client, cache: PlayedCache, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Rotation]:
    function = ModuleType("index")  # as CloudFormation calls it; what is embedded is what is tried
    exec(RESOURCES["RotationFunction"]["Properties"]["Code"]["ZipFile"], function.__dict__)

    class Boto3:
        @staticmethod
        def client(name: str, **options: Any) -> Any:
            return cache if name == "elasticache" else boto3.client(name, **options)

    monkeypatch.setattr(function, "boto3", Boto3)
    monkeypatch.setattr(function, "PAUSE", 0.02)
    monkeypatch.setenv("GROUP_ID", GROUP)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))  # ElastiCache's is one of the system's
    monkeypatch.setenv("SECRET_ARN", "")
    one = Rotation(aws, function, cache)
    yield one
    one.store.delete_secret(SecretId=one.arn, ForceDeleteWithoutRecovery=True)


def test_a_rotation_gives_redis_a_new_token_and_keeps_the_old_one_good(rotation: Rotation) -> None:
    token = rotation.whole()
    assert (len(token), token.isalnum(), token.isascii()) == (64, True, True)
    assert rotation.value("AWSCURRENT") == {"user": "x", "password": token}
    assert rotation.token("AWSPREVIOUS") == FIRST
    assert rotation.cache.tokens == [FIRST, token]
    second = rotation.whole()
    assert rotation.cache.tokens == [token, second]
    assert rotation.cache.rotated == 2


def test_a_step_that_comes_twice_does_nothing_the_second_time(rotation: Rotation) -> None:
    version = rotation.begin()
    for step in STEPS:
        rotation.step(step, version)
        token = rotation.token("AWSPENDING" if step != "finishSecret" else "AWSCURRENT")
        rotation.step(step, version)
        assert rotation.token("AWSPENDING" if step != "finishSecret" else "AWSCURRENT") == token
    assert rotation.cache.rotated == 1
    for step in STEPS:  # and all of them once more, when it is done
        rotation.step(step, version)
    assert (rotation.cache.rotated, rotation.token("AWSCURRENT")) == (1, token)


def test_a_function_that_is_cut_off_while_redis_changes_goes_on_where_it_was(rotation: Rotation) -> None:
    version = rotation.begin()
    rotation.step("createSecret", version)
    rotation.cache.seconds = 3
    event = {"Step": "setSecret", "SecretId": rotation.arn, "ClientRequestToken": version}
    with pytest.raises(TimeoutError, match=r"the replication group is modifying|does not take the new token yet"):
        rotation.function.handler(event, Context(rotation.function.SPARE + 1))
    rotation.cache.seconds = 0.15
    for step in STEPS[1:]:
        rotation.step(step, version)
    assert rotation.cache.rotated == 1
    assert rotation.cache.tokens == [FIRST, rotation.token("AWSCURRENT")]


def test_a_rotation_that_was_given_up_never_costs_the_current_token(rotation: Rotation) -> None:
    """Redis has its token as the newest: another one would drop the current."""
    given_up = rotation.begin()
    rotation.step("createSecret", given_up)
    rotation.step("setSecret", given_up)
    left = rotation.token("AWSPENDING")
    rotation.without_stage("AWSPENDING", given_up)
    for _ in range(2):
        version = rotation.begin()
        for step in STEPS[:3]:
            rotation.step(step, version)
            assert FIRST in rotation.cache.tokens
        rotation.without_stage("AWSPENDING", version)
    assert rotation.whole() == left
    assert rotation.cache.tokens == [FIRST, left]
    assert rotation.whole() not in (FIRST, left)


def test_a_token_that_was_current_once_is_never_used_again(rotation: Rotation) -> None:
    """Also where somebody went on by hand: it may have leaked."""
    leaked = rotation.whole()
    rotation.store.put_secret_value(
        SecretId=rotation.arn, SecretString=json.dumps({"password": "one-by-hand-and-known"})
    )
    rotation.cache.set_tokens("one-by-hand-and-known")
    assert rotation.whole() not in (FIRST, leaked)


@pytest.mark.parametrize("step", STEPS)
def test_a_rotation_that_ended_leaves_no_stage_of_its_own(rotation: Rotation, step: str) -> None:
    """Also where the function died between the last two calls: any step that comes again tidies up."""
    rotation.whole()
    assert rotation.stages("AWSCURRENT") == {"AWSCURRENT", "AWSPENDING"}
    (version,) = [one for one, stages in rotation.versions().items() if "AWSCURRENT" in stages]
    rotation.store.update_secret_version_stage(SecretId=rotation.arn, VersionStage="IN_REDIS", MoveToVersionId=version)
    rotation.step(step, version)
    assert rotation.stages("AWSCURRENT") == {"AWSCURRENT", "AWSPENDING"}


def test_tokens_that_were_changed_by_hand_are_mended_at_once(rotation: Rotation) -> None:
    """Nobody with AWSCURRENT waits for the last step."""
    rotation.cache.set_tokens("one-by-hand-and-unknown", "another-one-and-unknown")
    version = rotation.begin()
    rotation.step("createSecret", version)
    rotation.step("setSecret", version)
    assert rotation.cache.tokens == ["another-one-and-unknown", rotation.token("AWSCURRENT")]
    assert "IN_REDIS" not in rotation.stages("AWSCURRENT")
    for step in STEPS[2:]:
        rotation.step(step, version)


def test_the_schedule_is_tried_with_the_token_that_is_good(rotation: Rotation) -> None:
    """Without an immediate rotation Secrets Manager calls testSecret alone, with a copy of the current value."""
    version = str(uuid.uuid4())
    rotation.store.put_secret_value(
        SecretId=rotation.arn, ClientRequestToken=version, VersionStages=["AWSPENDING"],
        SecretString=json.dumps({"password": FIRST}),
    )  # fmt: skip
    rotation.step("testSecret", version)
    rotation.cache.set_tokens("one-by-hand-and-unknown")
    with pytest.raises(ValueError, match="Redis refuses the token of AWSPENDING"):
        rotation.step("testSecret", version)


def test_what_is_no_rotation_of_this_secret_is_refused(rotation: Rotation, aws: Client) -> None:
    other = aws("secretsmanager").create_secret(Name="other", SecretString="{}")["ARN"]
    version = rotation.begin()
    with pytest.raises(ValueError, match="rotates another secret"):
        rotation.step("createSecret", version, SecretId=other)
    with pytest.raises(ValueError, match="not staged as AWSPENDING"):
        rotation.step("createSecret", str(uuid.uuid4()))
    with pytest.raises(KeyError, match="dropSecret"):
        rotation.step("dropSecret", version)
    rotation.enable(on=False)
    with pytest.raises(ValueError, match="not enabled"):
        rotation.step("createSecret", version)
    assert rotation.token("AWSCURRENT") == FIRST


@pytest.mark.parametrize("value", [FIRST, "[]", '{"password": 1}', '{"token": "the-first-token"}'])
def test_a_secret_of_another_form_is_refused_without_its_value(rotation: Rotation, value: str) -> None:
    rotation.store.put_secret_value(SecretId=rotation.arn, SecretString=value)
    with pytest.raises(ValueError, match=r"no JSON object|Expecting value") as raised:
        rotation.step("createSecret", rotation.begin())
    assert "first-token" not in str(raised.value)


def test_who_answers_and_is_no_redis_with_a_token_is_an_error(rotation: Rotation, server: RedisServer) -> None:
    server.execute("ACL", "SETUSER", "default", "nopass")
    version = rotation.begin()
    rotation.step("createSecret", version)
    with pytest.raises(ConnectionError, match="Redis answered"):
        rotation.step("setSecret", version)
    assert rotation.cache.rotated == 0


def test_an_error_of_aws_leaves_all_as_it_was(rotation: Rotation, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**given: Any) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied"}}, "ModifyReplicationGroup")

    version = rotation.begin()
    rotation.step("createSecret", version)
    with monkeypatch.context() as patch:
        patch.setattr(rotation.cache, "modify_replication_group", refuse)
        with pytest.raises(ClientError, match="AccessDenied"):
            rotation.step("setSecret", version)
    assert (rotation.cache.tokens, rotation.token("AWSCURRENT")) == ([FIRST], FIRST)
    for step in STEPS[1:]:
        rotation.step(step, version)
    assert rotation.cache.tokens == [FIRST, rotation.token("AWSCURRENT")]


def test_no_publish_fails_while_the_token_is_rotated_twice_in_a_row(
    rotation: Rotation, server: RedisServer, endpoint: Relay, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    env = {name: value for name, value in os.environ.items() if name.startswith("AWS_")} | {
        "REDIS_HOST": "localhost",
        "REDIS_PORT": str(endpoint.port),
        "REDIS_TLS": "true",
        "REDIS_TLS_CA_FILE": str(authority.ca),
        "REDIS_AUTH_SECRET_ID": rotation.arn,
        "REDIS_TIMEOUT_SECONDS": "1",
    }
    tokens = [FIRST]
    with SidecarProcess(env) as sidecar, Load(sidecar.address, writers=2, durability=pb.DURABILITY_PRIMARY) as load:
        for _ in range(2):
            version = rotation.begin()
            for step in STEPS:
                rotation.step(step, version)
                rotation.cache.drop_logins()  # each client logs in again, with the token that it has
                load.wait_acked(30)
            tokens.append(rotation.token("AWSCURRENT"))
        history = load.finish()
        verify(server, history)
        assert history.codes().keys() == {"OK"}
        said = sidecar.logs() + json.dumps(sidecar.metrics())
    assert rotation.cache.tokens == tokens[1:]
    assert "gave new credentials" in said
    said += "".join(capsys.readouterr())
    assert "finishSecret done" in said
    assert [token for token in tokens if token in said] == []
