"""Generates the documents of the variables from the settings, where each variable is described once.

python scripts/configuration.py    # writes docs/configuration.md and .env.example, as `make docs` does
"""

from __future__ import annotations

import textwrap
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, NamedTuple

from sidecar.settings import GROUPS

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs/configuration.md"
EXAMPLE = ROOT / ".env.example"
HOST = "redis.example.internal"


class Section(NamedTuple):
    """A section of the documents: its variables are `first` and those up to the next section."""

    first: str
    title: str
    text: str = ""


SECTIONS = (
    Section("REDIS_HOST", "Redis: where it is"),
    Section(
        "REDIS_USERNAME",
        "Redis: who the sidecar is",
        "At most one of `REDIS_AUTH_TOKEN`, `REDIS_AUTH_SECRET_ID` and `REDIS_IAM_CLUSTER`.",
    ),
    Section(
        "REDIS_TLS",
        "Redis: TLS",
        "The server's certificate and host name are always verified. Changed files are read again, for the next"
        " connection. While the new ones cannot be used, the previous ones stay in use and the log says why.",
    ),
    Section("REDIS_POOL_SIZE", "Redis: connections"),
    Section("QUEUE_NAME", "The queue"),
    Section("PUBLISH_DURABILITY", "Publishing"),
    Section("SPOOL_DIR", "The spool"),
    Section(
        "OUTBOX_URL",
        "The outbox",
        "Only for a registry whose outbox this sidecar empties: [registries.md](registries.md). At most one of"
        " `OUTBOX_PASSWORD`, `OUTBOX_SECRET_ID` and `OUTBOX_IAM`.",
    ),
    Section("SIDECAR_LISTEN", "The local API"),
    Section("METRICS_EMF", "Metrics", "`/metrics` of `SIDECAR_HTTP_LISTEN` has all metrics, whatever is set here."),
    Section(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "Tracing",
        "OpenTelemetry's own variables. These turn tracing on or off; the SDK knows many more (`OTEL_SERVICE_NAME`,"
        " `OTEL_TRACES_SAMPLER`, ...): see docs/operations.md. A wrong value is logged as a warning and"
        " does not end the start.",
    ),
    Section("LOG_LEVEL", "Logs", "Logs go to standard error."),
)

EXAMPLE_HEAD = (
    "Every variable of the sidecar with its default; only REDIS_HOST differs. A variable that is not set, or empty, "
    "has its default. A wrong value ends the start with one line that names the variable. `make docs` generates this "
    "file from sidecar/settings.py."
)

DOCUMENT_HEAD = """\
# Configuration

For everyone who sets up a sidecar or a consumer. All settings are environment variables, read once at the start. A
variable that is not set, or empty, has its default. A wrong value ends the start with exit code 2 and a line that
names the variable, its value and the allowed values:

    modelready-sidecar: REDIS_PORT is '6379a': it must be a whole number from 1 to 65535

`modelready-sidecar doctor` shows all variables with their values and where each came from. The value of a **secret**
is never shown, neither there nor in a log or an error. For true and false you may also write yes and no, on and off,
1 and 0. [.env.example](../.env.example) is a file to begin with: it has every variable with its default.

The consumers of [clients/python](../clients/python/README.md) read the variables for the address, the login and TLS
of Redis, `QUEUE_NAME` and those of `QUEUE_LIST`, with the same meaning. The commands read those of the local API.

This document is generated from `sidecar/settings.py`: change it there, then run `make docs`.
"""

DOCUMENT_TAIL = """\
## Combinations that are refused

These end the start in the same way:

- more than one of `REDIS_AUTH_TOKEN`, `REDIS_AUTH_SECRET_ID` and `REDIS_IAM_CLUSTER`;
- `REDIS_IAM_CLUSTER` without `REDIS_USERNAME` or without TLS;
- `REDIS_USERNAME` without a token of any kind;
- a certificate without its key, or a key without its certificate; `SIDECAR_TLS_CLIENT_CA_FILE` without both; a file
  that holds no certificate or no key, or a certificate and a key that do not belong together;
- `REDIS_CLUSTER=true` with a `REDIS_DB` other than 0, or with a `QUEUE_LIST` whose name lacks the queue's hash tag;
- a `QUEUE_LIST` that is one of the queue's own keys;
- `RETRY_MAX_SECONDS` below `RETRY_BASE_SECONDS`;
- more than one of `OUTBOX_PASSWORD`, `OUTBOX_SECRET_ID` and `OUTBOX_IAM`, or one of them without `OUTBOX_URL`;
- an `OUTBOX_URL` without a host or a user, with `OUTBOX_IAM`; one whose driver is not installed.

## Variables of others

ECS sets these. They are not settings of the sidecar.

- `ECS_CONTAINER_METADATA_URI_V4`: the lines of `METRICS_EMF` have the task's id from there.
- `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`: set if the task has a role. The AWS SDK gets the role's credentials from
  there. Elsewhere it looks for credentials as usual (environment, profile, instance).
"""


class Row(NamedTuple):
    """One variable, in words."""

    name: str
    what: str
    values: str
    default: str
    note: str
    secret: bool


def row(setting: Field[Any]) -> Row:
    """Return what the documents say about a setting."""
    said = setting.metadata
    return Row(said["name"], said["doc"], said["kind"].accepts, as_text(setting.default), said["note"], said["secret"])


def as_text(value: Any) -> str:
    """Return a default as the environment would have it; "" where there is none."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.15g}"
    return ",".join(value) if isinstance(value, tuple) else str(value)


def sections() -> list[tuple[Section, list[Row]]]:
    """Return all sections, each with its variables in the order of the settings."""
    starts = {section.first: section for section in SECTIONS}
    found: list[tuple[Section, list[Row]]] = []
    for one in (row(setting) for group in GROUPS for setting in fields(group)):
        if one.name in starts:
            found.append((starts[one.name], []))
        found[-1][1].append(one)
    return found


def example() -> str:
    """Return .env.example."""
    blocks = [_comment(EXAMPLE_HEAD)]
    for section, rows in sections():
        blocks.append(_comment(f"--- {section.title}. {section.text}" if section.text else f"--- {section.title}"))
        for one in rows:
            secret = " Secret." if one.secret else ""
            said = f"{one.what} Values: {one.values}.{secret} Default: {_default(one)}."
            blocks.append(f"{_comment(said)}\n{one.name}={HOST if one.name == 'REDIS_HOST' else one.default}")
    return "\n\n".join(blocks) + "\n"


def document() -> str:
    """Return docs/configuration.md."""
    parts = [DOCUMENT_HEAD]
    for section, rows in sections():
        lines = [f"## {section.title}", "", *([section.text, ""] if section.text else [])]
        lines += ["| variable | what | values | default |", "|---|---|---|---|"]
        for one in rows:
            what = f"{one.what} **Secret.**" if one.secret else one.what
            lines.append(f"| `{one.name}` | {what} | {one.values} | {_default(one)} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join([*parts, DOCUMENT_TAIL])


def files() -> dict[Path, str]:
    """Return the text of each generated file."""
    return {DOCUMENT: document(), EXAMPLE: example()}


def main() -> None:
    """Write the files that differ."""
    for path, text in files().items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"wrote {path.relative_to(ROOT)}")


def _default(one: Row) -> str:
    return ", ".join(filter(None, (one.default or "empty", one.note)))


def _comment(text: str) -> str:
    return textwrap.fill(text, 120, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


if __name__ == "__main__":
    main()
