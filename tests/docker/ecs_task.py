"""A task definition of ECS on the Docker engine, as its agent would run it on a machine with `awsvpc`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from tests.docker.sidecar_container import HOST
from tests.harness.waiting import until

NANOSECONDS = 1_000_000_000
AGENT_PORT = 51679
KNOWN = {
    *("name", "essential", "image", "environment", "user", "readonlyRootFilesystem", "linuxParameters", "mountPoints"),
    *("healthCheck", "logConfiguration", "restartPolicy", "dependsOn", "stopTimeout", "portMappings"),
}


def flags(container: Mapping[str, Any], volumes: Mapping[str, str]) -> dict[str, Any]:
    """What `docker run` gets for one container of a task definition; `volumes`: Docker's names of the task's.

    The log driver is not among it, as there is no CloudWatch: Docker keeps the output. Nor is `restartPolicy`, which
    ECS' agent follows and not Docker. `dependsOn` and `stopTimeout` are for who starts and stops the containers.
    """
    unknown = {name for name, value in container.items() if value} - KNOWN
    assert not unknown, f"nobody has said what Docker should make of {unknown}"
    run: dict[str, Any] = {
        "image": container["image"],
        "environment": {one["name"]: one["value"] for one in container["environment"]},
        "read_only": container.get("readonlyRootFilesystem", False),
        "cap_drop": container.get("linuxParameters", {}).get("capabilities", {}).get("drop", []),
        "volumes": {
            volumes[mount["sourceVolume"]]: {"bind": mount["containerPath"], "mode": "rw"}
            for mount in container["mountPoints"]
        },
    }
    if "user" in container:
        run["user"] = container["user"]
    if health := container.get("healthCheck"):
        seconds = {"interval": health["interval"], "timeout": health["timeout"], "start_period": health["startPeriod"]}
        run["healthcheck"] = {
            "test": health["command"],
            "retries": health["retries"],
            **{name: value * NANOSECONDS for name, value in seconds.items()},
        }
    return run


class Task:
    """Runs a task's containers, one after another, each when those that it depends on are as they should be.

    As with `awsvpc`, a pause container comes first, and the others share its network. In it answers what ECS' agent
    answers in a task: the credentials of the task's role and the task's metadata. `role` are those credentials. `more`
    has, by a container's name, flags that no task definition can have. A context manager: all of it is gone after.
    """

    def __init__(
        self,
        engine: Any,
        definition: Sequence[Mapping[str, Any]],
        *,
        role: Mapping[str, str],
        directory: Path,
        more: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self._engine = engine
        self._definition = {container["name"]: container for container in definition}
        self._more = more
        self.agent = directory
        self._volumes: dict[str, Any] = {}
        self._pause: Any = None
        self.containers: dict[str, Any] = {}
        (directory / "task").write_text(json.dumps({"TaskARN": f"arn:aws:ecs:eu-west-1:123456789012:task/{uuid4()}"}))
        (directory / "role").write_text(json.dumps(role))
        for path in (directory, *directory.iterdir()):  # the image's user is another
            path.chmod(0o755 if path.is_dir() else 0o644)

    def start(self, name: str) -> None:
        """Start one container; AssertionError where what it depends on is not there in time."""
        container = self._definition[name]
        for needed in container.get("dependsOn", []):
            assert needed["condition"] == "HEALTHY"
            self.await_health(needed["containerName"])
        self.containers[name] = self._run(name)

    def await_health(self, name: str) -> None:
        """Wait until Docker's own health check calls a container healthy, as long as its definition allows for that."""
        check = self._definition[name]["healthCheck"]
        most = check["startPeriod"] + (check["interval"] + check["timeout"]) * check["retries"]
        try:
            until(lambda: self.state(name)["Health"]["Status"] == "healthy", most, f"{name} is healthy")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs(name)}") from error

    def stop(self, name: str) -> int:
        """SIGTERM, SIGKILL after its `stopTimeout`; the exit code."""
        self.containers[name].stop(timeout=self._definition[name].get("stopTimeout", 30))
        return int(self.containers[name].wait(timeout=10)["StatusCode"])

    def state(self, name: str) -> dict[str, Any]:
        return dict(self.inspect(name)["State"])

    def inspect(self, name: str) -> dict[str, Any]:
        """What `docker inspect` shows."""
        self.containers[name].reload()
        return dict(self.containers[name].attrs)

    def logs(self, name: str) -> str:
        return str(self.containers[name].logs().decode())

    def __enter__(self) -> Self:
        try:
            self._start_pause()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for container in [*reversed(self.containers.values()), self._pause]:
            if container is not None:
                container.remove(force=True, v=True)
        for volume in self._volumes.values():
            volume.remove(force=True)

    def _start_pause(self) -> None:
        used = {mount["sourceVolume"] for one in self._definition.values() for mount in one["mountPoints"]}
        self._volumes = {name: self._engine.volumes.create(f"modelready-test-{uuid4()}") for name in used}
        self._pause = self._engine.containers.run(
            next(iter(self._definition.values()))["image"],
            ["-m", "http.server", "--bind", "127.0.0.1", "--directory", "/agent", str(AGENT_PORT)],
            entrypoint="python3",
            detach=True,
            extra_hosts={HOST: "host-gateway"},
            volumes={str(self.agent): {"bind": "/agent", "mode": "ro"}},
            healthcheck={"test": ["NONE"]},
        )

    def _run(self, name: str) -> Any:
        run = flags(self._definition[name], {name: volume.name for name, volume in self._volumes.items()})
        more = dict(self._more.get(name, {}))
        agent = f"http://127.0.0.1:{AGENT_PORT}"
        run["environment"] |= {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{agent}/role",
            "ECS_CONTAINER_METADATA_URI_V4": agent,
        }
        run["environment"] |= more.pop("environment", {})
        run["volumes"] |= more.pop("volumes", {})
        return self._engine.containers.run(**run, **more, detach=True, network_mode=f"container:{self._pause.id}")
