"""Kinds of variables that the sidecar alone has. modelready.redis.env has the others, and reads them."""

from __future__ import annotations

import re

from modelready.redis.env import Kind


def _host_and_port(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535 or value.startswith("unix:"):
        raise ValueError
    return value


def _addresses(value: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in value.split(","))
    return tuple(_socket(part) if part.startswith("unix:/") else _host_and_port(part) for part in parts)


def _socket(value: str) -> str:
    if "%" in value:  # grpc would decode it, and listen somewhere else
        raise ValueError
    return value


class FileMode(int):
    """A file mode; its text is octal."""

    def __str__(self) -> str:
        return f"{self:04o}"


def _file_mode(value: str) -> FileMode:
    if not re.fullmatch(r"0?[67][0-7]{2}", value):  # its owner may always connect, or the health command could not
        raise ValueError
    return FileMode(value, 8)


def _bearer_token(value: str) -> str:
    if value.strip() != value or not (
        value.isascii() and value.isprintable()
    ):  # the only values that gRPC metadata can carry
        raise ValueError
    return value


def _database_url(value: str) -> str:
    if not re.fullmatch(r"(postgresql|mysql|mariadb|sqlite)(\+\w+)?://\S*", value):
        raise ValueError
    return value


MODE = Kind("an octal mode from 0600 to 0777 that begins with 06 or 07", _file_mode)
BEARER = Kind("printable ASCII without blanks at either end", _bearer_token)
DATABASE = Kind("a URL of SQLAlchemy: postgresql://, mysql://, mariadb:// or sqlite://", _database_url)
ADDRESS = Kind("host:port", _host_and_port)
ADDRESSES = Kind("host:port or unix:/absolute/path without %, with a comma between several", _addresses)
