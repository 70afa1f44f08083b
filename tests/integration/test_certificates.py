"""The local API's certificate files are renewed while it serves: real files, real handshakes, no restart."""

from __future__ import annotations

import os
import shutil
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import grpc
import pytest

from tests.harness.certificates import Authority, TLSFiles
from tests.harness.ports import LOOPBACK, PortLease
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until
from tests.integration.calls import STORED, Caller, Code, Refusal, queued_ids, read_error, to_redis

TAKEN, REFUSED = "new certificate files are in use", "new certificate files cannot be used"


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


class Files:
    """The files that a sidecar reads, and what an operator does to them."""

    def __init__(self, directory: Path, authority: Authority) -> None:
        directory.mkdir()
        self.directory = directory
        self.authority = authority
        self.shown = TLSFiles(directory / "tls.crt", directory / "tls.key", authority.ca)
        self.keys: list[str] = []
        self.copy(self.issue())

    @property
    def env(self) -> dict[str, str]:
        return {"SIDECAR_TLS_CERT_FILE": str(self.shown.cert), "SIDECAR_TLS_KEY_FILE": str(self.shown.key)}

    def issue(self) -> TLSFiles:
        issued = self.authority.server()
        self.keys.append(issued.key.read_text())
        return issued

    def keys_in(self, text: str) -> list[str]:
        """The private keys of which the text holds a line."""
        return [key for key in self.keys if any(line in text for line in key.splitlines()[1:-1])]

    def copy(self, issued: TLSFiles, between: Callable[[], object] = lambda: None) -> None:
        """As `cp` does: into the same file, one after the other."""
        shutil.copyfile(issued.cert, self.shown.cert)
        between()
        shutil.copyfile(issued.key, self.shown.key)

    def block(self) -> None:
        """Opening the certificate waits for a writer, for ever."""
        self.shown.cert.unlink()
        os.mkfifo(self.shown.cert)

    def mount(self, issued: TLSFiles) -> None:
        """As Kubernetes does: the files are links through one link, which is swapped for another at once."""
        data = self.directory / f"..{issued.cert.stem}"
        data.mkdir()
        shutil.copyfile(issued.cert, data / "tls.crt")
        shutil.copyfile(issued.key, data / "tls.key")
        fresh = self.directory / "..data_tmp"
        fresh.symlink_to(data.name)
        fresh.rename(self.directory / "..data")
        for path in (self.shown.cert, self.shown.key):
            if not path.is_symlink():
                path.unlink()
                path.symlink_to(Path("..data") / path.name)


class Newcomers:
    """Clients that make a new connection for each event, until they are stopped. `errors` are what failed."""

    def __init__(self, addresses: list[str], ca: Path) -> None:
        self.acked: list[str] = []
        self.errors: list[Refusal] = []
        self._ca = ca
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._publish, args=(address,)) for address in addresses]

    def _publish(self, address: str) -> None:
        while not self._stop.is_set():
            with secure(address, self._ca) as channel:
                try:
                    self.acked.append(Caller(channel).publish().event_id)
                except grpc.RpcError as error:
                    self.errors.append(read_error(error))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def secure(address: str, ca: Path, mine: TLSFiles | None = None) -> grpc.Channel:
    pair = (mine.key.read_bytes(), mine.cert.read_bytes()) if mine else (None, None)
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(ca.read_bytes(), *pair), options)


def served(address: str) -> str:
    """The certificate that a handshake gets, PEM."""
    host, _, port = address.rpartition(":")
    return ssl.get_server_certificate((host, int(port)), timeout=5)


def shows(address: str, issued: TLSFiles) -> bool:
    return served(address) == issued.cert.read_text()


@pytest.mark.parametrize("way", ["copied", "mounted"])
def test_a_renewal_under_load_fails_no_call(way: str, server: RedisServer, tmp_path: Path) -> None:
    files = Files(tmp_path / "tls", Authority(tmp_path))
    with ExitStack() as stack:
        leases = PortLease(), PortLease()
        addresses = [f"{LOOPBACK}:{lease.port}" for lease in leases]
        for lease in leases:
            stack.callback(lease.release)
        env = to_redis(server, SIDECAR_LISTEN=",".join(addresses), **files.env)
        sidecar = stack.enter_context(SidecarProcess(env, tls=files.shown))
        load = stack.enter_context(Newcomers(addresses * 2, files.authority.ca))
        for _ in range(6):
            issued, before = files.issue(), len(load.acked)
            if way == "mounted":
                files.mount(issued)
            else:
                files.copy(issued, lambda: until(lambda: len(load.acked) > before + 8, 5, "half of it hurts nobody"))  # noqa: B023 - called at once
            before = len(load.acked)
            for address in addresses:
                assert shows(address, issued)
            until(lambda: len(load.acked) > before + 8, 5, "new connections go on")  # noqa: B023 - called at once
        load.__exit__()
        assert load.errors == [], sidecar.logs()
        assert sorted(load.acked) == sorted(queued_ids(server))
        until(lambda: sidecar.logs().count(TAKEN) == 6, 5, "each renewal is in the log")
        assert not files.keys_in(sidecar.logs())


SPOILED: dict[str, tuple[Callable[[Files, TLSFiles], object], str]] = {
    "half of the certificate": (
        lambda files, issued: files.shown.cert.write_bytes(issued.cert.read_bytes()[:400]), "SIDECAR_TLS_CERT_FILE is",
    ),
    "another's key": (lambda files, issued: shutil.copyfile(issued.cert, files.shown.cert), "(KEY_VALUES_MISMATCH)"),
    "an empty key": (lambda files, _: files.shown.key.write_bytes(b""), "SIDECAR_TLS_KEY_FILE its private key"),
    "a FIFO": (lambda files, _: files.block(), "is no file"),
    "no key": (lambda files, _: files.shown.key.unlink(), "SIDECAR_TLS_KEY_FILE is"),
    "no directory": (lambda files, _: files.directory.rename(files.directory.with_suffix(".away")), "No such file"),
}  # fmt: skip


def test_files_that_cannot_be_used_leave_those_before_in_use(server: RedisServer, tmp_path: Path) -> None:
    files = Files(tmp_path / "tls", Authority(tmp_path))
    with SidecarProcess(to_redis(server, **files.env), tls=files.shown) as sidecar:
        for times, (kind, (spoil, reason)) in enumerate(SPOILED.items(), 1):
            before, issued, said = files.shown.cert.read_text(), files.issue(), len(sidecar.logs())
            spoil(files, issued)
            assert {served(sidecar.address) for _ in range(5)} == {before}, kind
            with secure(sidecar.address, files.authority.ca) as channel:
                assert Caller(channel).publish().outcome == STORED
            until(lambda: REFUSED in sidecar.logs()[said:], 5, "it is in the log")  # noqa: B023 - called at once
            warnings = [line for line in sidecar.logs()[said:].splitlines() if REFUSED in line]
            assert len(warnings) == 1, f"{kind}: said once, not at each handshake"
            assert reason in warnings[0]
            if not files.directory.exists():
                files.directory.with_suffix(".away").rename(files.directory)
            if files.shown.cert.is_fifo():
                files.shown.cert.unlink()
            files.copy(issued)
            assert shows(sidecar.address, issued)
            until(lambda: sidecar.logs().count(TAKEN) == times, 5, "the log says so")  # noqa: B023 - called at once
        assert not files.keys_in(sidecar.logs())


def test_what_was_away_for_a_while_and_comes_back_is_no_news(server: RedisServer, tmp_path: Path) -> None:
    files = Files(tmp_path / "tls", Authority(tmp_path))
    before, aside = files.shown.cert.read_text(), tmp_path / "aside"
    with SidecarProcess(to_redis(server, **files.env), tls=files.shown) as sidecar:
        for times in (1, 2):
            files.shown.key.rename(aside)
            assert served(sidecar.address) == before
            until(lambda: sidecar.logs().count(REFUSED) == times, 5, "the log says so")  # noqa: B023 - called at once
            aside.rename(files.shown.key)
            assert served(sidecar.address) == before
        assert TAKEN not in sidecar.logs()


def test_a_new_authority_of_clients_counts_for_new_connections(server: RedisServer, tmp_path: Path) -> None:
    files, trusted = Files(tmp_path / "tls", Authority(tmp_path)), tmp_path / "clients.pem"
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    of_old, of_new, probe = old.client(), new.client(), files.authority.client()

    def accepted(mine: TLSFiles) -> bool:
        with secure(sidecar.address, files.authority.ca, mine) as channel:
            try:
                return Caller(channel).publish(timeout=3).outcome == STORED
            except grpc.RpcError as error:
                if read_error(error).code is Code.UNAVAILABLE:
                    return False
                raise

    def trust(*authorities: Authority) -> None:
        trusted.write_bytes(b"".join(each.ca.read_bytes() for each in (files.authority, *authorities)))

    trust(old)
    env = to_redis(server, SIDECAR_TLS_CLIENT_CA_FILE=str(trusted), **files.env)
    with SidecarProcess(env, tls=probe) as sidecar, secure(sidecar.address, files.authority.ca, of_old) as channel:
        lasting = Caller(channel)
        assert lasting.publish().outcome == STORED
        assert (accepted(of_old), accepted(of_new)) == (True, False)
        trust(old, new)
        assert (accepted(of_old), accepted(of_new)) == (True, True)
        trusted.write_text("no certificate")
        assert (accepted(of_old), accepted(of_new)) == (True, True)
        assert "SIDECAR_TLS_CLIENT_CA_FILE" in next(line for line in sidecar.logs().splitlines() if REFUSED in line)
        trust(new)
        assert (accepted(of_old), accepted(of_new)) == (False, True)
        assert lasting.publish().outcome == STORED  # a client that is connected stays connected
        assert sidecar.logs().count(TAKEN) == 2
