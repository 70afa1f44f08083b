"""The documents say what is true: variables, links, the tests that guarantees name, examples, decisions."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from modelready.redis.faults import TRANSIENT
from scripts import configuration
from sidecar.errors import SettingsError
from sidecar.settings import GROUPS, Settings

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / ".env.example"
SETTINGS = {setting.metadata["name"]: setting for group in GROUPS for setting in fields(group)}


def _files() -> list[Path]:
    """All that is, or is about to be, committed."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


FILES = _files()
DOCUMENTS = [path for path in FILES if path.suffix == ".md"]
CODE = [path for path in FILES if path.suffix in {".py", ".lua", ".proto", ".toml"}]


def _read(path: Path) -> str:
    return path.read_bytes().decode(errors="replace")


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


# -- the variables


@pytest.mark.parametrize("path", configuration.files(), ids=_name)
def test_what_says_the_variables_is_what_is_generated(path: Path) -> None:
    """Run `make docs` after a change."""
    assert _read(path) == configuration.files()[path]


def test_every_variable_is_in_the_document_and_the_example_once_and_no_other() -> None:
    assert re.findall(r"^(\w+)=", _read(EXAMPLE), re.MULTILINE) == list(SETTINGS)
    document, _, others = _read(configuration.DOCUMENT).partition("## Variables of others")
    assert re.findall(r"^\| `(\w+)` \|", document, re.MULTILINE) == list(SETTINGS)
    assert not set(re.findall(r"^- `(\w+)`", others, re.MULTILINE)) & SETTINGS.keys()


def test_the_example_changes_nothing_but_the_host() -> None:
    example = dict(re.findall(r"^(\w+)=(.*)$", _read(EXAMPLE), re.MULTILINE))
    assert Settings.from_env(example) == Settings.from_env({"REDIS_HOST": example["REDIS_HOST"]})


def test_a_variable_may_be_what_the_document_says_and_nothing_beyond() -> None:
    for name, setting in SETTINGS.items():
        accepts, parse = setting.metadata["kind"]
        if bounds := re.search(r"number\b.* from (\S+) to (\S+)$", accepts):
            good, bad = [bounds[1], bounds[2]], [str(int(float(bounds[1])) - 1), str(int(bounds[2]) + 1), "x"]
        elif accepts.startswith(("one of ", "true or ")):
            good, bad = re.split(", | or ", accepts.removeprefix("one of ")), ["x"]
        else:
            continue
        for value in good:
            parse(value)
        for value in bad:
            with pytest.raises(SettingsError, match=re.escape(f"{name} is '{value}': it must be {accepts}")):
                Settings.from_env({"REDIS_HOST": "redis", name: value})


def test_a_section_begins_with_a_variable() -> None:
    assert [section for section, _ in configuration.sections()] == list(configuration.SECTIONS)


# -- links and names


def test_relative_links_lead_somewhere() -> None:
    broken = []
    for document in DOCUMENTS:
        text = re.sub(r"```.*?```", "", _read(document), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            target, _, section = link.partition("#")
            place = document.parent / target if target else document
            if ":" in link or (place.exists() and (place.suffix != ".md" or section in _anchors(place))):
                continue
            broken.append((_name(document), link))
    assert broken == []


@cache
def _anchors(document: Path) -> set[str]:
    """What may stand behind # in a link to it, as GitHub makes it of the headings; and nothing."""
    headings = re.findall(r"^#+ (.+)$", _read(document), re.MULTILINE)
    return {"", *(re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings)}


def test_variables_and_reasons_that_are_named_exist() -> None:
    prefixes = "REDIS|QUEUE|PUBLISH|SPOOL|RETRY|SIDECAR|LOG|METRICS"
    code = "\n".join(_read(path) for path in CODE if _name(path).startswith(("sidecar/", "clients/python/src/")))
    known = SETTINGS.keys() | set(re.findall(r'"([A-Z_]+)"', code)) | {f"REDIS_{code}" for code in TRANSIENT}
    named = {
        (_name(document), word)
        for document in DOCUMENTS
        for word in re.findall(rf"\b(?:{prefixes})_[A-Z_]+\b", _read(document))
    }
    assert [(document, word) for document, word in named if word not in known] == []


def test_make_targets_and_paths_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", _read(ROOT / "Makefile"), re.MULTILINE))
    missing = []
    for document in DOCUMENTS:
        missing += [target for target in re.findall(r"`make ([a-z-]+)", _read(document)) if target not in targets]
        paths = re.findall(
            r"`((?:sidecar|clients|proto|tests|docs|bench|requirements|\.ci)/[\w./-]*)`", _read(document)
        )
        missing += [path for path in paths if not (ROOT / path).exists()]
    assert missing == []


def test_the_map_shows_what_is_in_the_sidecar() -> None:
    """The README's map names each directory and module of `sidecar`, and no other."""
    sidecar = _read(ROOT / "README.md").split("\n    sidecar/\n")[1].split("\n    tests/")[0]
    shown = set(re.findall(r"(?<=[ \n])\w+(?:/(?= {3})|\.py)", sidecar))
    there = {path.relative_to(ROOT / "sidecar").parts for path in FILES if _name(path).startswith("sidecar/")}
    names = {parts[0] + "/" * (len(parts) > 1) for parts in there}
    assert shown == names - {"__init__.py", "__main__.py", "py.typed"}


def test_decisions_that_are_cited_are_there() -> None:
    cited = {number for path in CODE + DOCUMENTS for number in re.findall(r"\badr/(\d{4})", _read(path))}
    assert cited
    assert [number for number in sorted(cited) if not list((ROOT / "docs/adr").glob(f"{number}-*.md"))] == []


def test_a_decision_has_status_context_decision_and_consequences() -> None:
    decisions = sorted((ROOT / "docs/adr").glob("*.md"))
    assert [decision.name[:4] for decision in decisions] == [f"{n:04}" for n in range(1, len(decisions) + 1)]
    for decision in decisions:
        headings = re.findall(r"^#+ (.+)$", _read(decision), re.MULTILINE)
        assert headings[0].startswith(f"{decision.name[:4]} ")
        status = _read(decision).split("\n")[2]
        assert re.match(r"Status: .*\b(accepted|withdrawn|superseded)\b", status), decision.name
        assert headings[1:] == ["Context", "Decision", "Consequences"], decision.name


def test_what_pyproject_names_is_pinned() -> None:
    """Run `make pins UPGRADE=` after a change."""
    project = tomllib.loads(_read(ROOT / "pyproject.toml"))
    groups = project["dependency-groups"]
    groups["dev"] = groups["test"] + [one for one in groups["dev"] if isinstance(one, str)]
    mlflow = groups["test"] + [one for one in groups["mlflow"] if isinstance(one, str)]
    runtime = [one for one in project["project"]["dependencies"] if not one.startswith("modelready==")]
    extras = [one for extra in project["project"]["optional-dependencies"].values() for one in extra]
    wanted = {
        "build": groups["build"],
        "proto": groups["proto"],
        "release": groups["release"],
        "site": groups["site"],
        "runtime": runtime,
        "image": runtime + extras,
        "dev": runtime + extras + groups["dev"],
        "lowest": runtime + extras + groups["test"],
        **{f"mlflow-{which}": runtime + extras + mlflow for which in ("newest", "lowest")},
    }
    for file, packages in wanted.items():
        pinned = set(re.findall(r"^([\w.-]+)(?:\[\w+\])?==", _read(ROOT / f"requirements/{file}.txt"), re.MULTILINE))
        assert {re.split(r"[^\w.-]", package)[0].lower() for package in packages} - pinned == set(), file


# -- guarantees and threats


def _promises(document: str) -> Iterator[tuple[str, list[str]]]:
    """The rows of the tables of a document that end in what shows them, and that: tests, or files of code."""
    shown = False
    for line in _read(ROOT / document).splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        shown = line.startswith("|") and (shown or cells[-1] == "shown by")
        if shown and line.startswith("| ") and cells[-1] != "shown by":
            yield cells[0], re.findall(r"`([^`]+)`", cells[-1])


def _exists(test: str) -> bool:
    file, _, name = test.partition("::")
    path = ROOT / file if file.startswith(("clients/", "sidecar/")) else ROOT / "tests" / file
    return path.is_file() and (name in _functions(path) or (file.startswith("sidecar/") and not name))


@cache
def _functions(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(_read(path)))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("document", ["docs/guarantees.md", "docs/security.md"])
def test_each_promise_names_a_test_that_exists(document: str) -> None:
    promises = list(_promises(document))
    assert len(promises) > 20
    assert [what for what, shown in promises if not shown] == []
    assert [one for _, shown in promises for one in shown if not _exists(one)] == []


# -- examples


def _examples() -> Iterator[tuple[str, str]]:
    for document in DOCUMENTS:
        for number, code in enumerate(re.findall(r"```python\n(.*?)```", _read(document), re.DOTALL), 1):
            yield f"{_name(document)} {number}", code


def test_examples_use_what_is_there() -> None:
    examples = dict(_examples())
    assert "README.md 1" in examples
    for name, code in examples.items():
        imports = [node for node in ast.walk(ast.parse(code, name)) if isinstance(node, ast.ImportFrom)]
        imports = [node for node in imports if node.module != "app"]  # the reader's own
        for module in (node.module or "" for node in imports):
            importlib.import_module(module)
        names = [(node.module or "", alias.name) for node in imports for alias in node.names]
        assert [name for module, name in names if not _is_there(module, name)] == []


def _is_there(module: str, name: str) -> bool:
    return hasattr(importlib.import_module(module), name) or find_spec(f"{module}.{name}") is not None


# -- what must not be in any file


def test_no_registry_s_host_and_no_machine_s_path() -> None:
    hosts = ("python" + "hosted", "pypi" + r"\.org", "registry.npm" + "js", r"proxy\.go" + "lang", "crates" + r"\.io")
    places = (r"(?<![\w.>}$\])])/" + f"{place}/" for place in ("work", "root", "home"))
    forbidden = re.compile("|".join([*hosts, *places]))
    assert [(_name(path), match) for path in FILES for match in forbidden.findall(_read(path))] == []
