"""Names: of many addresses some dead, with a dot at the end, and a name server that does not answer."""

from __future__ import annotations

import asyncio
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from redis import exceptions

from modelready.credentials import StaticCredentials
from modelready.redis.cluster import Server
from modelready.redis.pool import Pool
from modelready.redis.settings import read_settings
from tests.harness.certificates import Authority
from tests.harness.names import dead_addresses, own_names
from tests.harness.ports import LOOPBACK
from tests.harness.redis_server import RedisServer
from tests.harness.relay import Relay
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import patience, until
from tests.integration.calls import PRIMARY, TO_DISK, calling, health

HOST = "cache.example.internal"
LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    def run_in_loop(work: Any) -> Any:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(work)

    return run_in_loop


def pool_to(server: Any, **environ: str) -> Pool:
    settings = read_settings({"REDIS_HOST": HOST, "REDIS_PORT": str(server.port), "REDIS_TLS": "false", **environ})
    return Pool(Server(settings, StaticCredentials(), key="{q}", client_name="test"), 4)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    return own_names(monkeypatch)


@pytest.mark.parametrize("dead", [1, 30])
def test_a_dead_address_does_not_hide_the_others(
    dead: int, run: Callable[[Any], Any], names: dict[str, list[str]]
) -> None:
    with RedisServer() as server, dead_addresses(server.port, dead) as nowhere:
        names[HOST] = [*nowhere, LOOPBACK]

        async def use() -> list[float]:
            pool = pool_to(server)
            took = []
            for _ in range(2):
                began = time.monotonic()
                await asyncio.gather(*(pool.one("PING") for _ in range(4)))
                took.append(time.monotonic() - began)
                await pool.renew()
            await pool.close()
            return took

        first, second = run(use())
        assert first < patience(1.5)
        assert second < patience(0.2), "the address that worked is tried first"


def test_all_addresses_dead_is_said_in_time(run: Callable[[Any], Any], names: dict[str, list[str]]) -> None:
    with RedisServer() as server, dead_addresses(server.port) as nowhere:
        names[HOST] = nowhere

        async def use() -> None:
            await pool_to(server, REDIS_TIMEOUT_SECONDS="0.3").one("PING")

        began = time.monotonic()
        with pytest.raises(exceptions.TimeoutError):
            run(use())
        assert time.monotonic() - began < patience(1)


def test_no_socket_is_left_of_the_addresses_that_were_slower(
    run: Callable[[Any], Any], names: dict[str, list[str]]
) -> None:
    with RedisServer() as server, dead_addresses(server.port) as nowhere:
        names[HOST] = [*nowhere, LOOPBACK]

        async def use() -> int:
            pool = pool_to(server)
            await pool.one("PING")
            before = open_files()
            for _ in range(5):
                pool._server._resolver._worked = None
                await pool.renew()
                await pool.one("PING")
            await asyncio.sleep(0)
            return open_files() - before

        assert run(use()) <= 0


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_name_with_a_dot_at_its_end(tmp_path: Path, run: Callable[[Any], Any], names: dict[str, list[str]]) -> None:
    names[f"{HOST}."] = [LOOPBACK]
    certificate = Authority(tmp_path).server(HOST)
    with RedisServer() as server, Relay(server.port, tls=certificate) as relay:
        tls = {"REDIS_HOST": f"{HOST}.", "REDIS_TLS": "true", "REDIS_TLS_CA_FILE": str(certificate.ca)}

        async def use() -> bytes:
            pool = pool_to(relay, **tls)
            answer: bytes = await pool.one("PING")
            await pool.close()
            return answer

        assert run(use()) == b"PONG"


# -- a name server that does not answer: a real one, in a namespace of mounts of its own

MUTE = "127.0.0.53"


@pytest.fixture
def mute_name_server(tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """How to start a command for which all names are asked of a server that takes questions and answers none."""
    resolv = tmp_path / "resolv.conf"
    resolv.write_text(f"nameserver {MUTE}\noptions timeout:30 attempts:5\n")
    prefix = ("unshare", "-rm", "sh", "-c", f'mount --bind {resolv} /etc/resolv.conf && exec "$@"', "sh")
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], check=False).returncode:
        pytest.skip("no namespace of mounts can be had here")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        try:
            mute.bind((MUTE, 53))
        except PermissionError:
            pytest.skip("port 53 needs a right here")
        yield prefix
        assert select.select([mute], [], [], 0)[0], "nobody was asked"


def test_a_stop_does_not_wait_for_a_name_server(mute_name_server: tuple[str, ...]) -> None:
    env = {"REDIS_HOST": HOST, "REDIS_TLS": "false", "REDIS_TIMEOUT_SECONDS": "0.3", "LOG_LEVEL": "debug"}
    sidecar = SidecarProcess(env, command=(*mute_name_server, sys.executable, "-m", "sidecar", "serve"))
    sidecar.start("listening")
    with sidecar, calling(sidecar) as caller:
        until(lambda: health(sidecar) == (True, True, False), 5, "it accepts events")
        for _ in range(10):
            assert caller.publish().outcome == TO_DISK
        caller.refused(durability=PRIMARY, timeout=2)  # many attempts
        assert questions_of(sidecar.pid) == 1
        began = time.monotonic()
        assert sidecar.terminate() == 0
        assert time.monotonic() - began < patience(3)
        assert "never retrieved" not in sidecar.logs()
        assert "Traceback" not in sidecar.logs()


def questions_of(pid: int) -> int:
    """How many look-ups of the process wait for an answer, by the sockets that they ask through."""
    mute = f"{int.from_bytes(socket.inet_aton(MUTE), 'little'):08X}:0035"
    asking = [line for line in Path(f"/proc/{pid}/net/udp").read_text().splitlines() if mute in line.split()[2:3]]
    inodes = {f"socket:[{line.split()[9]}]" for line in asking}
    return sum(str(f.readlink()) in inodes for f in Path(f"/proc/{pid}/fd").iterdir() if f.is_symlink())


@pytest.mark.parametrize("twin", ["modelready.consumer", "modelready.aio"])
def test_a_consumer_s_end_does_not_wait_for_it(twin: str, mute_name_server: tuple[str, ...]) -> None:
    code = f"""
import threading, time, logging, asyncio
logging.basicConfig(level=logging.DEBUG)
from {twin} import Consumer
consumer = Consumer.from_env(group="g", environ={{"REDIS_HOST": {HOST!r}, "REDIS_TLS": "false"}}, block_seconds=0.1)
threading.Timer(2, consumer.stop).start()
work = consumer.run(print)
if work is not None:
    asyncio.run(work)
print("ended")
"""
    began = time.monotonic()
    done = subprocess.run(
        [*mute_name_server, sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "ended\n", done.stderr
    assert time.monotonic() - began < patience(15), done.stderr
    assert "never retrieved" not in done.stderr
