"""What both publishers need to reach a sidecar, without I/O: credentials, options, metadata."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined] # grpc's partial stubs hide it

Metadata = tuple[tuple[str, str], ...]

_RESOLVERS = ("dns:", "ipv4:", "ipv6:", "unix-abstract:", "vsock:", "xds:")
"""Forms of gRPC's own, which it checks."""
_ADDRESS = re.compile(r"(?:\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[^\s:/@\[\]]+):([0-9]{1,5})")


@dataclass(frozen=True)
class TLS:
    """How to trust the sidecar and, with a certificate and key, to be known to it. All files are PEM.

    Without `ca_file` the system's authorities count. `server_name` is the name in the sidecar's certificate where it
    is not the target's.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files. Raises OSError, and ValueError for a certificate without its key or the other way round."""
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("TLS needs cert_file and key_file together")
        ca, cert, key = (file and Path(file).read_bytes() for file in (self.ca_file, self.cert_file, self.key_file))
        return grpc.ssl_channel_credentials(ca or None, key or None, cert or None)


def checked_address(target: object) -> str:
    """The address. Raises TypeError or ValueError, which says what it may be, for one that no sidecar can have."""
    if isinstance(target, str):
        if target.startswith("unix:"):
            is_good = bool(target.removeprefix("unix:").strip("/"))
        else:
            found = _ADDRESS.fullmatch(target)
            is_good = target.startswith(_RESOLVERS) or bool(found and 1 <= int(found[1]) <= 65535)
        if is_good:
            return target
    may_be = "it may be host:port, such as 127.0.0.1:50051 or [::1]:50051, or unix:/path"
    kind = ValueError if isinstance(target, str) else TypeError
    shown = re.sub(r"(?s).*@", "***@", target) if isinstance(target, str) else target  # a URL may hold a password
    raise kind(f"the sidecar's address is {shown!r}{_what_is_wrong(target)}: {may_be}")


def _what_is_wrong(target: object) -> str:
    if not isinstance(target, str):
        return ""
    if "://" in target:
        return ", with a scheme"
    return "" if not target or re.search(r":\d*$", target) else ", without a port"


def checked_tls(tls: object) -> TLS | None:
    """It. Raises TypeError, which says what it may be."""
    if tls is None or isinstance(tls, TLS):
        return tls
    raise TypeError(
        f"tls is {tls!r}: it may be TLS(), which trusts the system's authorities, TLS(ca_file=...), or None for none"
    )


def checked_seconds(name: str, seconds: object) -> float:
    """It. Raises TypeError, and ValueError for what is no time."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{name} is {seconds!r}: it may be a number of seconds")
    if math.isnan(seconds):
        raise ValueError(f"{name} is {seconds!r}: it may be a number of seconds")
    return seconds


def check_gevent() -> None:
    """Raises RuntimeError where gevent has patched the threads and grpc does not know it.

    There a thread that reads a stream never lets the others run: not even a time limit ends that.
    """
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey and monkey.is_module_patched("threading") and not getattr(cygrpc, "g_gevent_activated", True):
        raise RuntimeError(
            "gevent has patched this process, and publish_many would hang: call grpc.experimental.gevent.init_gevent() "
            "after patching and before the first use of a Publisher"
        )


def channel_options(tls: TLS | None) -> list[tuple[str, str | int]]:
    """The channel's options: back within a second when the sidecar is, and never through a proxy.

    A connection whose packets vanish is given up 5 seconds after a ping; while nothing is called it is pinged every
    10 seconds, so that the next call does not find it dead. The sidecar takes a ping every 5 seconds.
    """
    options: list[tuple[str, str | int]] = [
        ("grpc.enable_http_proxy", 0),  # the sidecar is a neighbour; http_proxy is for the world outside
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1000),  # how long one attempt to connect may take
        ("grpc.max_reconnect_backoff_ms", 500),
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        (
            "grpc.http2.ping_timeout_ms",
            5_000,
        ),  # else 60 s: where the other host's kernel still takes bytes, this one counts
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),  # no limit
    ]
    if tls and tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options


def call_metadata(token: str | None) -> Metadata:
    """The metadata of each call. Raises ValueError, without the token, for one that no header can carry."""
    if token is None:
        return ()
    if not isinstance(token, str):
        raise TypeError(f"the token is a {type(token).__name__}: it may be text, or None for none")
    if not token or not all("!" <= character <= "~" for character in token):
        raise ValueError("the token must be visible ASCII, without blanks or a line end")
    return (("authorization", f"Bearer {token}"),)
