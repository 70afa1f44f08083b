"""How both consumers reach Redis, without I/O: settings from the environment, and which faults pass."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

try:
    import redis
    import redis.asyncio
    import redis.backoff
    import redis.exceptions
    import redis.retry
except ImportError as missing:  # pragma: no cover - tested in an environment of its own
    raise ImportError("the consumer needs redis: pip install 'modelready[consumer]'") from missing

__all__ = [
    "RedisError",
    "check_client",
    "entries_of",
    "is_group_there",
    "is_no_group",
    "is_transient",
    "options_from_env",
    "redis",
]

RedisError = redis.exceptions.RedisError

_TRANSIENT = frozenset(
    (
        "BUSY",
        "CLUSTERDOWN",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "NOREPLICAS",
        "OOM",
        "READONLY",
        "TRYAGAIN",
        "UNBLOCKED",
    )
)
_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def is_transient(error: RedisError) -> bool:
    """Whether a later attempt may succeed with nobody's help."""
    if isinstance(error, (redis.exceptions.AuthenticationError, redis.exceptions.AuthorizationError)):
        return False
    if isinstance(error, (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)):
        return "CERTIFICATE_VERIFY_FAILED" not in str(error)
    return _first_word(error) in _TRANSIENT


def is_no_group(error: RedisError) -> bool:
    """The group, or the stream with it, is gone."""
    return _first_word(error) == "NOGROUP"


def is_group_there(error: RedisError) -> bool:
    """The group that was to be made exists."""
    return _first_word(error) == "BUSYGROUP"


def _first_word(error: RedisError) -> str:
    code = getattr(error, "status_code", None)
    return code or (str(error).split(maxsplit=1) or [""])[0]


def entries_of(reply: Any) -> list[tuple[str, dict[bytes, bytes]]]:
    """The entries in an XREADGROUP reply of one stream; redis-py has three forms of it, by protocol and option."""
    found: list[tuple[str, dict[bytes, bytes]]] = []
    for entries in reply.values() if isinstance(reply, dict) else (entries for _, entries in reply):
        nested = entries and isinstance(entries[0], list)
        found += [(entry_id.decode(), fields) for entry_id, fields in (entries[0] if nested else entries)]
    return found


def check_client(client: Any, block_seconds: float) -> None:
    """Raises ValueError for a client that would lose the replies of a blocking read, or garble events."""
    options = client.connection_pool.connection_kwargs
    timeout = options.get("socket_timeout")
    if timeout is not None and timeout <= block_seconds:
        raise ValueError(f"the client's socket_timeout, {timeout} s, must be above block_seconds, {block_seconds} s")
    if options.get("decode_responses"):
        raise ValueError("the client must have decode_responses=False: events are bytes")


def options_from_env(environ: Mapping[str, str], block_seconds: float) -> dict[str, Any]:
    """The options of a redis client, but for `retry`. Raises ValueError, which names the variable."""
    host = environ.get("REDIS_HOST")
    if not host:
        raise ValueError("REDIS_HOST is not set")
    options: dict[str, Any] = {
        "host": host,
        "port": _integer(environ, "REDIS_PORT", 6379),
        "db": _integer(environ, "REDIS_DB", 0),
        "username": environ.get("REDIS_USERNAME") or None,
        "password": environ.get("REDIS_AUTH_TOKEN") or None,
        "socket_connect_timeout": 5,
        "socket_timeout": block_seconds + 5,
        "protocol": 2,  # RESP3 brings maintenance notifications, with which every connection fails once after a restart
        "driver_info": None,  # CLIENT SETINFO is not in the consumers' least rights
    }
    if _switch(environ, "REDIS_TLS", default=not _is_loopback(host)):
        options["ssl"] = True
        for option, variable in (("ca_certs", "CA_FILE"), ("certfile", "CERT_FILE"), ("keyfile", "KEY_FILE")):
            options[f"ssl_{option}"] = environ.get(f"REDIS_TLS_{variable}") or None
    return options


def _integer(environ: Mapping[str, str], name: str, default: int) -> int:
    value = environ.get(name) or str(default)
    if not value.isdecimal():
        raise ValueError(f"{name} is {value!r}; it must be a whole number")
    return int(value)


def _switch(environ: Mapping[str, str], name: str, *, default: bool) -> bool:
    value = environ.get(name)
    if not value:
        return default
    if value.lower() not in _SWITCH:
        raise ValueError(f"{name} is {value!r}; it may be true or false")
    return _SWITCH[value.lower()]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
