"""The token is rotated under load: the image, Valkey with TLS, and the token in Secrets Manager."""

import json
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from modelready.keys import Keys
from tests.docker.conftest import BUILD_SECONDS, SecretsManager
from tests.docker.container import PASSWORD, ContainerServer
from tests.docker.sidecar_container import FILES, HOST, SidecarContainer
from tests.harness.certificates import Authority
from tests.harness.secrecy import keep, shown
from tests.harness.waiting import until
from tests.integration.calls import DEFAULT, PRIMARY, STORED, Load

pytestmark = [pytest.mark.docker, pytest.mark.timeout(BUILD_SECONDS + 120)]

ROTATIONS = 3
SECRET = "registry/redis"
EVENTS = Keys("model-ready").events


class Place(NamedTuple):
    """Where the token is asked for, and where it is kept."""

    server: ContainerServer
    secrets: Any
    sidecar: SidecarContainer


@pytest.fixture
def place(
    engine: Any, sidecar_image: str, valkey: str, secrets_manager: SecretsManager, tmp_path: Path
) -> Iterator[Place]:
    directory = tmp_path / "conf"
    directory.mkdir()
    certificate = Authority(directory).server("127.0.0.1", HOST)
    keep(PASSWORD, *secrets_manager.key.values())
    lines = [f"{name.lower()} = {value}" for name, value in secrets_manager.key.items()]
    (directory / "aws").write_text(
        "\n".join(["[default]", *lines])
    )  # not in the environment: docker inspect shows that
    secrets_manager.client.create_secret(Name=SECRET, SecretString=json.dumps({"password": PASSWORD}))
    with ContainerServer(valkey, directory, tls=certificate) as server:
        env = {
            "REDIS_HOST": HOST,
            "REDIS_PORT": str(server.port),
            "REDIS_TLS_CA_FILE": f"{FILES}/{certificate.ca.name}",
            "REDIS_AUTH_SECRET_ID": SECRET,
            "AWS_SHARED_CREDENTIALS_FILE": f"{FILES}/aws",
            "LOG_LEVEL": "debug",
            "METRICS_EMF": "true",
            **secrets_manager.env,
        }
        with SidecarContainer(engine, sidecar_image, env, files=directory) as sidecar:
            yield Place(server, secrets_manager.client, sidecar)


def rotate(place: Place, old: str, new: str) -> None:
    """As on ElastiCache: stage the new token, add it (ROTATE), make it current, and leave it alone (SET).

    Everybody who is logged in is thrown out at the end, so that nobody gets by on a connection from before.
    """
    version = place.secrets.put_secret_value(
        SecretId=SECRET, SecretString=json.dumps({"password": new}), VersionStages=["AWSPENDING"]
    )["VersionId"]
    with place.server.client(old) as client:
        client.acl_setuser("default", enabled=True, passwords=[f"+{new}"])
        stages = place.secrets.describe_secret(SecretId=SECRET)["VersionIdsToStages"]
        (current,) = [one for one, names in stages.items() if "AWSCURRENT" in names]
        place.secrets.update_secret_version_stage(
            SecretId=SECRET, VersionStage="AWSCURRENT", MoveToVersionId=version, RemoveFromVersionId=current
        )
        client.acl_setuser("default", enabled=True, passwords=[f"-{old}"])
        assert client.client_kill_filter(_type="normal", skipme=True) >= 1


@pytest.mark.parametrize("seconds", [6, pytest.param(60, marks=pytest.mark.soak)])
def test_it_is_rotated_three_times_under_load_and_no_publish_fails(place: Place, seconds: int) -> None:
    """Callers that take nothing less than Redis, without a retry of their own, beside those that take the spool."""
    tokens = [PASSWORD, *(f"token-number-{number}-of-the-test" for number in range(ROTATIONS))]
    keep(*tokens)
    with Load(place.sidecar, [PRIMARY] * 4 + [DEFAULT] * 4) as load:
        begun = time.monotonic()
        for number, (old, new) in enumerate(pairwise(tokens)):
            wait_for(begun + seconds * (number + 0.5) / ROTATIONS)
            rotate(place, old, new)
            publishes_again(load)
        wait_for(begun + seconds)
    assert load.errors == [], place.sidecar.logs()
    assert place.sidecar.logs().count("gave new credentials") == ROTATIONS
    with place.server.client(tokens[-1]) as client:
        until(lambda: set(load.acked) <= set(stored(client)), 10, "the spool is empty")
        ids = stored(client)
    assert len(ids) == len(set(ids))

    page = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9464/{}').read().decode())"
    for path in ("", "metrics", "readyz", "healthz"):
        code, said = place.sidecar.run("python3", "-c", page.format(path))
        assert code == 0, said
    assert SECRET in shown(json.dumps(place.sidecar.inspect(), default=str), "docker inspect")
    for command in (["status"], ["doctor"], ["doctor", "--json"]):
        code, said = place.sidecar.run("modelready-sidecar", *command)
        assert code == 0, said
    assert place.sidecar.stop(30) == 0
    assert "ConnectionFailures" in place.sidecar.logs()


def wait_for(moment: float) -> None:
    until(lambda: time.monotonic() >= moment, 60, "it is time")


def publishes_again(load: Load) -> None:
    enough = load.outcomes[STORED] + 100
    until(lambda: load.outcomes[STORED] >= enough, 15, "it publishes again")


def stored(client: Any) -> list[str]:
    """The ids of all events in the stream."""
    return [fields[b"ce_id"].decode() for _, fields in client.xrange(EVENTS)]
