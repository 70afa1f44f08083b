"""The Helm chart: what it renders, and what it refuses. test_kubernetes.py has what is true of the manifest, too."""

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import chart
from scripts.monitoring import GRAFANA, PROMETHEUS
from tests.deploy.test_grafana import required as promtool_required
from tests.deploy.test_kubernetes import Deployed

EVERYTHING = chart.RENDERED / "everything.yaml"


@pytest.fixture
def helm() -> None:
    if not shutil.which("helm"):
        what = "there is no helm on PATH"
        if os.environ.get("REQUIRE_HELM"):
            pytest.fail(f"{what}; REQUIRE_HELM is set")
        pytest.skip(what)


@cache
def everything() -> Deployed:
    return Deployed(EVERYTHING)


def kind(name: str) -> Any:
    return everything().by_kind[name]


@pytest.mark.parametrize("name", chart.VALUES)
def test_renderings_are_those_of_this_chart(name: str) -> None:
    """Run `make chart` after a change."""
    assert chart.digest() in (chart.RENDERED / f"{name}.yaml").read_text().partition("\n")[0]


@pytest.mark.parametrize("name", chart.VALUES)
def test_helm_renders_it_so(name: str, helm: None) -> None:
    def documents(text: str) -> list[Any]:
        return list(yaml.safe_load_all(text))

    stored = (chart.RENDERED / f"{name}.yaml").read_text()
    assert documents(chart.template(chart.VALUES[name])) == documents(stored)


def test_helm_finds_nothing_to_complain_of(helm: None) -> None:
    chart.helm("lint", "--strict", chart.CHART, *chart.set_values(chart.REQUIRED))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"registry.image": "i"}, "redis.host is required"),
        ({"redis.host": "r"}, "registry.image is required"),
        (chart.REQUIRED | {"spool.existingClaim": "c", "replicas": "2"}, "two sidecars cannot share a spool"),
    ],
)
def test_values_that_cannot_work_are_refused(values: dict[str, str], said: str, helm: None) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        chart.template(values)
    assert said in refused.value.stderr


def test_the_dashboard_is_grafana_s(helm: None) -> None:
    made = yaml.safe_load_all(chart.template(chart.REQUIRED | {"dashboard.enabled": "true"}))
    (dashboard,) = (one for one in made if one and one["kind"] == "ConfigMap")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(dashboard["data"]["model-ready.json"]) == json.loads(GRAFANA.read_text())


def test_secrets_of_the_sidecar_and_volumes_of_the_registry_are_where_they_belong() -> None:
    registry = everything().registry
    assert everything().sidecar["envFrom"] == [{"secretRef": {"name": "sidecar-secrets"}}]
    assert registry["volumeMounts"] == [{"name": "data", "mountPath": "/data"}]
    volumes = everything().deployment["spec"]["template"]["spec"]["volumes"]
    assert [one["name"] for one in volumes] == ["spool", "data"]
    assert "envFrom" not in registry


def test_the_service_monitor_finds_the_metrics_of_the_service() -> None:
    service, monitor = kind("Service"), kind("ServiceMonitor")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    (port,) = (one for one in service["spec"]["ports"] if one["name"] == endpoint["port"])
    (container_port,) = everything().sidecar["ports"]
    assert port["targetPort"] == container_port["name"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    pod = everything().deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= pod.items()


def test_the_rules_are_prometheus_s_for_this_release_alone(tmp_path: Path) -> None:
    spec = kind("PrometheusRule")["spec"]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(spec))
    promtool = promtool_required(shutil.which("promtool"))
    checked = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    plain = yaml.safe_load(PROMETHEUS.read_text())["groups"][0]["rules"]
    rules = spec["groups"][0]["rules"]
    assert [rule["alert"] for rule in rules] == [rule["alert"] for rule in plain]
    for rule, one in zip(rules, plain, strict=True):
        assert 'namespace="models",job="registry"' in rule["expr"]
        assert "__" not in str(rule)
        page = one["annotations"]["runbook_url"].partition("#")[2]
        assert rule["annotations"]["runbook_url"] == f"https://docs.example/operations#{page}"
    (age,) = (rule["expr"] for rule in rules if rule["alert"] == "ModelReadyQueueNotDraining")
    assert age.endswith("> 1800")


def test_a_claim_is_never_mounted_twice() -> None:
    deployment = everything().deployment
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    (spool, _) = deployment["spec"]["template"]["spec"]["volumes"]
    assert spool == {"name": "spool", "persistentVolumeClaim": {"claimName": "spool"}}


def test_ipv6_is_served_and_let_through() -> None:
    assert everything().settings.server.http_listen == "[::]:9464"
    assert kind("Service")["spec"]["ipFamilyPolicy"] == "PreferDualStack"
    egress = kind("NetworkPolicy")["spec"]["egress"]
    assert {"ipBlock": {"cidr": "fd00::/64"}} in egress[1]["to"]
