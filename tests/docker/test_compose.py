"""The example that docker-compose.yml runs: one command, and what a registry promotes reaches a consumer."""

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from modelready import Outcome, Publisher
from tests.docker.conftest import BUILD_SECONDS, ROOT, missing
from tests.docker.container import PASSWORD, ContainerServer
from tests.docker.sidecar_container import HOST
from tests.harness.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(BUILD_SECONDS + 120)]

FILE = ROOT / "docker-compose.yml"


class Project:
    """A Compose project of the test's own, without fixed ports on the host."""

    def __init__(self, files: Sequence[Path], env: dict[str, str]) -> None:
        self.name = f"modelready-test-{uuid4().hex[:8]}"
        self._command = ["docker", "compose", "--ansi", "never", "--project-name", self.name]
        for file in files:
            self._command += ["--file", str(file)]
        self._env = {**os.environ, "PAGE_PORT": "", "REGISTRY_PORT": "", **env}

    def __call__(self, *arguments: str, seconds: float = 90) -> str:
        """What `docker compose <arguments>` prints; AssertionError with the logs where it fails."""
        done = self._run(*arguments, seconds=seconds)
        if done.returncode:
            logs = self._run("--profile", "*", "logs", "--tail", "20", seconds=20)
            raise AssertionError(f"{arguments}: {done.stderr}\n{logs.stdout}")
        return done.stdout

    def versions(self, service: str, pattern: str) -> list[str]:
        """The versions in the lines of a service's log that match."""
        return re.findall(pattern, self("logs", "--no-log-prefix", service))

    def down(self) -> None:
        self("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "10")

    def _run(self, *arguments: str, seconds: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._command, *arguments], env=self._env, capture_output=True, text=True, timeout=seconds, check=False
        )


@pytest.fixture
def env_local(tmp_path: Path) -> Path:
    """In the place of the .env.local at the top, which is the user's."""
    return tmp_path / ".env.local"


@pytest.fixture
def project(engine: Any, sidecar_image: str, env_local: Path, tmp_path: Path) -> Iterator[Project]:
    override = tmp_path / "override.yml"  # so that a container finds a Redis of this machine, on Linux, too
    services = "".join(
        f'  {name}:\n    extra_hosts: ["{HOST}:host-gateway"]\n'
        for name in ("sidecar-elasticache", "consumer-elasticache")
    )
    override.write_text(f"services:\n{services}")
    with composed(engine, env_local, override) as project:
        yield project


@contextmanager
def composed(engine: Any, env_local: Path, *overrides: Path, **env: str) -> Iterator[Project]:
    """A project of docker-compose.yml and the overrides; nothing of it is left after."""
    images = {"SIDECAR_IMAGE": "modelready-sidecar:test", "REGISTRY_IMAGE": "modelready-registry:test"}
    project = Project([FILE, *overrides], images | {"ENV_LOCAL": str(env_local), **env})
    try:
        project("version")
    except (OSError, AssertionError) as error:
        missing(f"Compose is not there: {error}")
    try:
        yield project
    finally:
        env_local.touch()  # nothing goes without
        project.down()
    label = {"label": f"com.docker.compose.project={project.name}"}
    assert not engine.containers.list(all=True, filters=label)
    assert not engine.volumes.list(filters=label)
    assert not engine.networks.list(filters=label)


def promoted(project: Project) -> list[str]:
    return project.versions("training", r"promoted fraud (\d+)")


def deployed(project: Project, service: str = "consumer") -> list[str]:
    return project.versions(service, r"deploying fraud (\d+) from")


def test_one_command_and_what_is_promoted_is_deployed_also_what_was_while_redis_was_away(
    engine: Any, valkey: str, project: Project
) -> None:
    project("build", seconds=BUILD_SECONDS)
    project("up", "--wait", "--no-build")
    until(lambda: len(deployed(project)) >= 2, 20, "the consumer gets what the registry promotes")
    project("stop", "redis")
    before = len(promoted(project))
    until(lambda: len(promoted(project)) >= before + 2, 20, "the registry goes on")
    project("kill", "registry")  # between its commit and the publish
    waited = promoted(project)
    project("start", "redis", "registry")
    until(lambda: set(waited) <= set(deployed(project)), 60, "what was committed meanwhile arrives")
    project("stop", "training")
    until(lambda: set(promoted(project)) <= set(deployed(project)), 20, "everything arrives")
    known = promoted(
        project
    )  # the last may be deployed without a line; one under way when Redis stopped may come again
    assert list(dict.fromkeys(deployed(project)))[: len(known)] == known

    token = project("exec", "-T", "redis", "cat", "/data/token").strip()
    assert len(token) == 64
    shown = project("logs") + "".join(
        str(one.attrs)
        for one in engine.containers.list(filters={"label": f"com.docker.compose.project={project.name}"})
    )
    assert project.name in shown
    assert token not in shown

    project("up", "--wait", "--no-build")  # again: the token and the certificates stay
    assert project("exec", "-T", "redis", "cat", "/data/token").strip() == token


@pytest.mark.soak
def test_the_profile_elasticache_has_the_redis_that_env_local_names(
    valkey: str, project: Project, env_local: Path, tmp_path: Path
) -> None:
    conf = tmp_path / "conf"
    conf.mkdir()
    with ContainerServer(valkey, conf) as server:
        env_local.write_text(
            f"REDIS_HOST={HOST}\nREDIS_PORT={server.port}\nREDIS_TLS=false\nREDIS_AUTH_TOKEN={PASSWORD}\n"
        )
        project("build", "registry", seconds=BUILD_SECONDS)
        project("--profile", "elasticache", "up", "--wait", "--no-build", "consumer-elasticache")
        until(lambda: deployed(project, "consumer-elasticache"), 20, "the consumer gets what the registry promotes")
        assert project("ps", "--all", "--services").split() == [
            "consumer-elasticache",
            "registry-elasticache",
            "sidecar-elasticache",
            "training-elasticache",
        ]
        assert server.versions()[0] == f"fraud/{deployed(project, 'consumer-elasticache')[0]}"


@pytest.mark.soak
def test_a_registry_of_one_s_own_takes_the_example_s_place(
    engine: Any, valkey: str, sidecar_image: str, env_local: Path
) -> None:
    """Its image has its own entrypoint and command, and is in no registry."""
    own = f"own-registry:{uuid4().hex[:8]}"
    text = f'FROM {sidecar_image}\nCOPY registry.py /registry.py\nENTRYPOINT ["python3"]\nCMD ["/registry.py"]\n'
    build = ["docker", "build", "--quiet", "--tag", own, "--file", "-", str(ROOT / "docs/examples/python")]
    subprocess.run(build, input=text, text=True, capture_output=True, timeout=BUILD_SECONDS, check=True)
    try:
        with composed(engine, env_local, ROOT / "deploy/compose/own-registry.yml", OWN_REGISTRY=own) as project:
            project("up", "--wait", "--no-build", seconds=180)
            running = set(project("ps", "--services").split())
            assert running == {"redis", "sidecar", "registry", "consumer"}
            until(lambda: project.versions("consumer", r"deploying (\S+ \S+) from"), 60, "the consumer gets its events")
    finally:
        engine.images.remove(own)


@pytest.mark.soak
def test_a_registry_outside_of_docker_reaches_the_sidecar(
    engine: Any, valkey: str, sidecar_image: str, env_local: Path
) -> None:
    with composed(engine, env_local, ROOT / "deploy/compose/host.yml", GRPC_PORT="") as project:
        project("up", "--wait", "--no-build", seconds=180)
        assert set(project("ps", "--services").split()) == {"redis", "sidecar", "consumer"}
        with Publisher(project("port", "sidecar", "50051").strip()) as publisher:
            receipt = publisher.publish(name="fraud", version="7", uri="s3://models/fraud/7/")
        assert receipt.outcome is Outcome.STORED
        until(lambda: deployed(project) == ["7"], 60, "the consumer gets the event")


def test_without_env_local_the_profile_says_so(project: Project, env_local: Path) -> None:
    with pytest.raises(AssertionError, match=re.escape(str(env_local))):
        project("--profile", "elasticache", "config", "--quiet")
    project("config", "--quiet")
