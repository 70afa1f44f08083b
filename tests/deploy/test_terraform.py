"""The module of Terraform says what the template says. With a terraform binary and its provider it is tried, too.

TERRAFORM_PLUGIN_DIR names a directory that has the provider, as `terraform init -plugin-dir` wants it.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.template import RESOURCES, ROOT, resolve

MODULE = ROOT / "deploy/terraform"
MAIN = (MODULE / "main.tf").read_text()
SIDECAR = resolve(RESOURCES["TaskDefinition"]["Properties"])["ContainerDefinitions"][1]


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the module that is ready for commands."""
    plugins = os.environ.get("TERRAFORM_PLUGIN_DIR")
    if shutil.which("terraform") is None or not plugins:
        pytest.skip("no terraform on the path, or TERRAFORM_PLUGIN_DIR does not say where its provider is")
    copy = tmp_path_factory.mktemp("terraform") / "module"
    shutil.copytree(MODULE, copy)
    terraform(copy, "init", "-plugin-dir", plugins, "-backend=false", "-input=false")
    return copy


def terraform(where: Path, *arguments: str) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "TF_CLI_CONFIG_FILE"}
    command = ["terraform", *arguments, "-no-color"]
    done = subprocess.run(command, cwd=where, env=environ, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


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
