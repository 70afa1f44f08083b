"""A connection to Redis whose network fails: at every byte of its login and of a reply, and while it is idle.

Whatever fails, the error is one of the taxonomy, nothing is left open, and the next call goes through.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import uvloop
from redis import exceptions

from modelready.consumer import Consumer
from modelready.credentials import Credentials, CredentialSource, StaticCredentials
from modelready.redis.aws.iam import IamCredentials
from modelready.redis.aws.secrets_manager import SecretsManagerCredentials
from modelready.redis.cluster import Server
from modelready.redis.connection import Endpoint, NodeConnection, _pack_in_python, pack
from modelready.redis.faults import Kind, cleaned, fault
from modelready.redis.pool import Pool
from modelready.redis.script import Script
from modelready.redis.settings import RedisSettings
from modelready.redis.sockets import Resolver
from sidecar.cli.doctor import examine
from sidecar.errors import AuthFailed, Unavailable
from sidecar.metrics import Metrics
from sidecar.redisstream.connection import RedisConnection, translate
from tests.harness.certificates import Authority
from tests.harness.ports import LOOPBACK
from tests.harness.redis_server import RedisServer, available_binaries
from tests.harness.relay import Relay
from tests.harness.secrecy import keep
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import auntil, patience, until
from tests.integration.calls import PRIMARY, TO_DISK, calling, health, to_redis
from tests.integration.test_redis_tls import TLS_SERVERS

DISCARD = Script("sidecar.redisstream", "lua/discard.lua")
TOKEN = "a-token-that-nobody-may-see"
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=list(LOOPS))
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Any], Any]]:
    """Runs a coroutine in such a loop; nothing may go wrong behind its back."""
    unseen: list[dict[str, Any]] = []

    def run_in_loop(work: Any) -> Any:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.get_loop().set_exception_handler(lambda _, context: unseen.append(context))
            try:
                return runner.run(work)
            finally:
                gc.collect()

    yield run_in_loop
    assert unseen == []


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer(acl=[f"user registry on >{TOKEN} ~* &* +@all"], password=TOKEN) as server:
        yield server


def iam(monkeypatch: pytest.MonkeyPatch) -> CredentialSource:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-real-key")
    return IamCredentials("registry", "cache", region="eu-west-1")


def secret(monkeypatch: pytest.MonkeyPatch) -> CredentialSource:
    source = SecretsManagerCredentials("redis/token", username="registry")
    monkeypatch.setattr(source._secret, "read", lambda _: Credentials("registry", TOKEN))
    return source


SOURCES: dict[str, Callable[[pytest.MonkeyPatch], CredentialSource]] = {
    "token": lambda _: StaticCredentials("registry", TOKEN),
    "secret": secret,
    "IAM": iam,
}


def pool_to(relay: Any, source: CredentialSource | None = None, **settings: Any) -> Pool:
    found = RedisSettings(**{"host": LOOPBACK, "port": relay.port, "tls": False, "timeout": 2.0, **settings})
    return Pool(Server(found, source or StaticCredentials(None, TOKEN), key="{q}", client_name="test"))


async def survives(relay: Relay, pool: Pool, size: tuple[int, int], step: int) -> None:
    """A new connection and a command, with the network cut after each number of bytes of requests and of replies."""
    requests, replies = size
    cuts: list[Callable[[], None]] = [partial(relay.cut_after, count) for count in range(0, requests + 1, step)]
    for softly in (False, True):
        cuts += [partial(relay.cut_reply_after, count, softly=softly) for count in range(0, replies + 1, step)]
    failed = []
    for cut in cuts:
        cut()
        with suppress(Cut):
            await transiently(pool.one("ECHO", "x" * 50))
            failed.append(cut)
        await pool.close()
        relay.cut_after(1 << 30)
        relay.cut_reply_after(None)
        assert await pool.one("ECHO", "here") == b"here"
        await pool.close()
    assert len(failed) < 4, "the last byte of a reply may arrive"


class Cut(Exception):
    """What may happen."""


async def transiently(call: Awaitable[Any]) -> None:
    try:
        await call
    except exceptions.RedisError as error:
        if fault(error).kind is not Kind.TRANSIENT:
            raise
        raise Cut from error


async def size_of(relay: Relay, pool: Pool) -> tuple[int, int]:
    """How many bytes a new connection and that command send and get."""
    before = relay.counters.request_bytes, relay.counters.reply_bytes
    await pool.one("ECHO", "x" * 50)
    return relay.counters.request_bytes - before[0], relay.counters.reply_bytes - before[1]


@pytest.fixture(params=list(SOURCES))
def source(request: pytest.FixtureRequest, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> CredentialSource:
    if request.param == "IAM":  # any token is taken: who signs is not what this is about
        server.execute("ACL", "SETUSER", "registry", "nopass")
    return SOURCES[request.param](monkeypatch)


@pytest.mark.parametrize(
    "tls_step", [0, 13, pytest.param(1, marks=pytest.mark.soak)], ids=["TCP", "TLS", "TLS at every byte"]
)
def test_a_cut_at_every_byte_of_the_login_and_of_a_reply(
    tls_step: int, source: CredentialSource, run: Callable[[Any], Any], server: RedisServer, tmp_path: Path
) -> None:
    certificate = Authority(tmp_path).server()
    with Relay(server.port, tls=certificate if tls_step else None) as relay:
        options = {"tls": True, "tls_ca_file": certificate.ca} if tls_step else {}

        async def fuzz() -> None:
            pool = pool_to(relay, source, **options)
            size = await size_of(relay, pool)
            await pool.close()
            # The token does not matter: the connection stays the same.
            await survives(relay, pool, size, step=(tls_step or 1) if isinstance(source, StaticCredentials) else 13)

        run(fuzz())


@pytest.mark.parametrize("binary", TLS_SERVERS)
def test_a_cut_at_any_byte_of_what_is_encrypted(binary: str, run: Callable[[Any], Any], tmp_path: Path) -> None:
    """The handshake, too."""
    certificate = Authority(tmp_path).server()
    with RedisServer(binary=binary, tls=certificate) as server, Relay(server.port) as relay:

        async def fuzz() -> None:
            pool = pool_to(relay, StaticCredentials(), tls=True, tls_ca_file=certificate.ca)
            size = await size_of(relay, pool)
            await pool.close()
            await survives(relay, pool, size, step=61)

        run(fuzz())


class Slow(StaticCredentials):
    """As a secret that takes a while."""

    def __init__(self, seconds: float, *, refused: bool = False) -> None:
        super().__init__(None, TOKEN)
        self._seconds = seconds
        self._other = refused
        self.asked = 0

    async def current(self) -> Credentials:
        if not self._other:
            await asyncio.sleep(self._seconds)
        return await super().current()

    async def refused(self) -> bool:
        self.asked += 1
        await asyncio.sleep(self._seconds if self._other else 0)
        return self._other


def test_no_connection_waits_for_a_slow_secret(run: Callable[[Any], Any], server: RedisServer) -> None:
    """Nobody can reset it meanwhile."""
    with Relay(server.port) as relay:

        async def use() -> None:
            pool = pool_to(relay, Slow(0.3))
            calling = asyncio.create_task(pool.one("PING"))
            await asyncio.sleep(0.1)
            assert relay.counters.accepted == 0
            assert await calling == b"PONG"
            with pytest.raises(exceptions.TimeoutError):
                await pool_to(relay, Slow(5)).one("PING", timeout=0.2)
            await pool.close()

        run(use())
        assert relay.counters.accepted == 1


def test_a_reset_while_the_secret_is_read_ends_no_sidecar(server: RedisServer) -> None:
    """Secrets Manager takes a connection and says nothing; the event that was acknowledged is still there."""
    with Relay(server.port) as relay, socket.create_server((LOOPBACK, 0)) as hanging:
        aws = {"AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "not-a-real-key"}
        url = f"http://{LOOPBACK}:{hanging.getsockname()[1]}"
        env = {
            "REDIS_HOST": LOOPBACK,
            "REDIS_PORT": str(relay.port),
            "REDIS_AUTH_SECRET_ID": "s",
            "AWS_ENDPOINT_URL": url,
        }
        sidecar = SidecarProcess(env | aws)
        sidecar.start("listening")
        with sidecar, calling(sidecar) as caller:
            for _ in range(10):
                assert caller.publish().outcome == TO_DISK
                relay.cut()
            until(lambda: health(sidecar) == (True, True, False), 3, "it accepts events")
            assert sidecar.running
            assert sidecar.terminate() == 0


# -- what was sent, and what was not


@asynccontextmanager
async def connection_to(
    relay: Any, source: CredentialSource | None = None, timeout: float = 2.0
) -> AsyncIterator[RedisConnection]:
    settings = RedisSettings(host=LOOPBACK, port=relay.port, tls=False, pool_size=2, timeout=timeout)
    connection = RedisConnection(settings, source or StaticCredentials(None, TOKEN), Metrics(), "{q}")
    yield connection
    await connection.close()


def write(connection: RedisConnection) -> Awaitable[Any]:
    return connection.script(DISCARD, ["{q}:dead-letters", "{q}:seen-dead:e"], ["1-1"])


async def failure(attempt: Awaitable[Any]) -> Unavailable:
    with pytest.raises(Unavailable) as raised:
        await attempt
    return raised.value


def test_a_connection_is_probed_while_nothing_is_sent(run: Callable[[Any], Any], server: RedisServer) -> None:
    """By the kernel, so that one whose other end vanished does not look alive until it is used."""

    async def use() -> None:
        node, source = Endpoint(LOOPBACK, server.port), StaticCredentials(None, TOKEN)
        connection = NodeConnection(node, source, Resolver(), timeout=5, client_name="test", db=0)
        await connection.open()
        assert connection._writer is not None
        end = connection._writer.get_extra_info("socket")
        assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        options: dict[int, int] = connection.socket_keepalive_options  # type: ignore[assignment]
        assert options
        assert {option: end.getsockopt(socket.IPPROTO_TCP, option) for option in options} == options
        connection.drop()

    run(use())


def test_only_a_write_that_was_sent_is_ambiguous(run: Callable[[Any], Any], server: RedisServer) -> None:
    async def use(relay: Relay) -> None:
        async with connection_to(relay, timeout=0.5) as connection:
            await connection.warm()
            relay.swallow_replies()
            assert (await failure(write(connection))).reason == "OUTCOME_UNKNOWN"
            assert not (await failure(connection.execute("GET", "key"))).ambiguous
            relay.pass_replies()

            async with connection.pool._turn, connection.pool._turn:  # both connections are in use
                assert not (await failure(write(connection))).ambiguous

            await connection.warm()
            relay.refuse()
            relay.cut()
            await auntil(lambda: not any(idle.is_usable() for idle in connection.pool._idle), 2, "it is noticed")
            for _ in range(3):
                refused = await failure(write(connection))
                assert (refused.ambiguous, refused.reason) == (False, "REDIS_UNAVAILABLE")
            relay.accept()
            relay.stall()  # a connection opens, and its login is not answered
            assert not (await failure(write(connection))).ambiguous
            relay.resume()

    with Relay(server.port) as relay:
        run(use(relay))


def test_a_connection_that_was_reset_while_idle_is_replaced_without_an_error(
    run: Callable[[Any], Any], server: RedisServer
) -> None:
    async def use(relay: Relay) -> None:
        async with connection_to(relay) as connection:
            for _ in range(5):
                await connection.warm()
                relay.cut()
                await asyncio.sleep(0.02)
                await asyncio.gather(*(write(connection) for _ in range(4)))

    with Relay(server.port) as relay:
        run(use(relay))


async def test_a_write_to_a_connection_that_is_closing_was_not_sent(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connection_to(server) as connection:
        await connection.warm()
        for idle in connection.pool._idle:
            assert idle._writer is not None
            idle._writer.close()
            with pytest.raises(exceptions.ConnectionError):
                idle.write(b"PING\r\n")
            monkeypatch.setattr(idle, "is_usable", lambda: True)  # it closes right after the look
        for _ in range(2):
            assert not (await failure(write(connection))).ambiguous


# -- the login


async def test_refused_credentials_log_in_once(server: RedisServer) -> None:
    with Relay(server.port) as relay:
        async with connection_to(relay, StaticCredentials(None, "wrong")) as connection:
            with pytest.raises(AuthFailed):
                await connection.execute("PING")
            assert relay.counters.accepted == 1
            with pytest.raises(AuthFailed):
                await connection.execute("PING")
            assert relay.counters.accepted == 2


async def test_a_slow_look_for_other_credentials_ends_with_the_call(server: RedisServer) -> None:
    source = Slow(5, refused=True)
    source._credentials = Credentials(None, "wrong")
    with Relay(server.port) as relay:
        async with connection_to(relay, source, timeout=0.3) as connection:
            began = time.monotonic()
            with pytest.raises(AuthFailed):
                await connection.execute("PING")
            assert 0.2 < time.monotonic() - began < patience(1)
            assert (source.asked, relay.counters.accepted) == (1, 1)


async def test_other_credentials_are_tried_within_the_same_call(server: RedisServer) -> None:
    class Rotated(StaticCredentials):
        async def refused(self) -> bool:
            self._credentials = Credentials(None, TOKEN)
            return True

    with Relay(server.port) as relay:
        async with connection_to(relay, Rotated(None, "old")) as connection:
            assert await connection.execute("PING") == b"PONG"
            assert relay.counters.accepted == 2


@contextmanager
def answering(reply: bytes) -> Iterator[socket.socket]:
    """A server that says this to whatever is sent, once for each connection."""
    with socket.create_server((LOOPBACK, 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    taken, _ = listener.accept()
                except OSError:
                    return
                with taken:
                    taken.recv(65536)
                    taken.sendall(reply)
                    taken.settimeout(0.2)
                    with suppress(OSError):
                        taken.recv(65536)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (b"+OK\r\n", Kind.SETUP),
        (b"*2\r\n+proto\r\n:3\r\n", Kind.SETUP),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Kind.SETUP),
        (b"-NOPROTO unsupported protocol version\r\n", Kind.SETUP),
        (b"-ERR Client sent AUTH, but no password is set\r\n", Kind.AUTH),
        (b"-WRONGPASS invalid username-password pair\r\n", Kind.AUTH),
        (b"-LOADING Redis is loading the dataset in memory\r\n", Kind.TRANSIENT),
        (b"-ERR max number of clients + cluster connections reached\r\n", Kind.TRANSIENT),
        (b"-MOVED nonsense\r\n", Kind.TRANSIENT),
        (b"", Kind.TRANSIENT),
        (b"%1\r\n+proto\r\n:3", Kind.TRANSIENT),
        (b"\xff\xfe\x00", Kind.SETUP),
    ],
)
def test_what_else_may_answer_a_login(reply: bytes, kind: Kind, run: Callable[[Any], Any]) -> None:
    with answering(reply) as there:
        node = RedisSettings(host=LOOPBACK, port=there.getsockname()[1], tls=False, timeout=1)
        pool = Pool(Server(node, StaticCredentials(None, TOKEN), key="{q}", client_name="test"))
        with pytest.raises(exceptions.RedisError) as raised:
            run(pool.one("PING"))
        assert fault(raised.value).kind is kind, raised.value


@pytest.mark.parametrize(
    "words",
    [
        "no upstream host",
        "upstream failure",
        "ERR Connection timed out",
        "ERR Connection refused",
        "ERR No route to host",
        "ERR Host is down",
        "ERR no server connection avaliable",
    ],
)
async def test_what_a_proxy_says_that_cannot_reach_redis_is_transient(words: str) -> None:
    """And ambiguous, once a write was sent: it may have reached Redis, and the reply the proxy not."""
    for error in (exceptions.ResponseError(words), exceptions.ConnectionError(words)):
        failure = translate(error, sent=True)
        assert isinstance(failure, Unavailable)
        assert failure.ambiguous
    with answering(f"-{words}\r\n".encode()) as there:
        node = RedisSettings(host=LOOPBACK, port=there.getsockname()[1], tls=False, timeout=1)
        connection = RedisConnection(node, StaticCredentials(), Metrics(), "{q}")
        with pytest.raises(Unavailable) as raised:
            await write(connection)
        assert not raised.value.ambiguous


# -- what a server quotes of what we sent


class WithoutHello(RedisServer):
    """As a server or a proxy that does not know the command: its error quotes the arguments, the token among them."""

    def __init__(self, binary: str) -> None:
        super().__init__(binary=binary, password=TOKEN, config={"rename-command": 'HELLO ""'})

    def client(self, **options: Any) -> redis.Redis:
        return super().client(**{"protocol": 2, **options})


@pytest.fixture(params=list(available_binaries().values()), ids=list(available_binaries()))
def without_hello(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with WithoutHello(request.param) as server:
        with socket.create_connection((server.host, server.port)) as plain:
            plain.sendall(f"HELLO 3 AUTH default {TOKEN}\r\n".encode())
            if TOKEN.encode() not in plain.recv(1000):
                pytest.skip("this one does not quote them before a login")
        yield server


def test_a_token_that_a_server_quotes_is_shown_to_nobody(without_hello: RedisServer, tmp_path: Path) -> None:
    keep(TOKEN)
    env = to_redis(without_hello, REDIS_AUTH_TOKEN=TOKEN)
    sidecar = SidecarProcess(env)
    sidecar.start("listening")
    with sidecar, calling(sidecar) as caller:
        refusal = caller.refused(durability=PRIMARY)
        assert "unknown command 'HELLO'" in refusal.text
        until(lambda: "unknown command" in sidecar.get("/readyz")[1], 3, "/readyz says why")
        shown = refusal.text + sidecar.get("/readyz")[1] + str(caller.status()) + sidecar.logs()
    report = examine({**env, "SPOOL_DIR": str(tmp_path)})
    with pytest.raises(exceptions.ResponseError, match="unknown command") as raised:
        Consumer.from_env(group="g", environ=env).run(print)
    shown += report.as_text() + report.as_json() + "".join(traceback.format_exception(raised.value))
    assert TOKEN not in shown
    assert "args beginning" not in shown


@pytest.mark.parametrize(
    ("said", "left"),
    [
        (f"unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `{TOKEN[:9]}", "unknown command `HELLO`"),
        (f"ERR no such user:token as me:{TOKEN}", "ERR no such user:token as me:***"),
        (f"Protocol Error: b'$HELLO {TOKEN[3:]}'", "Protocol Error"),
        ("OOM command not allowed", "OOM command not allowed"),
    ],
)
def test_what_is_quoted_is_cut(said: str, left: str) -> None:
    assert str(cleaned(exceptions.ResponseError(said), TOKEN)) == left


@pytest.mark.parametrize("packed", [pack, lambda commands: b"".join(map(_pack_in_python, commands))])
def test_commands_are_the_same_bytes_with_and_without_hiredis(packed: Callable[[Any], bytes]) -> None:
    command = ("SET", b"k\x00\xff", "\u00e9\n", 5, 2.5, "")
    wanted = b"*6\r\n$3\r\nSET\r\n$3\r\nk\x00\xff\r\n$3\r\n\xc3\xa9\n\r\n$1\r\n5\r\n$3\r\n2.5\r\n$0\r\n\r\n"
    assert packed([command, command]) == wanted * 2
    for refused in (None, "\udcff", ["x"]):
        with pytest.raises((exceptions.DataError, TypeError, UnicodeError)):
            packed([("SET", "key", refused)])
