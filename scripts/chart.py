"""Lints the Helm chart and renders it for the tests, which then need no helm. Run by `make chart`; helm must be there.

Each rendering begins with the digest of what it was made of, so that tests see whether it is stale.
"""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHART = ROOT / "deploy/helm/model-ready"
RENDERED = ROOT / "tests/deploy/rendered"
KUBERNETES = "1.33.0"
REQUIRED = {"redis.host": "redis.example.internal", "registry.image": "registry:1"}
VALUES = {
    "default": REQUIRED,
    "everything": REQUIRED
    | {
        "ipv6": "true",
        "secret.redisTokenKey": "",
        "sidecar.env.AWS_REGION": "eu-west-1",
        "sidecar.env.REDIS_AUTH_SECRET_ID": "redis",
        "sidecar.envFrom[0].secretRef.name": "sidecar-secrets",
        "registry.volumeMounts[0].name": "data",
        "registry.volumeMounts[0].mountPath": "/data",
        "volumes[0].name": "data",
        "volumes[0].persistentVolumeClaim.claimName": "registry",
        "spool.existingClaim": "spool",
        "networkPolicy.redisCidrs[0]": "fd00::/64",
        "serviceMonitor.enabled": "true",
        "serviceMonitor.labels.release": "prometheus",
        "prometheusRule.enabled": "true",
        "prometheusRule.runbookUrl": "https://docs.example/operations",
        "prometheusRule.oldestAgeSeconds": "1800",
    },
}
"""The values of each rendering."""


def digest() -> str:
    """Of the chart's files but the dashboard, and of VALUES."""
    made_of = hashlib.sha256(repr(VALUES).encode())
    for path in sorted(CHART.rglob("*")):
        if path.is_file() and path.name not in ("dashboard.json", "NOTES.txt"):
            made_of.update(path.read_bytes())
    return made_of.hexdigest()


def helm(command: str, *arguments: str | Path) -> str:
    """What helm prints. Raises CalledProcessError, and FileNotFoundError without helm."""
    return subprocess.run(["helm", command, *arguments], check=True, capture_output=True, text=True).stdout


def set_values(values: dict[str, str]) -> list[str]:
    """As helm's arguments."""
    return [part for name, value in values.items() for part in ("--set", f"{name}={value}")]


def template(values: dict[str, str]) -> str:
    """The manifests of a release named registry."""
    where = ("--namespace", "models", "--kube-version", KUBERNETES)
    return helm("template", "registry", CHART, *where, *set_values(values))


def rendering(values: dict[str, str]) -> str:
    """What stands in a file below RENDERED."""
    return f"# Rendered by `make chart` from the chart with the digest {digest()}\n{template(values)}"


def main() -> None:
    """Lint, then write all renderings."""
    helm("lint", "--strict", CHART, *set_values(REQUIRED))
    RENDERED.mkdir(exist_ok=True)
    for name, values in VALUES.items():
        (RENDERED / f"{name}.yaml").write_text(rendering(values))


if __name__ == "__main__":
    main()
