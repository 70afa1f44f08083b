"""Makes the engine of a relay: one that a database which hangs or vanishes does not hold up for long."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError

CONNECT_SECONDS = 5
SILENT_SECONDS = 30
"""After that time a connection to a host that does not answer any more is given up."""

_DRIVERS = {"postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}
_LIBPQ: dict[str, Any] = {
    "client_encoding": "utf8",  # psycopg returns bytes where the database's is SQL_ASCII
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": SILENT_SECONDS // 2,
    "keepalives_interval": SILENT_SECONDS // 6,
    "keepalives_count": 3,
    "tcp_user_timeout": SILENT_SECONDS * 1000,
}
_ARGUMENTS: dict[str, dict[str, Any]] = {
    # A PgBouncer that pools transactions does not keep the statements that psycopg prepares.
    "psycopg": {**_LIBPQ, "prepare_threshold": None},
    "psycopg2": _LIBPQ,
    "pymysql": {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": SILENT_SECONDS,
        "write_timeout": SILENT_SECONDS,
    },
}


def create(url: str, **arguments: Any) -> Engine:
    """An engine for this URL. Its query precedes `arguments` for the driver, and these precede what stands here.

    Where it names no driver it is psycopg, or PyMySQL, if that is installed. Raises ArgumentError, whose text does not
    hold the URL, and ModuleNotFoundError for a driver that is not installed.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ArgumentError("it is no URL of SQLAlchemy") from None
    parsed = _with_driver(parsed)
    known = {**_ARGUMENTS.get(parsed.get_driver_name(), {}), **arguments}
    chosen = {name: value for name, value in known.items() if name not in parsed.query}
    return create_engine(parsed, connect_args=chosen, pool_pre_ping=True)


def _with_driver(url: URL) -> URL:
    driver = _DRIVERS.get(url.drivername)
    return url.set(drivername=f"{url.drivername}+{driver}") if driver and find_spec(driver) else url
