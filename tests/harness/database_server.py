"""Real database servers of our own, for what a registry keeps: PostgreSQL, MariaDB; and PgBouncer before the first."""

import getpass
import os
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import create_engine, text

from .child import Child
from .ports import LOOPBACK, PortLease
from .waiting import until


class DatabaseServer(ABC):
    """One server on a free loopback port with a temporary directory. A context manager: started in, gone after."""

    driver: str

    def __init__(self, account: str) -> None:
        self._lease = PortLease()
        self.port = self._lease.port
        self.directory = Path(tempfile.mkdtemp(prefix="database-"))
        # Neither server runs as root.
        self._drop = (
            ["setpriv", f"--reuid={account}", f"--regid={account}", "--clear-groups"] if os.getuid() == 0 else []
        )
        if self._drop:
            shutil.chown(self.directory, account, account)
        self._user = account if self._drop else getpass.getuser()
        self._make()
        self._child = Child([*self._drop, *self._command()], self.directory / "log")

    @property
    def url(self) -> str:
        """SQLAlchemy's, with the driver that is used by default here."""
        return self.url_of(self.driver)

    @abstractmethod
    def url_of(self, driver: str) -> str:
        """SQLAlchemy's, with this driver."""

    @abstractmethod
    def _make(self) -> None: ...

    @abstractmethod
    def _command(self) -> Sequence[str]: ...

    def _run(self, *command: str) -> None:
        command = (*self._drop, *command)
        env = {
            **os.environ,
            "TMPDIR": str(self.directory),
        }  # in one of all, temporary tables of MariaDB's servers collide
        done = subprocess.run(
            command, cwd=self.directory, env=env, capture_output=True, text=True, timeout=100, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    def start(self) -> None:
        engine = create_engine(self.url)

        def answers() -> bool:
            # PostgreSQL does not start while processes of a server that was killed have not ended.
            if not self._child.running:
                self._child.start()
            with engine.connect() as connection:
                return bool(connection.execute(text("SELECT 1")).scalar())

        try:
            until(answers, 30, "the database answers", pause=0.1)
        except AssertionError as error:
            raise AssertionError(self._child.tail()) from error
        finally:
            engine.dispose()

    def kill(self) -> None:
        self._child.kill()

    def close(self) -> None:
        self._child.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
        self._lease.release()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Postgres(DatabaseServer):
    """The newest PostgreSQL of this machine; `find` is None where there is none."""

    driver = "psycopg"

    def __init__(self) -> None:
        super().__init__("postgres")

    @staticmethod
    def find() -> Path | None:
        found = [Path(path).parent for path in [shutil.which("postgres")] if path]
        found += sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        return found[-1] if found else None

    def url_of(self, driver: str) -> str:
        return f"postgresql+{driver}://postgres@{LOOPBACK}:{self.port}/postgres"

    def _make(self) -> None:
        self._run(f"{self.find()}/initdb", "-D", f"{self.directory}/data", "-A", "trust", "-U", "postgres", "-N")

    def _command(self) -> Sequence[str]:
        options = ["-p", str(self.port), "-k", str(self.directory), "-c", f"listen_addresses={LOOPBACK}"]
        return [f"{self.find()}/postgres", "-D", f"{self.directory}/data", *options, "-c", "max_connections=100"]


class PostgresStandby(Postgres):
    """A streaming replica of a primary that answers; until `promote` it is read-only."""

    def __init__(self, primary: Postgres) -> None:
        self._primary = primary
        super().__init__()

    def promote(self) -> None:
        """Make it the primary. The one that was must have ended."""
        with create_engine(self.url, isolation_level="AUTOCOMMIT").connect() as connection:
            assert connection.execute(text("SELECT pg_promote(true, 60)")).scalar()

    def _make(self) -> None:
        at = ["-h", LOOPBACK, "-p", str(self._primary.port), "-U", "postgres"]
        self._run(f"{self.find()}/pg_basebackup", *at, "-D", f"{self.directory}/data", "-R", "-N", "-c", "fast")


class MariaDB(DatabaseServer):
    """The MariaDB of this machine; `find` is None where there is none."""

    driver = "pymysql"

    def __init__(self) -> None:
        super().__init__("mysql")

    @staticmethod
    def find() -> Path | None:
        path = shutil.which("mariadbd")
        return Path(path).parent if path else None

    def url_of(self, driver: str) -> str:
        return f"mysql+{driver}://tests:tests@{LOOPBACK}:{self.port}/registry"

    def _make(self) -> None:
        self._run(
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={self.directory}/data",
            "--auth-root-authentication-method=normal",
            "--innodb-use-native-aio=0",
        )
        (self.directory / "init.sql").write_text(
            "CREATE DATABASE IF NOT EXISTS registry;\n"
            f"CREATE USER IF NOT EXISTS tests@'{LOOPBACK}' IDENTIFIED BY 'tests';\n"
            f"GRANT ALL ON registry.* TO tests@'{LOOPBACK}';\n"
        )

    def _command(self) -> Sequence[str]:
        return [
            "mariadbd", "--no-defaults", f"--datadir={self.directory}/data", f"--port={self.port}",
            f"--bind-address={LOOPBACK}", f"--socket={self.directory}/socket", f"--init-file={self.directory}/init.sql",
            f"--tmpdir={self.directory}", "--skip-name-resolve", "--innodb-buffer-pool-size=32M",
            "--innodb-use-native-aio=0",  # of which a machine has few, for all its servers
        ]  # fmt: skip


class PgBouncer(DatabaseServer):
    """Before a PostgreSQL, with one server connection per transaction."""

    driver = "psycopg"

    def __init__(self, target: DatabaseServer) -> None:
        self._target = target
        super().__init__("postgres")

    @staticmethod
    def find() -> Path | None:
        path = shutil.which("pgbouncer")
        return Path(path).parent if path else None

    def url_of(self, driver: str) -> str:
        return f"postgresql+{driver}://postgres@{LOOPBACK}:{self.port}/postgres"

    def _make(self) -> None:
        (self.directory / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={LOOPBACK} port={self._target.port} user=postgres\n"
            f"[pgbouncer]\nlisten_addr = {LOOPBACK}\nlisten_port = {self.port}\nunix_socket_dir =\n"
            "auth_type = any\npool_mode = transaction\ndefault_pool_size = 2\n"
        )

    def _command(self) -> Sequence[str]:
        return ["pgbouncer", str(self.directory / "pgbouncer.ini")]
