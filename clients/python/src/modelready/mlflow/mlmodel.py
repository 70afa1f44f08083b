"""Reads MLmodel files, which say what a model needs to run, without keeping a request of the registry waiting."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate  # in Python 3.10 not the built-in one
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.uri import append_to_uri_path

from modelready.mlflow.facts import Described, describe, log_once

MAX_BYTES = 1 << 20
PAUSE_SECONDS = 60.0
"""After a read that took too long nothing is read for this long, so that a slow store costs a request a minute."""
_CACHED = 512


def direct(uri: str) -> str:
    """Where the files are that this server serves as `mlflow-artifacts:/…`; any other place as it is."""
    parts = urlsplit(uri)
    destination = os.environ.get("_MLFLOW_SERVER_ARTIFACT_DESTINATION")
    if parts.scheme != "mlflow-artifacts" or parts.netloc or not destination:
        return uri
    return str(append_to_uri_path(destination, parts.path))


class ModelFiles:
    """Describes models by their MLmodel files; `seconds` is the longest that a caller waits, 0: nothing is read."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._reads: dict[str, Future[Described]] = {}
        self._paused_until = 0.0

    def describe(self, uri: str) -> Described:
        """What the model's file says; nothing where it cannot be read in time. Never raises."""
        read = self._read(uri)
        if read is None:
            return Described()
        try:
            return read.result(self._seconds)
        except TooLate:
            self._paused_until = time.monotonic() + PAUSE_SECONDS
            log_once("an event goes without its model's flavor: %s was not read in %g s", uri, self._seconds)
        except Exception as error:  # noqa: BLE001 - each artifact store has its own
            self._reads.pop(uri, None)
            log_once("an event goes without its model's flavor: %s: %s", uri, error)
        return Described()

    def _read(self, uri: str) -> Future[Described] | None:
        with self._lock:
            read = self._reads.get(uri)
            if (read is None or not read.done()) and (not self._seconds or time.monotonic() < self._paused_until):
                return None
            if read is None:
                while len(self._reads) >= _CACHED:
                    del self._reads[next(iter(self._reads))]
                read = self._reads[uri] = Future()
                # A daemon, since a store that hangs must not keep the server from its end.
                threading.Thread(target=_read_into, args=(uri, read), name="modelready-mlmodel", daemon=True).start()
        return read


def _read_into(uri: str, read: Future[Described]) -> None:
    try:
        with TemporaryDirectory(prefix="modelready-") as directory:
            path = Path(directory, "MLmodel")
            # Not download_artifacts, which lists the directory first.
            get_artifact_repository(direct(uri))._download_file("MLmodel", str(path))  # noqa: SLF001
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"an MLmodel file of more than {MAX_BYTES} bytes")  # noqa: TRY301
            read.set_result(describe(path.read_text(encoding="utf-8")))
    except BaseException as error:  # noqa: BLE001 - the caller gets it
        read.set_exception(error)
