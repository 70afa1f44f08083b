"""The Docker engine: without one these tests are skipped; with REQUIRE_DOCKER=1 that is a failure."""

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import boto3
import pytest

from tests.docker.sidecar_container import HOST
from tests.harness.aws_api import aws_api

ROOT = Path(__file__).parents[2]
IMAGES = ("redis:8", "valkey/valkey:8")
BUILD_SECONDS = 600  # without a cache: everything is downloaded


@pytest.fixture(scope="session")
def engine() -> Any:
    """A client of the Docker engine."""
    from testcontainers.core.docker_client import DockerClient  # noqa: PLC0415 - its import is slow

    try:
        client = DockerClient().client
        client.ping()
    except Exception as error:  # noqa: BLE001 - whatever it is, there is no engine
        missing(f"no Docker engine answers: {error}")
    return client


@pytest.fixture(scope="session", params=IMAGES)
def image(request: pytest.FixtureRequest, engine: Any) -> str:
    """The name of an image that is there."""
    return _had(engine, request.param)


@pytest.fixture(scope="session")
def valkey(engine: Any) -> str:
    """The name of Valkey's image, where one server is enough."""
    return _had(engine, "valkey/valkey:8")


@pytest.fixture(scope="session")
def base(engine: Any) -> str:
    """The name of the image that the sidecar's is made from."""
    return _had(engine, "python:3.13-slim-trixie")


@pytest.fixture(scope="session")
def sidecar_image(engine: Any) -> str:
    """The id of the image that the Dockerfile of this tree makes."""
    with (Path(tempfile.gettempdir()) / "modelready-sidecar.build").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test worker's build fills the cache for ours
        command = [
            "docker",
            "build",
            "--quiet",
            "--tag",
            "modelready-sidecar:test",
            "--build-arg",
            "REVISION=test",
            ".",
        ]
        try:
            built = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            missing(f"the sidecar's image cannot be built: {error}")
    if built.returncode:
        missing(f"the sidecar's image cannot be built: {built.stderr[-2000:]}")
    return built.stdout.strip()


class SecretsManager(NamedTuple):
    """A client of it, where a container finds it, and a key of an account as environment variables have it."""

    client: Any
    env: dict[str, str]
    key: dict[str, str]


@pytest.fixture
def secrets_manager() -> Iterator[SecretsManager]:
    """A real server of its API, which containers reach."""
    key = {"aws_access_key_id": "AKIATEST", "aws_secret_access_key": "not-a-real-aws-key"}
    with aws_api("0.0.0.0") as port:
        client = boto3.client("secretsmanager", "eu-west-1", endpoint_url=f"http://127.0.0.1:{port}", **key)
        env = {"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": f"http://{HOST}:{port}"}
        yield SecretsManager(client, env, {name.upper(): value for name, value in key.items()})


def _had(engine: Any, name: str) -> str:
    try:
        engine.images.get(name)
    except Exception:  # noqa: BLE001 - then from its registry
        try:
            engine.images.pull(name)
        except Exception as error:  # noqa: BLE001 - nor there
            missing(f"the image {name} is not to be had: {error}")
    return name


def missing(what: str) -> NoReturn:
    """Skip for want of that or, where Docker is required, fail."""
    if os.environ.get("REQUIRE_DOCKER"):
        pytest.fail(f"{what}; REQUIRE_DOCKER is set")
    pytest.skip(what)
