"""What is left of a sidecar that dies holds no secret. The harness looks at whatever else one shows, in every test."""

import os
import signal
import sys

import pytest

from tests.harness.redis_server import RedisServer
from tests.harness.secrecy import keep, shown
from tests.harness.sidecar_process import SidecarProcess
from tests.integration.calls import STORED, calling, to_redis

TOKEN, API_TOKEN, ADMIN_TOKEN = (f"{name}-token-that-nobody-may-see" for name in ("redis", "api", "admin"))


DYING = """
from sidecar import app
from sidecar.cli import main

watch_secrets = app._watch_secrets

def dying(tasks, credentials, connection, tls):
    async def die():
        inside = await credentials.current(), vars(connection), vars(connection.pool), vars(connection.pool._server)
        raise RuntimeError(repr(inside))

    tasks.start("dying", die())
    watch_secrets(tasks, credentials, connection, tls)

app._watch_secrets = dying
raise SystemExit(main.main(["serve"]))
"""


def env_of(server: RedisServer) -> dict[str, str]:
    tokens = {"SIDECAR_API_TOKEN": API_TOKEN, "SIDECAR_ADMIN_TOKEN": ADMIN_TOKEN}
    return to_redis(server, LOG_LEVEL="debug", PYTHONFAULTHANDLER="1", **tokens)


def test_a_crash_shows_where_it_was_and_no_secret() -> None:
    with RedisServer(password=TOKEN) as server, SidecarProcess(env_of(server)) as sidecar:
        with calling(sidecar, API_TOKEN) as caller:
            assert caller.publish().outcome == STORED
        os.kill(sidecar.pid, signal.SIGABRT)
        assert sidecar.wait() == -signal.SIGABRT
        assert "Fatal Python error: Aborted" in shown(sidecar.logs(), "what it wrote")


def test_an_error_that_shows_what_is_inside_shows_no_secret() -> None:
    """The worst that somebody could put into an error's text: all that is near the token."""
    with RedisServer(password=TOKEN) as server:
        sidecar = SidecarProcess(env_of(server), command=[sys.executable, "-c", DYING])
        try:
            sidecar.start(None)
            assert sidecar.wait() == 1
            said = shown(sidecar.logs(), "what it wrote")
        finally:
            sidecar.close()
        assert "the background task dying died" in said
        assert "Credentials(username=None, token=***)" in said


def test_the_search_finds_a_secret_however_it_is_written() -> None:
    secret = 'a secret/of "the search\'s" own'
    keep(secret)
    for text in (
        secret,
        "?token=a%20secret%2Fof%20%22the%20search%27s%22%20own",
        '{"a": "a secret/of \\"the search\'s\\" own"}',
    ):
        with pytest.raises(AssertionError, match="a secret of"):
            shown(f"before {text} behind", "a text")
    assert shown("a secret of nobody", "a text")
