"""One Redis or Valkey server in a container."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.harness.certificates import TLSFiles
from tests.harness.ports import LOOPBACK, PortLease
from tests.harness.waiting import until

PASSWORD = "a-token-of-the-container"
PORT = 6379


class ContainerServer:
    """A server on a loopback port that stays the same over restarts; append-only, fsync always. A context manager.

    `directory` is mounted into it, with the configuration and the certificates. `acl` are lines such as
    `user pub on >password ~* +@all`.
    """

    def __init__(
        self,
        image: str,
        directory: Path,
        *,
        acl: Sequence[str] = (),
        config: Mapping[str, str] | None = None,
        tls: TLSFiles | None = None,
    ) -> None:
        self.host = LOOPBACK
        self._lease = PortLease()
        self.port = self._lease.port
        self._tls = tls
        directives = {
            "requirepass": PASSWORD,
            "masterauth": PASSWORD,
            "appendonly": "yes",
            "appendfsync": "always",
            "save": '""',
            "maxmemory-policy": "noeviction",
            "protected-mode": "no",
            **(_tls_directives(tls) if tls else {"port": str(PORT)}),
            **(config or {}),
        }
        lines = [*acl, *(f"{name} {value}" for name, value in directives.items())]
        (directory / "server.conf").write_text("\n".join(lines) + "\n")
        for path in directory.rglob("*"):  # the images run their servers as users of their own
            path.chmod(0o755 if path.is_dir() else 0o644)
        directory.chmod(0o755)
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - its import is slow

        program = "valkey-server" if image.startswith("valkey/") else "redis-server"
        self._container = (
            DockerContainer(image)
            .with_command([program, "/conf/server.conf"])
            .with_volume_mapping(directory, "/conf", "ro")
            .with_bind_ports(PORT, self.port)
        )

    @property
    def address_in_network(self) -> str:
        """Where other containers reach it."""
        inner = self._container.get_wrapped_container()
        inner.reload()
        return str(next(iter(inner.attrs["NetworkSettings"]["Networks"].values()))["IPAddress"])

    def client(self, password: str = PASSWORD) -> redis.Redis:
        """As the default user."""
        tls = {"ssl": True, "ssl_ca_certs": str(self._tls.ca)} if self._tls else {}
        options: dict[str, Any] = {"retry": Retry(NoBackoff(), 0), "socket_timeout": 2, **tls}
        return redis.Redis(host=self.host, port=self.port, password=password, **options)

    def entries(self) -> list[dict[bytes, bytes]]:
        """All that is in the stream."""
        with self.client() as client:
            return [fields for _, fields in client.xrange("{model-ready}:events")]

    def versions(self) -> list[str]:
        """The versions in the stream's entries, `<model>/<version>`, in their order."""
        return [fields[b"ce_subject"].decode() for fields in self.entries()]

    def kill(self) -> None:
        """SIGKILL to the container, whose disk stays."""
        self._container.get_wrapped_container().kill()

    def start_again(self) -> None:
        self._container.get_wrapped_container().start()
        self._wait()

    def pause(self) -> None:
        self._container.get_wrapped_container().pause()

    def unpause(self) -> None:
        self._container.get_wrapped_container().unpause()

    def __enter__(self) -> Self:
        try:
            self._container.start()
            self._wait()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.stop()
        self._lease.release()

    def _wait(self) -> None:
        def answers() -> bool:
            with self.client() as client:
                return bool(client.ping())

        try:
            until(answers, 20, "the server in the container answers")
        except AssertionError as error:
            logs = b"".join(self._container.get_logs()).decode(errors="replace")
            raise AssertionError(f"{error}\n{logs}") from error


def _tls_directives(tls: TLSFiles) -> dict[str, str]:
    return {
        "port": "0",
        "tls-port": str(PORT),
        "tls-cert-file": f"/conf/{tls.cert.name}",
        "tls-key-file": f"/conf/{tls.key.name}",
        "tls-ca-cert-file": f"/conf/{tls.ca.name}",
        "tls-auth-clients": "no",
    }
