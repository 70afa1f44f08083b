"""A release has one version, and its distributions say what they are."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import modelready
import sidecar
from scripts import version

ROOT = Path(__file__).parents[2]
PROJECTS = ("pyproject.toml", "clients/python/pyproject.toml")


def project(name: str) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / name).read_text())["project"]
    return found


def test_there_is_one_version() -> None:
    assert version.version() == sidecar.__version__ == modelready.__version__
    assert all(version.versions().values())


def test_a_new_version_is_written_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = version.version()
    for name in version.PLACES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    monkeypatch.setattr(version, "ROOT", tmp_path)
    version.write("7.8.9rc1")
    assert version.version() == "7.8.9rc1"
    (tmp_path / "Dockerfile").write_text((ROOT / "Dockerfile").read_text())
    with pytest.raises(SystemExit, match=f"the versions differ: .*{re.escape(before)}"):
        version.version()


def test_the_changelog_has_a_section_for_the_version_or_says_what_it_will_be() -> None:
    said = (ROOT / "CHANGELOG.md").read_text()
    assert f"## {version.version()}" in said or f"{version.version()} will be" in said


@pytest.mark.parametrize("name", PROJECTS)
def test_a_distribution_says_what_it_is(name: str) -> None:
    has = project(name)
    assert has["license"] == "Apache-2.0"
    assert (ROOT / name).with_name("LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert "Typing :: Typed" in has["classifiers"]
    oldest = has["requires-python"].removeprefix(">=")
    listed = [one.rpartition(" ")[2] for one in has["classifiers"] if "Python :: 3." in one]
    assert listed[0] == oldest
    assert has["readme"] == "README.md"


def test_the_client_has_the_contract_for_generators_of_its_users() -> None:
    for source in (ROOT / "proto/modelready/v1").glob("*.proto"):
        assert (ROOT / "clients/python/src/modelready/v1" / source.name).read_bytes() == source.read_bytes()


def test_editors_show_what_the_contract_says_of_a_field() -> None:
    stub = (ROOT / "clients/python/src/modelready/v1/event_pb2.pyi").read_text()
    assert '    event_id: str\n    """The idempotency key: ' in stub
    assert stub.count('"""') > 2 * 30
