"""The papers say what is true: variables, links, the tests that guarantees name, examples, decisions."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sidecar.settings import GROUPS, Settings
from sidecar.storage.redis_errors import _TRANSIENT

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / ".env.example"
SETTINGS = {setting.metadata["name"]: setting for group in GROUPS for setting in fields(group)}


def _files() -> list[Path]:
    """All that is, or is about to be, committed."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


FILES = _files()
PAPERS = [path for path in FILES if path.suffix == ".md"]
CODE = [path for path in FILES if path.suffix in {".py", ".lua", ".in", ".proto", ".toml"}]


def _read(path: Path) -> str:
    return path.read_bytes().decode(errors="replace")


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


# -- .env.example


class Variable(NamedTuple):
    value: str
    comment: str


def _example() -> dict[str, Variable]:
    variables: dict[str, Variable] = {}
    for block in _read(EXAMPLE).split("\n\n"):
        lines = block.strip().splitlines()
        assigned = [line for line in lines if not line.startswith("#")]
        for line in assigned:
            name, _, value = line.partition("=")
            assert name not in variables, f"{name} twice"
            comment = " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))
            variables[name] = Variable(value, comment)
        assert len(assigned) <= 1, f"one comment each: {assigned}"
    return variables


def test_every_variable_is_in_the_example_and_no_other() -> None:
    assert _example().keys() == SETTINGS.keys()


def test_the_example_changes_nothing_but_the_host() -> None:
    example = {name: variable.value for name, variable in _example().items()}
    assert Settings.from_env(example) == Settings.from_env({"REDIS_HOST": example["REDIS_HOST"]})


@pytest.mark.parametrize("name", SETTINGS)
def test_a_variable_s_comment_says_its_default_and_what_it_may_be(name: str) -> None:
    variable, setting = _example()[name], SETTINGS[name]
    assert "Default: " in variable.comment
    said = variable.comment.partition("Default: ")[2]
    assert said.startswith((variable.value or "empty", "none, it must be set"))
    allowed = _allowed(setting.metadata["parse"])
    if name == "SIDECAR_HTTP_LISTEN":  # which may be no unix socket: its group sees to that
        allowed = allowed.partition(" or unix")[0]
    assert allowed in variable.comment
    assert setting.metadata["secret"] == ("Secret." in variable.comment)


def _allowed(parse: Any) -> str:
    """What a variable may be, in the words of the error that a wrong value gets; "" where any text will do."""
    try:
        parse("\n no value of any kind")
    except ValueError as error:
        return str(error).removeprefix("must be ").partition(" (")[0]
    return ""


# -- links and names


def test_relative_links_lead_somewhere() -> None:
    broken = []
    for paper in PAPERS:
        text = re.sub(r"```.*?```", "", _read(paper), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            target = link.partition("#")[0]
            if target and ":" not in target and not (paper.parent / target).exists():
                broken.append((_name(paper), link))
    assert broken == []


def test_variables_and_reasons_that_are_named_exist() -> None:
    prefixes = "REDIS|QUEUE|PUBLISH|SPOOL|RETRY|SIDECAR|LOG|METRICS"
    code = "\n".join(_read(path) for path in CODE if _name(path).startswith("sidecar/"))
    known = SETTINGS.keys() | set(re.findall(r'"([A-Z_]+)"', code)) | {f"REDIS_{code}" for code in _TRANSIENT}
    named = {
        (_name(paper), word) for paper in PAPERS for word in re.findall(rf"\b(?:{prefixes})_[A-Z_]+\b", _read(paper))
    }
    assert [(paper, word) for paper, word in named if word not in known] == []


def test_make_targets_and_paths_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", _read(ROOT / "Makefile"), re.MULTILINE))
    missing = []
    for paper in PAPERS:
        missing += [target for target in re.findall(r"`make ([a-z-]+)", _read(paper)) if target not in targets]
        paths = re.findall(r"`((?:sidecar|clients|proto|tests|docs|bench|requirements|\.ci)/[\w./-]*)`", _read(paper))
        missing += [path for path in paths if not (ROOT / path).exists()]
    assert missing == []


def test_decisions_that_are_cited_are_there() -> None:
    cited = {number for path in CODE + PAPERS for number in re.findall(r"\badr/(\d{4})", _read(path))}
    assert cited
    assert [number for number in sorted(cited) if not list((ROOT / "docs/adr").glob(f"{number}-*.md"))] == []


def test_a_decision_has_context_decision_and_consequences() -> None:
    decisions = sorted((ROOT / "docs/adr").glob("*.md"))
    assert [decision.name[:4] for decision in decisions] == [f"{n:04}" for n in range(1, len(decisions) + 1)]
    for decision in decisions:
        headings = re.findall(r"^#+ (.+)$", _read(decision), re.MULTILINE)
        assert headings[0].startswith(f"{decision.name[:4]} ")
        assert headings[1:] == ["Context", "Decision", "Consequences"], decision.name


# -- guarantees


def _guarantees() -> Iterator[tuple[str, list[str]]]:
    """The rows of the tables of docs/guarantees.md that end in tests, and those tests."""
    for line in _read(ROOT / "docs/guarantees.md").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| ") and cells[-1] != "shown by":
            yield cells[0], re.findall(r"`([^`]+)`", cells[-1])


def _exists(test: str) -> bool:
    file, _, name = test.partition("::")
    path = ROOT / file if file.startswith("clients/") else ROOT / "tests" / file
    if not path.is_file():
        return False
    tree = ast.parse(_read(path))
    return name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_each_guarantee_names_a_test_that_exists() -> None:
    guarantees = list(_guarantees())
    assert len(guarantees) > 20
    assert [what for what, tests in guarantees if not tests] == []
    assert [test for _, tests in guarantees for test in tests if not _exists(test)] == []


# -- examples


def _examples() -> Iterator[tuple[str, str]]:
    for paper in PAPERS:
        for number, code in enumerate(re.findall(r"```python\n(.*?)```", _read(paper), re.DOTALL), 1):
            yield f"{_name(paper)} {number}", code


def test_examples_use_what_is_there() -> None:
    examples = dict(_examples())
    assert "README.md 1" in examples
    for name, code in examples.items():
        imports = [node for node in ast.walk(ast.parse(code, name)) if isinstance(node, ast.ImportFrom)]
        for module in (node.module or "" for node in imports):
            importlib.import_module(module)
        names = [(node.module or "", alias.name) for node in imports for alias in node.names]
        assert [name for module, name in names if not hasattr(importlib.import_module(module), name)] == []


# -- what must not be in any file


def test_no_registry_s_host_and_no_machine_s_path() -> None:
    hosts = ("python" + "hosted", "pypi" + r"\.org", "registry.npm" + "js", r"proxy\.go" + "lang", "crates" + r"\.io")
    places = (r"(?<![\w.>}$\])])/" + f"{place}/" for place in ("work", "root", "home"))
    forbidden = re.compile("|".join([*hosts, *places]))
    assert [(_name(path), match) for path in FILES for match in forbidden.findall(_read(path))] == []
