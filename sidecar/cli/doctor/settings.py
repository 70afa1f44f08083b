"""The check of the settings: which are in force, where they came from, and whether a sidecar would start with them."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from modelready.credentials import CredentialSource, credential_source
from modelready.redis.certificates import tls_files
from modelready.redis.env import masked
from sidecar.cli.doctor.report import DEFAULT, Report, Variable
from sidecar.errors import SettingsError
from sidecar.settings import Settings, misspelt

ENVIRONMENT = "environment"


class Given(NamedTuple):
    """What the environment gives the other checks."""

    settings: Settings
    credentials: CredentialSource
    context: ssl.SSLContext | None
    """None: REDIS_TLS is off."""


def check_settings(report: Report, environ: Mapping[str, str]) -> Given | None:
    """Read them as `serve` does. None if `serve` would end with 2."""
    try:
        settings = Settings.from_env(environ)
        given = Given(
            settings,
            credential_source(settings.redis),
            tls_files(settings.redis).current() if settings.redis.tls else None,
        )
    except SettingsError as error:
        report.add("settings-wrong", str(error))
        return None
    source = _token_source(settings)
    report.variables = _variables(settings, environ, source)
    count = sum(variable.source == ENVIRONMENT for variable in report.variables)
    token = f"the Redis token comes from: {source}" if source else "no Redis token is set"
    report.ok("settings", f"{count} variables are set; {token}")
    for sentence in misspelt(environ):
        report.add("settings-unread", sentence)
    return given


def _token_source(settings: Settings) -> str:
    """Where the token comes from; empty where there is none."""
    redis = settings.redis
    if redis.auth_secret_id:
        return f"Secrets Manager, the secret {redis.auth_secret_id}"
    if redis.iam_cluster:
        return f"IAM, signed for {redis.iam_cluster}"
    return ENVIRONMENT if redis.auth_token else ""


def _variables(settings: Settings, environ: Mapping[str, str], token_source: str) -> list[Variable]:
    found = []
    for group in (getattr(settings, setting.name) for setting in fields(settings)):
        for setting in fields(group):
            name = setting.metadata["name"]
            variable = Variable(
                name,
                _shown(getattr(group, setting.name), secret=setting.metadata["secret"]),
                ENVIRONMENT if environ.get(name) else DEFAULT,
            )
            if name == "REDIS_AUTH_TOKEN" and token_source:
                variable = Variable(name, "***", token_source)
            found.append(variable)
    return found


def _shown(value: Any, *, secret: bool) -> str:
    if value in ("", None):
        return ""
    if secret:
        return "***"
    if isinstance(value, bool):
        return str(value).lower()
    return masked(",".join(value) if isinstance(value, tuple) else str(value))
