"""The manifest and the chart: Kubernetes' own schemas accept them, and they say what the sidecar and the image say."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from scripts.chart import RENDERED
from sidecar.settings import Settings
from tests.deploy.template import ROOT, SETTINGS

MANIFEST = ROOT / "deploy/kubernetes/model-ready.yaml"
FILES = (MANIFEST, *sorted(RENDERED.glob("*.yaml")))


class Deployed:
    """The documents of a file."""

    def __init__(self, path: Path) -> None:
        self.documents: list[dict[str, Any]] = [one for one in yaml.safe_load_all(path.read_text()) if one]
        self.by_kind = {document["kind"]: document for document in self.documents}
        self.deployment = self.by_kind["Deployment"]
        self.pod = self.deployment["spec"]["template"]["spec"]
        (self.sidecar,) = self.pod["initContainers"]
        (self.registry,) = self.pod["containers"]
        self.environment = {one["name"]: one.get("value", "from-a-secret") for one in self.sidecar["env"]}
        self.settings = Settings.from_env(self.environment)


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def deployed(request: pytest.FixtureRequest) -> Deployed:
    return Deployed(request.param)


@pytest.mark.parametrize("version", ["1.29", "1.33", "1.37"])
def test_kubernetes_schemas_accept_it(deployed: Deployed, version: str) -> None:
    known = [one for one in deployed.documents if not one["apiVersion"].startswith("monitoring.coreos.com/")]
    assert len(known) >= 3
    for document in known:
        kubernetes_validate.validate(document, version, strict=True)


def test_the_schemas_would_notice_a_word_that_is_none(deployed: Deployed) -> None:
    wrong = deployed.deployment | {"spec": deployed.deployment["spec"] | {"replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.33", strict=True)


def test_the_sidecar_starts_before_the_registry_and_stops_after_it(deployed: Deployed) -> None:
    assert deployed.sidecar["restartPolicy"] == "Always"
    assert deployed.sidecar["startupProbe"]["httpGet"]["path"] == "/healthz"
    assert deployed.pod["terminationGracePeriodSeconds"] > deployed.settings.server.shutdown


def test_it_lives_and_is_ready_whatever_redis_does(deployed: Deployed) -> None:
    """By HTTP, which a thread answers at once whatever the load; from the node, so not on loopback."""
    probes = [deployed.sidecar[kind]["httpGet"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")]
    assert probes == [{"path": "/healthz", "port": "metrics"}] * 3
    (port,) = (port["containerPort"] for port in deployed.sidecar["ports"] if port["name"] == "metrics")
    assert deployed.settings.server.http_listen in (f"0.0.0.0:{port}", f"[::]:{port}")


def test_variables_exist_and_secrets_come_from_the_secret(deployed: Deployed) -> None:
    assert deployed.environment.keys() <= SETTINGS.keys()
    assert len(deployed.sidecar["env"]) == len(deployed.environment), "each once"
    secret = {name for name in deployed.environment if SETTINGS[name].metadata["secret"]}
    assert secret == {one["name"] for one in deployed.sidecar["env"] if "valueFrom" in one}
    assert deployed.pod["enableServiceLinks"] is False, "a Service named redis would set REDIS_PORT"


def test_grpc_is_for_the_pod_alone_and_asks_for_a_token(deployed: Deployed) -> None:
    assert deployed.settings.server.listen == ("127.0.0.1:50051",)
    assert deployed.settings.server.api_token
    token = next(one for one in deployed.sidecar["env"] if one["name"] == "SIDECAR_API_TOKEN")
    assert token in deployed.registry["env"]
    ports = [port["port"] for rule in deployed.by_kind["NetworkPolicy"]["spec"]["ingress"] for port in rule["ports"]]
    assert 50051 not in ports


def test_nothing_runs_as_root_or_writes_outside_its_volume(deployed: Deployed) -> None:
    pod, sidecar = deployed.pod, deployed.sidecar
    assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (True, 10001)
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert sidecar["securityContext"]["readOnlyRootFilesystem"] is True
    for container in (sidecar, deployed.registry):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    (mount,) = sidecar["volumeMounts"]
    assert deployed.environment["SPOOL_DIR"].startswith(mount["mountPath"] + "/")
    assert pod["automountServiceAccountToken"] is False
