"""The template's task definition, read back from moto, starts on Docker: healthy, in order, and it publishes.

moto keeps the containers as the template has them. Of the task itself it drops `awsvpc` (it says `bridge`), FARGATE
and cpu, so that the shared network is read in the template.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.deploy.account import Client, account, containers, make, make_network
from tests.deploy.template import RESOURCES, ROOT, SETTINGS
from tests.docker.conftest import BUILD_SECONDS
from tests.docker.container import PASSWORD, ContainerServer
from tests.docker.ecs_task import Task
from tests.docker.sidecar_container import HOST
from tests.harness.certificates import Authority
from tests.harness.embedded_metrics import embedded
from tests.harness.secrecy import keep, shown
from tests.harness.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(BUILD_SECONDS + 120)]

ROLE = {
    "AccessKeyId": "AKIDOFTHEROLE",
    "SecretAccessKey": "a-secret-key-of-the-role",
    "Token": "a-session-token-of-the-role",
    "Expiration": "2100-01-01T00:00:00Z",
}


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Client]:
    """On all addresses, so that containers reach it."""
    with account(tmp_path / "none", "0.0.0.0") as client:
        yield client


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Signs the certificate of Redis. `conf` is mounted into its container."""
    (tmp_path / "conf").mkdir()
    return Authority(tmp_path / "conf")


@pytest.fixture
def server(valkey: str, authority: Authority, tmp_path: Path) -> Iterator[ContainerServer]:
    """With TLS and a token, as ElastiCache has them."""
    with ContainerServer(valkey, tmp_path / "conf", tls=authority.server("127.0.0.1", HOST)) as running:
        yield running


@pytest.fixture
def definition(aws: Client, server: ContainerServer, sidecar_image: str) -> dict[str, dict[str, Any]]:
    """The containers that ECS would start: a stack with an existing Redis, whose token is in Secrets Manager."""
    secret = aws("secretsmanager").create_secret(Name="redis", SecretString=json.dumps({"password": PASSWORD}))["ARN"]
    given = {
        "RegistryImage": sidecar_image,  # it has the client, and the example registry is mounted into it
        "SidecarImage": sidecar_image,
        "ExistingRedisHost": HOST,
        "RedisPort": str(server.port),
        "ExistingRedisSecretArn": secret,
    }
    stack = make(aws, "task", make_network(aws) | given)
    return containers(aws, stack.name)


@pytest.fixture
def task(engine: Any, definition: dict[str, dict[str, Any]], authority: Authority, tmp_path: Path) -> Iterator[Task]:
    """With what only the test has: AWS is moto, and the authority that signed Redis' certificate is not a public one.

    ElastiCache's certificates are signed by Amazon's public authority, so the template names none; here the bundle that
    OpenSSL takes for the system's is the test's authority.
    """
    (tmp_path / "agent").mkdir()
    moto = f"http://{HOST}:{urlsplit(os.environ['AWS_ENDPOINT_URL']).port}"
    more: dict[str, dict[str, Any]] = {
        "sidecar": {
            "environment": {"AWS_ENDPOINT_URL": moto, "SSL_CERT_FILE": "/authority.pem"},
            "volumes": {str(authority.ca): {"bind": "/authority.pem", "mode": "ro"}},
        },
        "registry": {
            "entrypoint": ["python3"],
            "command": ["/registry.py"],
            "init": True,  # SIGTERM ends it
            "volumes": {str(ROOT / "docs/examples/python/registry.py"): {"bind": "/registry.py", "mode": "ro"}},
            "healthcheck": {"test": ["NONE"]},  # the image's own is the sidecar's
        },
    }
    with Task(engine, [*definition.values()], role=ROLE, directory=tmp_path / "agent", more=more) as one:
        yield one


def test_the_task_starts_is_healthy_and_publishes(
    task: Task, definition: dict[str, dict[str, Any]], server: ContainerServer
) -> None:
    assert RESOURCES["TaskDefinition"]["Properties"]["NetworkMode"] == "awsvpc"
    environment = {one["name"]: one["value"] for one in definition["sidecar"]["environment"]}
    assert [name for name in environment if name in SETTINGS and SETTINGS[name].metadata["secret"]] == []

    task.start("sidecar")
    task.start("registry")  # when the sidecar is healthy
    (first, *_) = until(
        lambda: re.findall(r"registered fraud (\d+): stored", task.logs("registry")), 20, "the registry publishes"
    )
    assert server.versions()[0] == f"fraud/{first}"

    settings = task.inspect("sidecar")
    assert settings["HostConfig"]["ReadonlyRootfs"] is True
    assert (settings["Config"]["User"], settings["HostConfig"]["CapDrop"]) == ("10001", ["ALL"])
    assert settings["Config"]["Healthcheck"]["Test"] == ["CMD", "modelready-sidecar", "health"]
    code, said = task.containers["sidecar"].exec_run(["sh", "-c", "touch /var/lib/modelready-sidecar/x && touch /x"])
    assert (code, b"/x': Read-only file system" in said) == (1, True), said

    assert task.stop("registry") == 143
    assert task.stop("sidecar") == 0
    (root, *_) = embedded(task.logs("sidecar"))
    assert root["TaskId"] == json.loads((task.agent / "task").read_text())["TaskARN"].rpartition("/")[2]

    keep(PASSWORD, ROLE["SecretAccessKey"], ROLE["Token"])
    for name in task.containers:
        shown(task.logs(name), f"{name}'s log")
        shown(json.dumps(task.inspect(name)), f"docker inspect of {name}")
