"""The terraform binary with its provider, where both are on the machine."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.template import ROOT

# Below each of them: <registry>/hashicorp/aws, as Terraform lays a mirror out.
PLACES = ("/opt/*", "/usr/local/share/terraform/plugins", "/usr/share/terraform/plugins")


def provider() -> str | None:
    """The directory that has the provider: TERRAFORM_PLUGIN_DIR, or one of PLACES."""
    found = (one for place in PLACES for one in Path("/").glob(f"{place[1:]}/*/hashicorp/aws"))
    return os.environ.get("TERRAFORM_PLUGIN_DIR") or next((str(one.parents[2]) for one in found), None)


def ready(directory: Path) -> Path:
    """A copy of the module in that directory, ready for commands; skips where there is no terraform."""
    plugins = provider()
    if shutil.which("terraform") is None or plugins is None:
        what = "no terraform on the path, or TERRAFORM_PLUGIN_DIR does not say where its provider is"
        if os.environ.get("REQUIRE_TERRAFORM"):
            pytest.fail(f"{what}; REQUIRE_TERRAFORM is set")
        pytest.skip(what)
    for part in ("terraform", "rotation"):
        shutil.copytree(ROOT / "deploy" / part, directory / part, ignore=shutil.ignore_patterns(".terraform*"))
    terraform(directory / "terraform", "init", "-plugin-dir", plugins, "-backend=false", "-input=false")
    return directory / "terraform"


def terraform(where: Path, *arguments: str) -> str:
    """What a command prints; AssertionError where it fails."""
    environ = {name: value for name, value in os.environ.items() if name != "TF_CLI_CONFIG_FILE"}
    command = ["terraform", *arguments, "-no-color"]
    done = subprocess.run(command, cwd=where, env=environ, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
