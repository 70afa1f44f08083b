"""The way to the registry's database: its engine, and where the password of a new connection comes from."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, event
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from modelready.credentials import CredentialSource, StaticCredentials
from modelready.outbox.engine import create
from modelready.redis.aws.iam import RdsCredentials
from modelready.redis.aws.secrets_manager import SecretsManagerCredentials
from sidecar.errors import SettingsError
from sidecar.settings import OutboxSettings

Ask = Callable[[Coroutine[Any, Any, Any]], Any]
"""Runs a coroutine in the event loop, and returns or raises what it does; called in another thread."""

_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}
_REFUSED = ("28000", "28P01")  # SQLSTATE of PostgreSQL
_REFUSED_TEXTS = ("authentication failed", "Access denied")  # where the driver has no code for a login


def connect(settings: OutboxSettings, ask: Ask, *, region: str, endpoint_url: str) -> tuple[Engine, CredentialSource]:
    """The engine, not connected yet, and the source that it asks for a password. Raises SettingsError.

    `region`: AWS_REGION; `endpoint_url`: AWS_ENDPOINT_URL.
    """
    try:
        engine = create(settings.url, **_tls(settings))
    except ModuleNotFoundError as error:
        raise SettingsError(f"OUTBOX_URL needs {error.name}, which the extra 'outbox' brings") from None
    except NoSuchModuleError:
        raise SettingsError("OUTBOX_URL names a driver that SQLAlchemy does not know") from None
    except ArgumentError:
        raise SettingsError("OUTBOX_URL is ***: it must be a URL of SQLAlchemy") from None
    source = _source(settings, engine.url, region or None, endpoint_url or None)
    if settings.password or settings.secret_id or settings.iam:
        _log_in_by(engine, source, ask)
    return engine, source


def _tls(settings: OutboxSettings) -> dict[str, Any]:
    """The driver's arguments. A token of IAM goes in the clear, so that it needs TLS at least."""
    libpq = settings.url.startswith("postgresql")
    if settings.url.startswith("sqlite"):
        return {}
    if settings.tls_ca_file is not None:
        return _verified(settings.tls_ca_file, libpq=libpq)
    if settings.iam:
        return {"sslmode": "require"} if libpq else {"ssl": {"check_hostname": False}}
    return {}


def _verified(authority: Path, *, libpq: bool) -> dict[str, Any]:
    path = str(authority)
    return {"sslmode": "verify-full", "sslrootcert": path} if libpq else {"ssl": {"ca": path, "check_hostname": True}}


def _source(settings: OutboxSettings, url: URL, region: str | None, endpoint_url: str | None) -> CredentialSource:
    username = url.username or None
    if settings.secret_id:
        return SecretsManagerCredentials(
            settings.secret_id,
            key=settings.secret_key,
            username=username,
            region=region,
            endpoint_url=endpoint_url,
            variable="OUTBOX_SECRET_ID",
        )
    if settings.iam:
        port = url.port or _PORTS.get(url.get_backend_name())
        if not (url.host and username and port):
            raise SettingsError("OUTBOX_IAM needs a host and a user in OUTBOX_URL")
        return RdsCredentials(username, url.host, port, region=region)
    return StaticCredentials(username, settings.password.rstrip("\r\n"))


def _log_in_by(engine: Engine, source: CredentialSource, ask: Ask) -> None:
    """Ask the source for each new connection; once more where the server refuses what it gave."""

    @event.listens_for(engine, "do_connect")
    def log_in(dialect: Any, _record: object, arguments: list[Any], options: dict[str, Any]) -> Any:
        for last in (False, True):
            found = ask(source.current())
            login = {"user": found.username} if found.username else {}
            try:
                return dialect.connect(*arguments, **{**options, **login, "password": found.token})
            except dialect.loaded_dbapi.Error as error:
                if last or not _is_refused(error) or not ask(source.refused()):
                    raise
        raise AssertionError


def _is_refused(error: Exception) -> bool:
    return getattr(error, "sqlstate", None) in _REFUSED or any(text in str(error) for text in _REFUSED_TEXTS)
