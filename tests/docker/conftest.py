"""The Docker engine: without one these tests are skipped; with REQUIRE_DOCKER=1 that is a failure."""

import os
from typing import NoReturn

import pytest
from testcontainers.core.docker_client import DockerClient

IMAGES = ("redis:8", "valkey/valkey:8")


@pytest.fixture(scope="session", params=IMAGES)
def image(request: pytest.FixtureRequest) -> str:
    """The name of an image that is there."""
    name: str = request.param
    try:
        client = DockerClient().client
        client.ping()
    except Exception as error:  # noqa: BLE001 - whatever it is, there is no engine
        _missing(f"no Docker engine answers: {error}")
    try:
        client.images.get(name)
    except Exception:  # noqa: BLE001 - then from its registry
        try:
            client.images.pull(name)
        except Exception as error:  # noqa: BLE001 - nor there
            _missing(f"the image {name} is not to be had: {error}")
    return name


def _missing(what: str) -> NoReturn:
    if os.environ.get("REQUIRE_DOCKER"):
        pytest.fail(f"{what}; REQUIRE_DOCKER is set")
    pytest.skip(what)
