"""The pod of the Helm chart and of the manifest on the Docker engine, as a kubelet would run its containers."""

import http.client
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.test_kubernetes import FILES, Deployed
from tests.docker.conftest import BUILD_SECONDS
from tests.docker.container import PASSWORD, ContainerServer
from tests.docker.sidecar_container import HOST
from tests.harness.ports import LOOPBACK
from tests.harness.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.soak, pytest.mark.timeout(BUILD_SECONDS + 120)]

SECRET = {"redis-token": PASSWORD, "api-token": "a-token-of-the-pod"}


def environment(container: dict[str, Any]) -> dict[str, str]:
    """The variables of a container, with what its secret has."""
    return {
        one["name"]: one["value"] if "value" in one else SECRET[one["valueFrom"]["secretKeyRef"]["key"]]
        for one in container["env"]
    }


def flags(pod: dict[str, Any], container: dict[str, Any]) -> dict[str, Any]:
    """What `docker run` gets for a container of the pod."""
    user, own = pod["securityContext"], container["securityContext"]
    return {
        "detach": True,
        "user": f"{user['runAsUser']}:{user['runAsGroup']}",
        "read_only": own.get("readOnlyRootFilesystem", False),
        "cap_drop": own["capabilities"]["drop"],
        "security_opt": [] if own["allowPrivilegeEscalation"] else ["no-new-privileges"],
        "environment": environment(container),
    }


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.stem != "everything"], ids=lambda path: path.parent.name
)
def test_the_registry_of_a_pod_publishes_and_its_probes_succeed(
    engine: Any, valkey: str, sidecar_image: str, path: Path, tmp_path: Path
) -> None:
    deployed = Deployed(path)
    (mount,) = deployed.sidecar["volumeMounts"]
    volume = engine.volumes.create()
    started: list[Any] = []
    with ContainerServer(valkey, tmp_path) as server:
        given = flags(deployed.pod, deployed.sidecar)
        given["environment"] |= {"REDIS_HOST": HOST, "REDIS_PORT": str(server.port), "REDIS_TLS": "false"}
        try:
            sidecar = engine.containers.run(
                sidecar_image,
                **given,
                extra_hosts={HOST: "host-gateway"},
                ports={"9464/tcp": (LOOPBACK, None)},
                volumes={volume.name: {"bind": mount["mountPath"], "mode": "rw"}},
            )
            started.append(sidecar)

            def probe() -> bool:
                sidecar.reload()
                port = int(sidecar.ports["9464/tcp"][0]["HostPort"])
                connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
                connection.request("GET", deployed.sidecar["startupProbe"]["httpGet"]["path"])
                return connection.getresponse().status == 200

            until(probe, 30, "the startup probe succeeds")
            command = ["--name", "fraud", "--version", "7", "--uri", "s3://models/fraud/7/"]
            registry = engine.containers.run(
                sidecar_image,  # it has a client
                ["publish", *command],
                **flags(deployed.pod, deployed.registry),
                network_mode=f"container:{sidecar.id}",
            )
            started.append(registry)
            assert registry.wait(timeout=60)["StatusCode"] == 0, registry.logs().decode()
            assert server.versions() == ["fraud/7"]
            sidecar.stop(timeout=deployed.pod["terminationGracePeriodSeconds"])
            assert sidecar.wait(timeout=60)["StatusCode"] == 0, sidecar.logs().decode()
        finally:
            for container in reversed(started):
                container.remove(force=True)
            volume.remove(force=True)
