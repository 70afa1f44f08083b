"""The manifest: Kubernetes' own schemas take it, and it says what the sidecar and the image say."""

from typing import Any

import kubernetes_validate
import pytest
import yaml

from sidecar.settings import Settings
from tests.deploy.template import ROOT, SETTINGS

DOCUMENTS: list[dict[str, Any]] = list(yaml.safe_load_all((ROOT / "deploy/kubernetes/model-ready.yaml").read_text()))
BY_KIND = {document["kind"]: document for document in DOCUMENTS}
POD = BY_KIND["Deployment"]["spec"]["template"]["spec"]
(SIDECAR,) = POD["initContainers"]
(REGISTRY,) = POD["containers"]
ENVIRONMENT = {one["name"]: one.get("value", "from-a-secret") for one in SIDECAR["env"]}


@pytest.mark.parametrize("version", ["1.29", "1.33", "1.37"])
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document["kind"])
def test_kubernetes_schemas_take_it(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


def test_the_schemas_would_notice_a_word_that_is_none() -> None:
    wrong = BY_KIND["Deployment"] | {"spec": BY_KIND["Deployment"]["spec"] | {"replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.33", strict=True)


def test_the_sidecar_starts_before_the_registry_and_stops_after_it() -> None:
    assert SIDECAR["restartPolicy"] == "Always"
    assert SIDECAR["startupProbe"]["httpGet"]["path"] == "/healthz"
    assert POD["terminationGracePeriodSeconds"] > Settings.from_env(ENVIRONMENT).server.shutdown


def test_it_lives_and_is_ready_whatever_redis_does() -> None:
    """By HTTP, which a thread answers at once whatever the load; from the node, so not on loopback."""
    probes = [SIDECAR[kind]["httpGet"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")]
    assert probes == [{"path": "/healthz", "port": "metrics"}] * 3
    (port,) = (port["containerPort"] for port in SIDECAR["ports"] if port["name"] == "metrics")
    assert Settings.from_env(ENVIRONMENT).server.http_listen == f"0.0.0.0:{port}"


def test_variables_exist_and_secrets_come_from_the_secret() -> None:
    assert ENVIRONMENT.keys() <= SETTINGS.keys()
    secret = {name for name in ENVIRONMENT if SETTINGS[name].metadata["secret"]}
    assert secret == {one["name"] for one in SIDECAR["env"] if "valueFrom" in one}
    assert POD["enableServiceLinks"] is False, "a Service named redis would set REDIS_PORT"


def test_grpc_is_for_the_pod_alone_and_asks_for_a_token() -> None:
    settings = Settings.from_env(ENVIRONMENT)
    assert settings.server.listen == ("127.0.0.1:50051",)
    assert settings.server.api_token
    ports = [port["port"] for rule in BY_KIND["NetworkPolicy"]["spec"]["ingress"] for port in rule["ports"]]
    assert 50051 not in ports


def test_nothing_runs_as_root_or_writes_outside_its_volume() -> None:
    assert (POD["securityContext"]["runAsNonRoot"], POD["securityContext"]["runAsUser"]) == (True, 10001)
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert SIDECAR["securityContext"]["readOnlyRootFilesystem"] is True
    for container in (SIDECAR, REGISTRY):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    (mount,) = SIDECAR["volumeMounts"]
    assert ENVIRONMENT["SPOOL_DIR"].startswith(mount["mountPath"] + "/")
    assert POD["automountServiceAccountToken"] is False
