"""What was found, for people and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from typing import Any, NamedTuple

from sidecar.cli.doctor.findings import AWS, CHECKS, FAILURE, OK, SKIPPED, WARNING, check_of, status_of, todo

_COLOURS = {OK: "32", WARNING: "33", FAILURE: "31", SKIPPED: "2"}


DEFAULT = "default"
"""The source of a variable that is not set."""


class Variable(NamedTuple):
    """A setting as it is in force. `value` is masked where it is a secret; `source` says where it came from."""

    name: str
    value: str
    source: str


class Line(NamedTuple):
    """A finding of a check; or that all is well, or why it could not run: without `finding` and `todo`."""

    check: str
    status: str
    found: str
    finding: str = ""
    todo: str = ""


class Report:
    """The lines so far."""

    def __init__(self, place: str = AWS) -> None:
        """`place`: where this runs, which changes what is to do."""
        self._place = place
        self.lines: list[Line] = []
        self.variables: list[Variable] = []

    def ok(self, check: str, found: str) -> None:
        """The check is well."""
        self.lines.append(Line(check, OK, found))

    def add(self, finding: str, found: str, check: str = "") -> None:
        """Add one of FINDINGS; `check` is for those that any check may meet."""
        what = todo(finding, self._place)
        self.lines.append(Line(check_of(finding) or check, status_of(finding), _one_line(found), finding, what))

    def skip(self, check: str, why: str) -> None:
        """The check could not run."""
        self.lines.append(Line(check, SKIPPED, why))

    def failed(self, check: str) -> bool:
        """Whether the check has found a failure."""
        return any(line.check == check and line.status == FAILURE for line in self.lines)

    def complete(self) -> None:
        """Add a line for each check that was skipped, and sort them."""
        # The spool and the outbox are always checked; of the others the last failure is why there are no more.
        alone = ("spool", "outbox")
        failures = [line.check for line in self.lines if line.status == FAILURE and line.check not in alone]
        failed = failures[-1] if failures else "acl"
        done = {line.check for line in self.lines}
        for check in CHECKS:
            if check not in done:
                self.skip(check, f"not tried: {failed} failed")
        self.lines.sort(key=lambda line: CHECKS.index(line.check))

    @property
    def exit_code(self) -> int:
        """0 with warnings at most, 1 with a failure, 2 where the settings are wrong."""
        failed = {line.check for line in self.lines if line.status == FAILURE}
        return 2 if "settings" in failed else int(bool(failed))

    def as_json(self) -> str:
        """The same for programs."""
        document: dict[str, Any] = {
            "exit_code": self.exit_code,
            "checks": [line._asdict() for line in self.lines],
            "variables": [variable._asdict() for variable in self.variables],
        }
        return json.dumps(document, indent=2, ensure_ascii=False)

    def as_text(self, *, colour: bool = False) -> str:
        """A line for each check; below a finding, what to do and its name."""
        said = []
        for line in self.lines:
            status = f"{line.status:<8}"
            if colour:
                status = f"\x1b[{_COLOURS[line.status]}m{status}\x1b[0m"
            said.append(f"{status} {line.check:<9} {line.found}")
            if line.finding:
                said.append(f"{'':<19}{line.todo} [{line.finding}]")
            if line.check == "settings":
                said += [f"{'':<19}{text}" for text in self._variables()]
        counts = Counter(line.status for line in self.lines)
        names = {FAILURE: "failures", WARNING: "warnings", SKIPPED: "skipped"}
        summary = ", ".join(f"{name}: {counts[status]}" for status, name in names.items() if counts[status])
        return "\n".join([*said, "", summary or "all is well"])

    def _variables(self) -> list[str]:
        """A line for each variable that is set, then the defaults of the others unless empty."""
        given = [f"{name}={value} ({source})" for name, value, source in self.variables if source != DEFAULT]
        rest = " ".join(f"{name}={value}" for name, value, source in self.variables if source == DEFAULT and value)
        return given + textwrap.wrap(f"default: {rest}", 100, break_long_words=False) if rest else given


def _one_line(found: str) -> str:
    """A message of a server or of AWS may have many lines, and end with a full stop."""
    return " ".join(found.split())[:500].rstrip(".")
