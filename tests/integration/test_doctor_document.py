"""docs/troubleshooting.md says what doctor says: the same checks in the same order, every finding, every reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from modelready.redis.faults import TRANSIENT
from sidecar import errors
from sidecar.cli.doctor.findings import CHECKS, ELSEWHERE, FINDINGS, check_of, status_of, todo

ROOT = Path(__file__).parents[2]
FAULTS = ROOT / "clients" / "python" / "src" / "modelready" / "redis" / "faults.py"
DOCUMENT = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL))
TESTS = "\n".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_doctor_*.py"))
REASONS = dict(re.findall(r"^\| `([A-Z_]+)` \| .+ \| (.+) \|$", SECTIONS["Reasons"], re.MULTILINE))


def test_the_sections_are_the_checks_in_their_order() -> None:
    assert list(SECTIONS) == [*CHECKS, "Any check", "Reasons"]


@pytest.mark.parametrize("check", CHECKS)
def test_a_check_has_its_line(check: str) -> None:
    assert re.search(rf"^    ok       {check:<9} \S.*$", SECTIONS[check], re.MULTILINE)


@pytest.mark.parametrize("finding", FINDINGS)
def test_a_finding_has_its_lines_as_they_are_printed_and_what_they_mean(finding: str) -> None:
    check = check_of(finding)
    section = SECTIONS[check or "Any check"]
    what = re.escape(FINDINGS[finding])
    printed = rf"^    {status_of(finding):<8} {check or '[a-z]+':<9} *\S.*\n {{23}}{what} \[{finding}\]$"
    assert re.search(printed, section, re.MULTILINE)
    assert re.search(rf"^- `{finding}`: \S", section, re.MULTILINE)


@pytest.mark.parametrize("place", ELSEWHERE)
def test_what_to_do_elsewhere_stands_below_the_finding(place: str) -> None:
    for finding, what in ELSEWHERE[place].items():
        explained = re.search(rf"^- `{finding}`: .*\n(  - .*\n)+", DOCUMENT, re.MULTILINE)
        assert explained
        assert f"  - In {place}: {what}\n" in explained[0]


@pytest.mark.parametrize("place", ELSEWHERE)
def test_what_to_do_about_a_login_elsewhere_is_not_about_tasks(place: str) -> None:
    logins = [finding for finding in FINDINGS if check_of(finding) == "auth"]
    assert [finding for finding in logins if "task" in todo(finding, place)] == []


def test_it_names_no_finding_that_is_none() -> None:
    assert set(re.findall(r"^- `([a-z-]+)`:", DOCUMENT, re.MULTILINE)) == FINDINGS.keys()


@pytest.mark.parametrize("finding", FINDINGS)
def test_a_test_brings_about(finding: str) -> None:
    assert f'"{finding}"' in TESTS


def test_what_to_do_is_one_sentence() -> None:
    texts = [*FINDINGS.values(), *(what for texts in ELSEWHERE.values() for what in texts.values())]
    assert [what for what in texts if not re.fullmatch(r"[A-Z].*[^.]\.", what)] == []
    assert [what for what in texts if ". " in what] == []


# -- the reasons of errors


def of_classes(kind: type[errors.RequestError]) -> set[str]:
    return {kind.reason}.union(*(of_classes(below) for below in kind.__subclasses__()))


def test_every_reason_of_an_error_is_there_and_no_other() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in [*(ROOT / "sidecar").rglob("*.py"), FAULTS])
    named = set(re.findall(r'\breason ?= ?"([A-Z_]+)"', code))
    refusals = set(re.findall(r'\brefusal\([\w.]+, "([A-Z_]+)"', code))
    assert {"OUTCOME_UNKNOWN", "REDIS_CERTIFICATE"} <= named
    assert refusals
    transient = {f"REDIS_{code}" for code in TRANSIENT}
    assert set(REASONS) == of_classes(errors.RequestError) | named | refusals | transient


def test_a_reason_leads_to_checks_and_findings_that_exist() -> None:
    pointers = {word for todo in REASONS.values() for word in re.findall(r"`([a-z-]+)`", todo)}
    elsewhere = {"proto-max-bulk-len", "min-replicas-to-write", "tail"}
    assert pointers - elsewhere <= {*CHECKS, *FINDINGS}
