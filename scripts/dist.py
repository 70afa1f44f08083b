"""Builds what a release has, in dist/: of each distribution the source, the wheel and the SBOM. Run by `make dist`.

    python -m scripts.dist [--repository URL] [--into DIRECTORY]    # URL: for the distributions' project URLs

Files that git ignores stay out. Each wheel is built from its source distribution. An SBOM, in CycloneDX, lists what pip
installs with the wheel at the versions of requirements/runtime.txt; that of the image has requirements/image.txt.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from scripts.version import version

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
CYCLONEDX = ROOT / ".venv-release/bin/cyclonedx-py"
PINS = ROOT / "requirements/runtime.txt"
DISTRIBUTIONS = ("clients/python", ".")
_URLS = """
[project.urls]
Homepage = "{0}"
Documentation = "{0}/tree/v{1}/docs"
Changelog = "{0}/blob/v{1}/CHANGELOG.md"
Issues = "{0}/issues"
"""


def run(*command: str | Path) -> None:
    """Run a command. Raises CalledProcessError."""
    subprocess.run(command, check=True)


def copy_of_tree(place: Path) -> Path:
    """The files that are, or are about to be, committed."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.split("\0"):
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place / name)
    return place


def build(directory: Path, place: Path, into: Path) -> Path:
    """Build the source distribution, and the wheel from that, into the directory; return the wheel."""
    place.mkdir()
    hatchling: list[str | Path] = [BIN / "python", "-m", "hatchling", "build", "-d", place]
    subprocess.run([*hatchling, "-t", "sdist"], cwd=directory, check=True, capture_output=True)
    (source,) = place.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(place / "source", filter="data")
    (unpacked,) = (place / "source").iterdir()
    subprocess.run([*hatchling, "-t", "wheel"], cwd=unpacked, check=True, capture_output=True)
    (wheel,) = place.glob("*.whl")
    for built in (source, wheel):
        shutil.copy(built, into)
    return into / wheel.name


def main() -> None:
    """Build all of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repository", default="", help="for example https://github.com/you/modelready")
    parser.add_argument("--into", type=Path, default=ROOT / "dist")
    options, number = parser.parse_args(), version()
    shutil.rmtree(options.into, ignore_errors=True)
    options.into.mkdir()
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        tree = copy_of_tree(place / "tree")
        wheels: list[Path] = []
        for distribution in DISTRIBUTIONS:
            project = tree / distribution / "pyproject.toml"
            if options.repository:
                with project.open("a") as file:
                    file.write(_URLS.format(options.repository, number))
            wheels.append(build(project.parent, place / f"built-{len(wheels)}", options.into))
            write_sbom(wheels, project, place / f"environment-{len(wheels)}")
    run(
        *(CYCLONEDX, "requirements", "--pyproject", ROOT / "pyproject.toml", "--output-reproducible"),
        *("-o", options.into / f"modelready_sidecar-{number}-image.cdx.json", ROOT / "requirements/image.txt"),
    )
    print(*sorted(path.name for path in options.into.iterdir()), sep="\n")


def write_sbom(wheels: list[Path], project: Path, environment: Path) -> None:
    """Write the SBOM of the last wheel beside it. `wheels`: it, and those that it needs."""
    run(BIN / "uv", "venv", "--quiet", "--python", BIN / "python", environment)
    python = environment / "bin/python"
    run(BIN / "uv", "pip", "install", "--quiet", "--python", python, "--constraint", PINS, *wheels)
    name = wheels[-1].name.partition("-py3")[0]
    run(
        *(CYCLONEDX, "environment", "--pyproject", project, "--output-reproducible"),
        *("-o", wheels[-1].with_name(f"{name}.cdx.json"), python),
    )


if __name__ == "__main__":
    main()
