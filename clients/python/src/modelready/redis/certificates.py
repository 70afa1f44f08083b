"""Certificate files, read again when they change: a renewal needs no restart.

A renewal writes two files or three, and not at one moment. What does not fit together is never used: what was read
before stays until it does.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from modelready._thread import in_thread
from modelready.redis.env import SettingsError, file_contents
from modelready.redis.settings import RedisSettings

log = logging.getLogger(__name__)

Loaded = TypeVar("Loaded")
Contents = Mapping[str, bytes]

_CA, _CERT, _KEY = "REDIS_TLS_CA_FILE", "REDIS_TLS_CERT_FILE", "REDIS_TLS_KEY_FILE"
_LOOK_SECONDS = 0.2  # a look takes a few milliseconds where they changed


class CertificateFiles(Generic[Loaded]):
    """What a few files hold, loaded. From any thread."""

    def __init__(self, paths: Mapping[str, Path | None], load: Callable[[Contents], Loaded]) -> None:
        """`paths` by variable, None where it is not set; `load` gets what they hold, and may read them itself.

        Raises SettingsError where they cannot be used now, as `load` must.
        """
        self._paths = {variable: path for variable, path in paths.items() if path}
        self._load = load
        self._lock = threading.Lock()
        self._used = _read(self._paths)
        self._loaded = load(self._used)
        self._refused: Contents | None = None
        self._problem = ""

    def current(self) -> Loaded:
        """What the files hold; while that cannot be used, what they held before. Each change is logged once.

        It compares the contents, since a changed file may keep its time and size, or be behind a changed link. That
        takes about 25 µs, so the event loop may call it, too. Only a network mount that hangs blocks the caller; other
        callers meanwhile get what the files held before.
        """
        if not self._lock.acquire(timeout=_LOOK_SECONDS):
            return self._loaded
        try:
            try:
                found = _read(self._paths)
                if found == self._used:
                    self._refused, self._problem = None, ""
                elif found != self._refused:
                    self._take(found)
            except SettingsError as error:
                if str(error) != self._problem:
                    self._problem = str(error)
                    log.warning("new certificate files cannot be used, those before stay in use: %s", error)
            return self._loaded
        finally:
            self._lock.release()

    def _take(self, found: Contents) -> None:
        """Use them, or raise SettingsError; do neither where they are being written: the next look will tell."""
        try:
            loaded = self._load(found)
        except SettingsError:
            if _read(self._paths) == found:
                self._refused = found
                raise
            return
        if _read(self._paths) == found:
            self._used, self._loaded, self._refused, self._problem = found, loaded, None, ""
            log.info("new certificate files are in use", extra={"files": [str(path) for path in self._paths.values()]})


async def watch(*several: CertificateFiles[Any] | None, seconds: float = 60.0) -> None:
    """Check them regularly, until cancelled: files that cannot be used are logged before a connection needs them.

    In a thread that no stop waits for, as they may lie on a network mount that hangs.
    """
    while True:
        await asyncio.sleep(seconds)
        for files in several:
            if files is not None:
                try:
                    await in_thread("certificate files", files.current)
                except Exception:
                    log.exception("the certificate files could not be looked at")


def tls_files(settings: RedisSettings) -> CertificateFiles[ssl.SSLContext]:
    """What verifies the server's certificate and name, from TLS 1.2 on, and shows ours. Raises SettingsError."""
    cert, key, authority = settings.tls_cert_file, settings.tls_key_file, settings.tls_ca_file

    def load(_: Contents) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=authority)
        except OSError:
            raise SettingsError(f"{_CA} is {str(authority)!r}: it must hold certificates, PEM") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if cert and key:
            load_pair(context, (_CERT, cert), (_KEY, key))
        return context

    return CertificateFiles({_CA: authority, _CERT: cert, _KEY: key}, load)


def load_pair(context: ssl.SSLContext, cert: tuple[str, Path], key: tuple[str, Path]) -> None:
    """Load a certificate with its key, each given as its variable and path. Raises SettingsError."""
    try:
        context.load_cert_chain(cert[1], key[1], password=_no_password)
    except (OSError, ValueError) as error:
        detail = error.reason if isinstance(error, ssl.SSLError) else getattr(error, "strerror", None) or error
        raise SettingsError(
            f"{cert[0]} is {str(cert[1])!r}: it must hold a certificate, PEM, and {key[0]} its private key"
            + (f" ({detail})" if detail else "")
        ) from None


def _no_password() -> NoReturn:
    raise ValueError("the key is encrypted")  # else OpenSSL asks for the password on the terminal


def _read(paths: Mapping[str, Path]) -> Contents:
    """Raises SettingsError."""
    found = {}
    for variable, path in paths.items():
        try:
            found[variable] = file_contents(path)
        except OSError as error:  # noqa: PERF203 - of three files, each names itself
            raise SettingsError(f"{variable} is {str(path)!r}: it cannot be read ({error.strerror})") from None
    return found
