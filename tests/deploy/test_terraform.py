"""The module of Terraform says what the template says. With a terraform binary and its provider it is tried, too.

TERRAFORM_PLUGIN_DIR names a directory that has the provider, as `terraform init -plugin-dir` wants it; without it, some
usual places are looked at.
"""

import re
from pathlib import Path

import pytest

from tests.deploy.template import RESOURCES, ROOT, resolve
from tests.deploy.terraform import ready, terraform

MODULE = ROOT / "deploy/terraform"
MAIN = (MODULE / "main.tf").read_text()
SIDECAR = resolve(RESOURCES["TaskDefinition"]["Properties"])["ContainerDefinitions"][1]


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the module that is ready for commands."""
    return ready(tmp_path_factory.mktemp("terraform"))


def test_the_sidecar_gets_the_same_variables() -> None:
    block = MAIN[MAIN.index("environment = merge(") : MAIN.index("# --- The token")]
    constants = dict(re.findall(r'^\s+([A-Z_]+)\s+= "([^"]*)"$', block, re.MULTILINE))
    template = {one["Name"]: one["Value"] for one in SIDECAR["Environment"]}
    assert set(re.findall(r"^\s+([A-Z_]+)\s+=", block, re.MULTILINE)) == template.keys()
    assert constants == {name: template[name] for name in constants}
    assert len(constants) >= 5


@pytest.mark.parametrize(
    "line",
    [
        f"stopTimeout            = {SIDECAR['StopTimeout']}",
        f'user                   = "{SIDECAR["User"]}"',
        "readonlyRootFilesystem = true",
        'command     = ["CMD", "modelready-sidecar", "health"]',
        'dependsOn        = [{ containerName = "sidecar", condition = "HEALTHY" }]',
        'capabilities = { drop = ["ALL"] }',
        f'spool       = "{SIDECAR["MountPoints"][0]["ContainerPath"]}"',
    ],
)
def test_its_container_is_the_template_s(line: str) -> None:
    assert line in MAIN


def test_it_is_valid(module: Path) -> None:
    terraform(module, "validate")


@pytest.mark.soak  # the provider starts slowly, several times
def test_its_plans_are_as_they_should_be(module: Path) -> None:
    terraform(module, "test")
