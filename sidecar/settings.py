"""The settings: read once from the environment at start, each part gets only its own group.

A wrong value raises SettingsError with one line that names the variable, what it was and what it may be. An empty
variable counts as unset. Values of secrets are never in an error, a repr or a log.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, cast

from modelready.entry import ENCODINGS, LIST_FORMATS, Encoding, ListFormat
from modelready.keys import Keys
from sidecar.errors import SettingsError

Parse = Callable[[str], Any]
Group = TypeVar("Group")
GIBIBYTE = 1024**3


def variable(name: str, parse: Parse, default: Any, doc: str, *, secret: bool = False) -> Any:
    """Return a dataclass field that is read from the environment variable `name`."""
    return field(
        default=default, repr=not secret, metadata={"name": name, "parse": parse, "doc": doc, "secret": secret}
    )


def text(value: str) -> str:
    """Any text."""
    return value


def number(low: float, high: float, kind: type[int | float] = int) -> Parse:
    """Return a parser of numbers from `low` to `high`."""
    what = "a whole number" if kind is int else "a number"

    def parse(value: str) -> int | float:
        try:
            result = kind(value)
        except ValueError:
            raise ValueError(f"must be {what} from {low} to {high}") from None
        if not low <= result <= high:
            raise ValueError(f"must be {what} from {low} to {high}")
        return result

    return parse


def seconds(low: float, high: float) -> Parse:
    """Return a parser of durations."""
    return number(low, high, float)


def flag(value: str) -> bool:
    """Parse true or false."""
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if value.lower() not in words:
        raise ValueError("must be true or false")
    return words[value.lower()]


def choice(*allowed: str) -> Parse:
    """Return a parser of one of a few words."""

    def parse(value: str) -> str:
        if value.lower() not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return value.lower()

    return parse


def readable_file(value: str) -> Path:
    """Parse the path of a file that can be read now."""
    path = Path(value)
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise ValueError(f"must be a file that can be read ({error.strerror})") from None


def queue_name(value: str) -> str:
    """Parse a queue's name, which stands in keys between braces."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}", value):
        raise ValueError("must be 1 to 100 of the characters A-Z a-z 0-9 . _ : -, the first a letter or a digit")
    return value


def address(value: str) -> str:
    """Parse host:port or unix:/path."""
    if value.startswith("unix:"):
        if not value.removeprefix("unix:").startswith("/"):
            raise ValueError("must be host:port or unix:/absolute/path")
        return value
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError("must be host:port or unix:/absolute/path")
    return value


def addresses(value: str) -> tuple[str, ...]:
    """Parse addresses with a comma between several."""
    return tuple(address(part.strip()) for part in value.split(","))


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this machine's own."""
    host = host.strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _hash_tag(key: str) -> str:
    """The part of a key that decides its slot in a cluster: between the first { and the next }, unless it is empty."""
    return (re.match(r"[^{]*\{([^}]+)\}", key) or (key, key))[1]


@dataclass(frozen=True, kw_only=True)
class RedisSettings:
    """How to reach Redis."""

    host: str = variable("REDIS_HOST", text, "", "Host name of the primary or configuration endpoint. Required.")
    port: int = variable("REDIS_PORT", number(1, 65535), 6379, "Its port.")
    db: int = variable("REDIS_DB", number(0, 65535), 0, "The database number; 0 in a cluster.")
    username: str = variable("REDIS_USERNAME", text, "", "ACL user; empty: the default user.")
    auth_token: str = variable("REDIS_AUTH_TOKEN", text, "", "Password or AUTH token.", secret=True)
    auth_secret_id: str = variable(
        "REDIS_AUTH_SECRET_ID", text, "", "Name or ARN of the Secrets Manager secret that holds the token."
    )
    auth_secret_key: str = variable(
        "REDIS_AUTH_SECRET_KEY", text, "password", "The key of the token where the secret is JSON."
    )
    iam_cluster: str = variable("REDIS_IAM_CLUSTER", text, "", "Turns on ElastiCache IAM auth for this cache.")
    iam_serverless: bool = variable("REDIS_IAM_SERVERLESS", flag, False, "That cache is a serverless one.")
    aws_region: str = variable("AWS_REGION", text, "", "Region of the secret and of IAM auth.")
    aws_endpoint_url: str = variable("AWS_ENDPOINT_URL", text, "", "Another endpoint than AWS's own, for tests.")
    tls: bool | None = variable("REDIS_TLS", flag, None, "TLS. Default: on, unless the host is loopback.")
    tls_ca_file: Path | None = variable(
        "REDIS_TLS_CA_FILE", readable_file, None, "Certificate authority, PEM. Default: the system's."
    )
    tls_cert_file: Path | None = variable("REDIS_TLS_CERT_FILE", readable_file, None, "Client certificate, PEM.")
    tls_key_file: Path | None = variable("REDIS_TLS_KEY_FILE", readable_file, None, "Its private key, PEM.")
    cluster: bool = variable("REDIS_CLUSTER", flag, False, "Redis is a cluster (cluster mode enabled, serverless).")
    pool_size: int = variable("REDIS_POOL_SIZE", number(2, 256), 4, "Connections, all opened at start.")
    timeout: float = variable(
        "REDIS_TIMEOUT_SECONDS", seconds(0.05, 60), 2.0, "The longest that a connection attempt or a command may take."
    )
    min_replicas: int = variable(
        "REDIS_MIN_REPLICAS", number(1, 5), 1, "Replicas that must confirm an event for DURABILITY_REPLICATED."
    )

    def check(self) -> None:
        """Refuse what does not fit together."""
        if not self.host:
            raise SettingsError("REDIS_HOST is not set: it must name the Redis host (or start with serve --embedded)")
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise SettingsError("REDIS_TLS_CERT_FILE and REDIS_TLS_KEY_FILE must be set together")
        if self.tls is None:
            object.__setattr__(self, "tls", not is_loopback(self.host))
        sources = {
            "REDIS_AUTH_TOKEN": self.auth_token,
            "REDIS_AUTH_SECRET_ID": self.auth_secret_id,
            "REDIS_IAM_CLUSTER": self.iam_cluster,
        }
        given = [name for name, value in sources.items() if value]
        if len(given) > 1:
            raise SettingsError(f"{' and '.join(given)} are set: only one of them may be")
        if self.iam_cluster and not (self.tls and self.username):
            raise SettingsError("REDIS_IAM_CLUSTER needs REDIS_USERNAME (the IAM user's name) and REDIS_TLS=true")
        if self.cluster and self.db:
            raise SettingsError(f"REDIS_DB is {self.db}: it must be 0 with REDIS_CLUSTER=true")


@dataclass(frozen=True, kw_only=True)
class QueueSettings:
    """What the queue looks like."""

    name: str = variable("QUEUE_NAME", queue_name, "model-ready", "The queue's name; part of its keys.")
    encoding: Encoding = variable(
        "QUEUE_ENCODING", choice(*ENCODINGS), "protobuf", "Encoding of the entries' data: protobuf or json."
    )
    dedup_seconds: int = variable(
        "QUEUE_DEDUP_SECONDS", number(60, 30 * 86400), 86400, "How long a published id is remembered."
    )
    max_depth: int = variable(
        "QUEUE_MAX_DEPTH", number(0, 10**12), 0, "The most that the slowest group may have open; 0: no limit."
    )
    retention_seconds: float = variable(
        "QUEUE_RETENTION_SECONDS",
        seconds(0, 10 * 365 * 86400),
        604800.0,
        "How long what all groups have acknowledged is kept; 0: for ever.",
    )
    list_name: str = variable("QUEUE_LIST", text, "", "A list that mirrors the events, for consumers of lists.")
    list_format: ListFormat = variable(
        "QUEUE_LIST_FORMAT", choice(*LIST_FORMATS), "envelope", "Format of the mirror's messages: envelope or payload."
    )


@dataclass(frozen=True, kw_only=True)
class PublishSettings:
    """How events are taken and retried."""

    durability: str = variable(
        "PUBLISH_DURABILITY",
        choice("spooled", "primary", "replicated"),
        "spooled",
        "The durability of calls that name none.",
    )
    timeout: float = variable(
        "PUBLISH_TIMEOUT_SECONDS", seconds(0.1, 300), 5.0, "The longest that a publish may take; less with a deadline."
    )
    max_pending: int = variable(
        "SIDECAR_MAX_PENDING",
        number(1, 1_000_000),
        10_000,
        "Events that may wait in memory (and at most 32 MiB of them).",
    )
    retry_base: float = variable(
        "RETRY_BASE_SECONDS", seconds(0.001, 60), 0.05, "Longest wait before the first retry; doubles from there."
    )
    retry_max: float = variable("RETRY_MAX_SECONDS", seconds(0.01, 3600), 0.8, "Longest wait between two retries.")
    source: str = variable("SIDECAR_SOURCE", text, "//model-registry", "`source` of events that name none.")

    def check(self) -> None:
        """Refuse what does not fit together."""
        if self.retry_max < self.retry_base:
            raise SettingsError(
                f"RETRY_MAX_SECONDS is {self.retry_max}: it must not be below RETRY_BASE_SECONDS, {self.retry_base}"
            )


@dataclass(frozen=True, kw_only=True)
class SpoolSettings:
    """The spool on this task's disk."""

    directory: Path = variable(
        "SPOOL_DIR", Path, Path("/var/lib/modelready-sidecar"), "Directory of the spool. A local disk, not EFS or NFS."
    )
    max_bytes: int = variable(
        "SPOOL_MAX_BYTES", number(4096, 2**50), GIBIBYTE, "The most that the spooled events may take, in bytes."
    )
    max_age: float = variable(
        "SPOOL_MAX_AGE_SECONDS", seconds(1, 10 * 365 * 86400), 604800.0, "An older spooled event becomes a dead letter."
    )


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """The local API."""

    listen: tuple[str, ...] = variable(
        "SIDECAR_LISTEN", addresses, ("127.0.0.1:50051",), "gRPC: host:port or unix:/path; a comma between several."
    )
    api_token: str = variable(
        "SIDECAR_API_TOKEN", text, "", "Every call but health must carry it as a bearer token.", secret=True
    )
    admin_token: str = variable(
        "SIDECAR_ADMIN_TOKEN", text, "", "Replay and discard must carry it; it is good for all calls.", secret=True
    )
    tls_cert_file: Path | None = variable(
        "SIDECAR_TLS_CERT_FILE", readable_file, None, "Server certificate, PEM; for host:port, not for unix sockets."
    )
    tls_key_file: Path | None = variable("SIDECAR_TLS_KEY_FILE", readable_file, None, "Its private key, PEM.")
    tls_client_ca_file: Path | None = variable(
        "SIDECAR_TLS_CLIENT_CA_FILE", readable_file, None, "Clients must have a certificate of this authority, PEM."
    )
    http_listen: str = variable(
        "SIDECAR_HTTP_LISTEN", address, "127.0.0.1:9464", "HTTP: /metrics, /healthz, /readyz, a page."
    )
    shutdown: float = variable(
        "SIDECAR_SHUTDOWN_SECONDS", seconds(0.5, 600), 25.0, "The longest that a stop may take; ECS: below stopTimeout."
    )

    def check(self) -> None:
        """Refuse what does not fit together."""
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise SettingsError("SIDECAR_TLS_CERT_FILE and SIDECAR_TLS_KEY_FILE must be set together")
        if self.tls_client_ca_file and not self.tls_cert_file:
            raise SettingsError("SIDECAR_TLS_CLIENT_CA_FILE needs SIDECAR_TLS_CERT_FILE and SIDECAR_TLS_KEY_FILE")
        if self.http_listen.startswith("unix:"):
            raise SettingsError(f"SIDECAR_HTTP_LISTEN is {self.http_listen!r}: it must be host:port")


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """What is logged."""

    level: str = variable("LOG_LEVEL", choice("debug", "info", "warning", "error"), "info", "Least level logged.")
    format: str = variable("LOG_FORMAT", choice("json", "text"), "", "json or text. Default: text on a terminal.")


@dataclass(frozen=True, kw_only=True)
class MetricsSettings:
    """Metrics beyond those that /metrics always has."""

    emf: bool = variable("METRICS_EMF", flag, False, "Metrics for CloudWatch on standard output, once a minute.")


@dataclass(frozen=True, kw_only=True)
class TracingSettings:
    """OpenTelemetry's own variables: those that decide whether there is tracing. Its SDK reads them and all others."""

    disabled: str = variable("OTEL_SDK_DISABLED", text, "", "true: no tracing, whatever the others say.")
    exporter: str = variable("OTEL_TRACES_EXPORTER", text, "", "otlp: tracing is on; none: it is off.")
    endpoint: str = variable("OTEL_EXPORTER_OTLP_ENDPOINT", text, "", "The collector's URL; tracing is on.")
    traces_endpoint: str = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", text, "", "Another URL for traces alone.")
    protocol: str = variable("OTEL_EXPORTER_OTLP_PROTOCOL", text, "grpc", "grpc or http/protobuf.")

    @property
    def on(self) -> bool:
        """Whether spans are wanted."""
        if self.disabled.lower() == "true":
            return False
        if self.exporter:
            return "otlp" in self.exporter.lower().replace(" ", "").split(",")
        return bool(self.endpoint or self.traces_endpoint)


GROUPS = (
    RedisSettings,
    QueueSettings,
    PublishSettings,
    SpoolSettings,
    ServerSettings,
    LogSettings,
    MetricsSettings,
    TracingSettings,
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All groups."""

    redis: RedisSettings
    queue: QueueSettings
    publish: PublishSettings
    spool: SpoolSettings
    server: ServerSettings
    log: LogSettings
    metrics: MetricsSettings
    tracing: TracingSettings

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read all groups. Raises SettingsError."""
        settings = cls(
            redis=read(RedisSettings, environ),
            queue=read(QueueSettings, environ),
            publish=read(PublishSettings, environ),
            spool=read(SpoolSettings, environ),
            server=read(ServerSettings, environ),
            log=read(LogSettings, environ),
            metrics=read(MetricsSettings, environ),
            tracing=read(TracingSettings, environ),
        )
        keys = Keys(settings.queue.name)
        if settings.redis.cluster and settings.queue.list_name and _hash_tag(settings.queue.list_name) != keys.queue:
            raise SettingsError(
                f"QUEUE_LIST is {settings.queue.list_name!r}: with REDIS_CLUSTER=true its name must carry the queue's "
                f"hash tag {keys.tag}, so that both are in one slot"
            )
        if settings.queue.list_name in (keys.events, keys.dead_letters):
            raise SettingsError(f"QUEUE_LIST is {settings.queue.list_name!r}: that key is the queue's own")
        return settings


def read(group: type[Group], environ: Mapping[str, str]) -> Group:
    """Read one group from the environment. Raises SettingsError."""
    values: dict[str, Any] = {}
    for setting in fields(cast("Any", group)):
        name, parse, secret = (setting.metadata[key] for key in ("name", "parse", "secret"))
        value = environ.get(name, "")
        if not value:
            continue
        try:
            values[setting.name] = parse(value)
        except ValueError as error:
            raise SettingsError(f"{name} is {'***' if secret else repr(value)}: it {error}") from None
    result = group(**values)
    check = getattr(result, "check", None)
    if check is not None:
        check()
    return result
